import sys
from collections.abc import Callable
from types import FrameType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lambdas.access.decisions import (
    MAX_REMEMBERED_IDENTITIES,
    AccessRules,
    Decision,
    compile_rules,
    decide,
    find_scopes,
)
from lambdas.access.document import Visibility
from lambdas.channel.artifact_kinds import guess_package, parse_filename
from lambdas.channel.layout import IndexFiles
from tests.access_documents import NOW, make_claims, make_document, make_identity, make_issuer, make_secret, make_token

SECRET = make_secret(1)
NARROW = make_secret(2)
EXPIRED = make_secret(3)
REVOKED = make_secret(4)
IDENTITY = make_identity(make_claims())
OTHER_IDENTITY = make_identity(make_claims(repository="evil/app"))


def make_rules(*, public_globs: tuple[str, ...] = ("pub-*",)) -> AccessRules:
    return compile_rules(
        make_document(
            make_token(SECRET, "team", "lab-*"),
            make_token(NARROW, "team", packages=["foo", "bar-*"], name="narrow"),
            make_token(EXPIRED, "team", expires=NOW, name="expired"),
            make_token(REVOKED, "team", revoked=NOW - 1, name="revoked"),
            issuers=[make_issuer("team")],
            open=Visibility.PUBLIC,
            team=Visibility.PRIVATE,
            **{"pub-not": Visibility.PRIVATE},
        ),
        public_globs=public_globs,
        index_files=IndexFiles(
            channel=frozenset({"channeldata.json"}), subdir=frozenset({"repodata.json", "index.html"})
        ),
    )


def ask(
    channel: str, *credentials: str, filename: str = "noarch/repodata.json", rules: AccessRules | None = None
) -> str:
    decision = decide(rules or make_rules(), channel=channel, path=filename, credentials=credentials, now=NOW)
    return decision.value


@pytest.mark.parametrize(
    ("channel", "credentials", "expected"),
    [
        ("team", [SECRET], "allowed"),
        ("lab-7", [SECRET], "allowed"),
        ("other", [SECRET], "forbidden"),
        ("lab", [SECRET], "forbidden"),
        ("team", [], "unauthenticated"),
        ("other", [], "unauthenticated"),
        ("team", [EXPIRED], "unauthenticated"),
        ("team", [REVOKED], "unauthenticated"),
        ("team", [make_secret(99)], "unauthenticated"),
        ("team", ["*****", ""], "unauthenticated"),
        ("team", ["*****", SECRET], "allowed"),
        ("team", [EXPIRED, SECRET], "allowed"),
        ("other", [SECRET, EXPIRED], "forbidden"),
        ("team", [IDENTITY], "allowed"),
        ("other", [IDENTITY], "forbidden"),
        ("team", [OTHER_IDENTITY], "forbidden"),
        ("team", [IDENTITY + "x"], "unauthenticated"),
        ("open", [], "allowed"),
        ("pub-x", [], "allowed"),
        ("pub-x", ["*****"], "allowed"),  # conda and mamba mask credentials on some requests
        ("pub-x", [EXPIRED], "allowed"),
        ("pub-not", [], "unauthenticated"),  # the document wins over the deployment
        ("pub-not", [SECRET], "forbidden"),
        ("", [], "unauthenticated"),
        (".fairway", [], "unauthenticated"),
    ],
)
def test_decide__matrix(channel: str, credentials: list[str], expected: str) -> None:
    assert ask(channel, *credentials) == expected


@given(channel=st.text(max_size=20), filename=st.text(max_size=20), credentials=st.lists(st.text(max_size=40)))
def test_decide__denies_by_default(channel: str, filename: str, credentials: list[str]) -> None:
    rules = compile_rules(make_document(), public_globs=())
    decision = decide(rules, channel=channel, path=filename, credentials=credentials, now=NOW)
    assert decision is Decision.UNAUTHENTICATED


@pytest.mark.parametrize(
    ("filename", "expected"),
    [
        ("repodata.json", "allowed"),
        ("repodata_shards.msgpack.zst", "allowed"),
        ("index.html", "allowed"),
        ("", "allowed"),
        ("foo-1.0-0.conda", "allowed"),
        ("foo-1.0-0.tar.bz2", "allowed"),
        ("foo-1.0-0.conda.sigs", "allowed"),
        ("foo-1.0-0.conda.sigs." + "0" * 64, "allowed"),
        ("bar-x-1.0-0.conda", "allowed"),
        ("foobar-1.0-0.conda", "forbidden"),
        ("bar-1.0-0.conda", "forbidden"),
        ("qux-1.0-0.conda", "forbidden"),
        ("qux-1.0-0.conda.sigs", "forbidden"),
        ("qux-1.0-0.CONDA", "forbidden"),
        ("qux-1.0-0.conda.", "forbidden"),
        ("foo-1.0-0.conda-qux-1.0-0.conda", "forbidden"),
        (".conda", "forbidden"),
        ("README.md", "forbidden"),
        ("patch_instructions.json", "forbidden"),
        ("repodata.json.gz", "forbidden"),
        ("shards/0a.msgpack.zst", "allowed"),
        ("deeper/repodata.json", "forbidden"),
        ("foo.conda", "forbidden"),
    ],
)
def test_decide__token_for_some_packages(filename: str, expected: str) -> None:
    assert ask("team", NARROW, filename=f"noarch/{filename}") == expected


@given(
    stem=st.from_regex(r"[a-z0-9]{1,8}(-[a-z0-9]{1,4}){0,2}-[0-9.]{1,5}-[a-z0-9_]{1,6}", fullmatch=True),
    extension=st.sampled_from([".conda", ".tar.bz2"]),
    suffix=st.sampled_from(["", ".sigs", ".sigs.0123abcd"]),
)
def test_guess_package__agrees_with_the_grammar(stem: str, extension: str, suffix: str) -> None:
    assert guess_package(stem + extension + suffix) == parse_filename(stem + extension).name


def trace(call: Callable[[], object]) -> list[tuple[str, int]]:
    """Return every line that runs during a call."""
    lines: list[tuple[str, int]] = []

    def note(frame: FrameType, event: str, _: object) -> object:
        if event == "line" and "lambdas" in frame.f_code.co_filename:
            lines.append((frame.f_code.co_filename, frame.f_lineno))
        return note

    before = sys.gettrace()
    sys.settrace(note)  # type: ignore[arg-type]  # the signature in typeshed is wider
    try:
        call()
    finally:
        sys.settrace(before)
    return lines


@pytest.mark.parametrize("credentials", [(), ("*****",), (SECRET,), (EXPIRED,)])
def test_decide__attack_existence_oracle(credentials: tuple[str, ...]) -> None:
    # "other" is known to the rules, "ghost" is not; answers, and the very steps to them, are the same.
    rules = compile_rules(
        make_document(
            make_token(SECRET, "team"), make_token(EXPIRED, "other", expires=NOW, name="e"), other=Visibility.PRIVATE
        ),
        public_globs=("pub-*",),
    )
    assert ask("other", *credentials, rules=rules) == ask("ghost", *credentials, rules=rules) != "allowed"


def test_decide__attack_existence_oracle_by_time() -> None:
    # No document tells private channels apart from those that are nowhere: both take the same steps.
    rules = compile_rules(make_document(make_token(SECRET, "team")), public_globs=("pub-*",))
    steps = {channel: trace(lambda name=channel: ask(name, SECRET, rules=rules)) for channel in ("other", "ghost")}  # type: ignore[misc]  # bound in the loop
    assert steps["other"] == steps["ghost"]
    assert steps["other"]


def test_find_scopes__remembers_a_verified_identity_until_it_expires() -> None:
    rules = make_rules()
    assert find_scopes(rules, IDENTITY, now=NOW) == find_scopes(rules, IDENTITY, now=NOW + 299)
    assert len(rules.remembered) == 1
    assert find_scopes(rules, IDENTITY, now=NOW + 300) is None


def test_find_scopes__remembered_identity_takes_no_second_exponentiation() -> None:
    rules = make_rules()
    first = trace(lambda: find_scopes(rules, IDENTITY, now=NOW))
    second = trace(lambda: find_scopes(rules, IDENTITY, now=NOW))
    assert any("identity.py" in filename for filename, _ in first)
    assert len(second) < len(first) / 4


def test_find_scopes__forgets_with_the_rules() -> None:
    find_scopes(make_rules(), IDENTITY, now=NOW)
    assert make_rules().remembered == {}


def test_find_scopes__remembers_a_bounded_number() -> None:
    rules = make_rules()
    for number in range(MAX_REMEMBERED_IDENTITIES):
        rules.remembered[number.to_bytes(32, "big")] = (NOW + 1, ())
    assert find_scopes(rules, IDENTITY, now=NOW) is not None
    assert len(rules.remembered) == 1


def test_find_scopes__remembers_no_invalid_identity() -> None:
    rules = make_rules()
    assert find_scopes(rules, IDENTITY[:-8] + "AAAAAAAA", now=NOW) is None
    assert rules.remembered == {}


def test_compile_rules__holds_no_revoked_token() -> None:
    assert make_token(REVOKED, "team").sha256 not in make_rules().tokens
