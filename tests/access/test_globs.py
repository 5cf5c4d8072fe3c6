import fnmatch
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lambdas.access.globs import glob_matches, matches_any, parse_channel_globs, parse_package_globs
from lambdas.channel.errors import InvalidNameError


@given(pattern=st.text("ab*?-.", max_size=12), text=st.text("ab-.", max_size=12))
@example(pattern="*", text="")
@example(pattern="", text="")
@example(pattern="a*b*a", text="aba")
def test_glob_matches__agrees_with_the_standard_library(pattern: str, text: str) -> None:
    assert glob_matches(pattern, text) is fnmatch.fnmatchcase(text, pattern)


def test_glob_matches__many_stars_take_steps_in_proportion_to_the_lengths() -> None:
    # Backtracking over every star, as a regular expression does, would take some 10**20 steps here.
    assert not glob_matches("*a" * 40 + "b", "a" * 5000)


def test_glob_matches__prefix_does_not_cover_a_longer_literal() -> None:
    assert glob_matches("team-*", "team-x")
    assert not glob_matches("team", "team-x")
    assert not glob_matches("team-*", "xteam-x")


def test_matches_any__nothing_matches_no_pattern() -> None:
    assert not matches_any((), "team")


@pytest.mark.parametrize("text", ["", "Team", "a/b", "a b", "[ab]", "é", "a\n", "a" * 129])
def test_parse_channel_globs__illegal(text: str) -> None:
    for texts in ([text], ["team", text], [text, "team"]):
        with pytest.raises(InvalidNameError, match=re.escape(repr(text))):
            parse_channel_globs(texts)


def test_parse_channel_globs__not_a_string() -> None:
    with pytest.raises(TypeError):
        parse_channel_globs(["team", 1])  # type: ignore[list-item]


@pytest.mark.parametrize("text", ["*", "team", "team-*", "t?am_1.x"])
def test_parse_globs__legal(text: str) -> None:
    assert parse_channel_globs([text, "a"]) == parse_package_globs([text, "a"]) == (text, "a")
