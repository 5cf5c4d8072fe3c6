import hashlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lambdas.access.tokens import TOKEN_ENTROPY, TOKEN_REGEXP, format_token, hash_token, is_token, token_id

NUMBERS = st.integers(min_value=0, max_value=TOKEN_ENTROPY - 1)
CONDA_TOKEN = re.compile(r"/t/([a-zA-Z0-9-]*)")  # as conda finds a token in a URL


@given(number=NUMBERS)
def test_format_token__is_token_and_survives_conda(number: int) -> None:
    token = format_token(number)
    assert is_token(token)
    assert re.fullmatch(TOKEN_REGEXP, token)
    match = CONDA_TOKEN.match(f"/t/{token}/team")
    assert match is not None
    assert match[1] == token


@given(first=NUMBERS, second=NUMBERS)
def test_format_token__different_numbers_give_different_tokens(first: int, second: int) -> None:
    assert (format_token(first) == format_token(second)) is (first == second)


def test_format_token__has_160_bits() -> None:
    assert TOKEN_ENTROPY >= 2**160


@pytest.mark.parametrize("number", [-1, TOKEN_ENTROPY])
def test_format_token__out_of_range(number: int) -> None:
    with pytest.raises(ValueError, match="range"):
        format_token(number)


@given(number=NUMBERS, position=st.integers(min_value=3, max_value=35), character=st.sampled_from("0aZ9zA-_é"))
def test_is_token__one_wrong_character(number: int, position: int, character: str) -> None:
    token = format_token(number)
    changed = token[:position] + character + token[position + 1 :]
    assert is_token(changed) is (changed == token)


@pytest.mark.parametrize("text", ["", "fw-", "*****", "<TOKEN>", "fw-" + "0" * 33, "x" * 9000, "fw-\ud800"])
def test_is_token__something_else(text: str) -> None:
    assert not is_token(text)


def test_is_token__adjacent_characters_swapped() -> None:
    token = format_token(2**150 + 12345)
    position = next(at for at in range(3, 30) if token[at] != token[at + 1])
    swapped = token[:position] + token[position + 1] + token[position] + token[position + 2 :]
    assert not is_token(swapped)


def test_hash_token__is_sha256_of_the_whole_token() -> None:
    token = format_token(7)
    assert hash_token(token) == hashlib.sha256(token.encode()).hexdigest()
    assert token_id(hash_token(token)) == hash_token(token)[:12]
