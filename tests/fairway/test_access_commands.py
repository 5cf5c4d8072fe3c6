"""The commands that manage access, run as a user runs them, on a directory in place of the bucket."""

import io
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from lambdas.access.decisions import Decision, compile_rules, decide
from lambdas.access.document import NEARLY_FULL_BYTES, AccessDocument, Visibility, encode_access, format_time
from lambdas.access.tokens import is_token
from lambdas.channel.layout import ACCESS_KEY
from lambdas.indexer.settings import parse_settings, publish_settings
from lambdas.key_refresher import jwks
from lambdas.key_refresher.store import fetch_access
from lambdas.storage.directory import DirectoryStorage
from lambdas.storage.protocol import ContentHeaders
from scripts.fairway import main as main_module
from scripts.fairway.session import Session
from scripts.fairway.tokens import parse_duration, parse_expiry
from tests.access_documents import AUDIENCE, ISSUER, KEY, NOW, make_claims, make_identity
from tests.fairway.conftest import Run

DAY = 86_400
HEADERS = ContentHeaders(content_type="application/json", cache_control="no-store")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    times = {"now": NOW}
    monkeypatch.setattr(Session, "now", property(lambda _: times["now"]))
    return times


@pytest.fixture
def storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: dict[str, int]) -> DirectoryStorage:
    storage = DirectoryStorage(tmp_path)
    storage.put(ACCESS_KEY, encode_access(AccessDocument()), headers=HEADERS)  # as the deployment does
    monkeypatch.setattr(Session, "storage", storage)
    monkeypatch.setattr(Session, "caller", "arn:aws:iam::123456789012:user/ada")
    return storage


@pytest.fixture
def run(storage: DirectoryStorage, monkeypatch: pytest.MonkeyPatch, run_fairway: Run) -> Run:
    monkeypatch.setenv("FAIRWAY_URL", "https://conda.example.com/")
    return run_fairway


def reads(storage: DirectoryStorage, secret: str, channel: str, *, now: int = NOW) -> bool:
    rules = compile_rules(fetch_access(storage), public_globs=())
    return (
        decide(rules, channel=channel, path="noarch/foo-1.0-0.conda", credentials=[secret], now=now) is Decision.ALLOWED
    )


def test_token_create__prints_a_token_that_reads(run: Run, storage: DirectoryStorage) -> None:
    result = run("token", "create", "ci", "--channel", "team", "--channel", "lab-*", "--expires", "90d")
    secret = result.out.strip()
    assert result.code == 0
    assert is_token(secret)
    assert "conda install -c https://conda.example.com/t/" in result.err
    assert reads(storage, secret, "team")
    assert reads(storage, secret, "lab-7")
    assert not reads(storage, secret, "other")
    assert not reads(storage, secret, "team", now=NOW + 90 * DAY)


@pytest.mark.parametrize("is_full", [True, False])
def test_token_create__says_when_the_access_document_is_nearly_full(
    run: Run, storage: DirectoryStorage, *, is_full: bool
) -> None:
    padding = "x" * (NEARLY_FULL_BYTES - (0 if is_full else 10_000))
    storage.put(ACCESS_KEY, encode_access(AccessDocument(extra={"padding": padding})), headers=HEADERS)
    result = run("token", "create", "ci", "--channel", "team")
    assert result.code == 0
    assert ("of at most 1,572,864 bytes: revoke unused tokens" in result.err) == is_full
    assert is_token(result.out.strip())


def test_token_create__attack_token_is_stored_nowhere(run: Run, storage: DirectoryStorage, tmp_path: Path) -> None:
    secret = run("token", "create", "ci", "--channel", "team").out.strip()
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.name == "access.json" for path in files)
    assert all(secret.encode() not in path.read_bytes() for path in files)
    for arguments in (["token", "list"], ["token", "list", "--json"], ["audit"], ["audit", "--json"]):
        assert secret not in run(*arguments).out


def test_token_create__json(run: Run) -> None:
    result = run("token", "create", "ci", "--channel", "team", "--package", "foo-*", "--json")
    assert is_token(result.document["token"])
    assert result.document["packages"] == ["foo-*"]
    assert result.document["expires"] is None
    assert result.err == ""


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["token", "create", "ci"], 2),
        (["token", "create", "ci", "--channel", "TEAM"], 2),
        (["token", "create", "ci", "--channel", "team", "--package", "Foo"], 2),
        (["token", "create", "c i", "--channel", "team"], 2),
        (["token", "create", "ci", "--channel", "team", "--expires", "soon"], 2),
        (["token", "create", "ci", "--channel", "team", "--expires", "2020-01-01"], 2),
        (["token", "revoke", "nobody"], 2),
        (["token", "rotate", "nobody"], 2),
        (["channel", "set-public", "t"], 2),
        (["channel", "set-private", "Team"], 2),
        (["issuer", "add", "http://x", "--audience", "a", "--claim", "repository=x", "--channel", "team"], 2),
        (["issuer", "remove", ISSUER], 2),
        (["issuer", "refresh", ISSUER], 2),
        (["nonsense"], 2),
        (["token", "nonsense"], 2),
        (["token", "list", "--nonsense"], 2),
    ],
)
def test_main__rejections_have_a_hint_and_change_nothing(
    run: Run, storage: DirectoryStorage, arguments: list[str], code: int
) -> None:
    result = run(*arguments)
    assert result.code == code
    assert re.match(r"error: \S.*\nhint: \S.*\n\Z", result.err), result.err
    assert result.out == ""
    assert fetch_access(storage) == AccessDocument()


def test_token_create__name_is_taken(run: Run) -> None:
    run("token", "create", "ci", "--channel", "team")
    result = run("token", "create", "ci", "--channel", "team")
    assert result.code == 2
    assert "rotate" in result.err


def test_token_list__lists_public_fields(run: Run, clock: dict[str, int]) -> None:
    assert run("token", "list").out == "no tokens\n"
    run("token", "create", "ci", "--channel", "team", "--expires", "1h")
    run("token", "create", "laptop", "--channel", "*")
    run("token", "revoke", "laptop")
    listed = run("token", "list").out
    assert listed.splitlines()[0].split() == ["ID", "NAME", "CHANNELS", "PACKAGES", "EXPIRES", "CREATOR", "STATE"]
    assert "user/ada" in listed
    assert "laptop" not in listed
    clock["now"] += 3600
    assert run("token", "list", "--json").document == []
    states = {entry["name"]: entry["state"] for entry in run("token", "list", "--all", "--json").document}
    assert states == {"ci": "expired", "laptop": "revoked"}


def test_token_revoke__ends_access(run: Run, storage: DirectoryStorage) -> None:
    secret = run("token", "create", "ci", "--channel", "team").out.strip()
    assert run("token", "revoke", "ci").code == 0
    assert not reads(storage, secret, "team")


def test_token_rotate__both_are_valid_during_the_overlap(
    run: Run, storage: DirectoryStorage, clock: dict[str, int]
) -> None:
    old = run("token", "create", "ci", "--channel", "team", "--package", "foo", "--expires", "30d").out.strip()
    clock["now"] += 10 * DAY
    result = run("token", "rotate", "ci", "--overlap", "2h", "--json").document
    new = result["token"]
    assert result["packages"] == ["foo"]
    assert reads(storage, old, "team", now=clock["now"] + 7199)
    assert not reads(storage, old, "team", now=clock["now"] + 7200)
    assert reads(storage, new, "team", now=clock["now"] + 30 * DAY - 1)
    assert not reads(storage, new, "team", now=clock["now"] + 30 * DAY)


def test_token_rotate__again_replaces_the_newest(run: Run, storage: DirectoryStorage, clock: dict[str, int]) -> None:
    run("token", "create", "ci", "--channel", "team")
    clock["now"] += 1
    first = run("token", "rotate", "ci", "--json").document
    clock["now"] += 1
    second = run("token", "rotate", "ci", "--json").document
    assert second["replaces"] == first["id"]


def test_channel_set_public__then_set_private(run: Run, storage: DirectoryStorage) -> None:
    storage.root.joinpath("uploaded", "noarch").mkdir(parents=True)
    (listed,) = run("channel", "list", "--json").document
    assert (listed["name"], listed["visibility"], listed["stored"]) == ("uploaded", "as deployed", True)
    assert run("channel", "set-public", "--yes", "tools").code == 0
    assert fetch_access(storage).channels["tools"].visibility is Visibility.PUBLIC
    assert run("channel", "set-private", "tools").code == 0
    assert fetch_access(storage).channels["tools"].visibility is Visibility.PRIVATE
    assert [entry["name"] for entry in run("channel", "list", "--json").document] == ["tools", "uploaded"]


def test_channel_list__by_what_and_since_when(run: Run, storage: DirectoryStorage, clock: dict[str, int]) -> None:
    publish_settings(storage, parse_settings({"FAIRWAY_BUCKET": "b", "FAIRWAY_PUBLIC_CHANNELS": "open-*, tools"}))
    for name in ("closed", "open-data", "tools"):
        storage.root.joinpath(name, "noarch").mkdir(parents=True)
    run("channel", "set-public", "tools")
    clock["now"] += DAY
    run("channel", "set-private", "tools")
    listed = {one.pop("name"): one for one in run("channel", "list", "--json").document}
    assert listed == {
        "closed": {"visibility": "private", "source": "default", "by": None, "since": None, "stored": True},
        "open-data": {
            "visibility": "public", "source": "setting public_channels: open-*", "by": None, "since": None,
            "stored": True,
        },
        "tools": {
            "visibility": "private", "source": "set-private", "by": "arn:aws:iam::123456789012:user/ada",
            "since": format_time(NOW + DAY), "stored": True,
        },
    }  # fmt: skip
    lines = run("channel", "list").out.splitlines()
    assert lines[0].split() == ["CHANNEL", "VISIBILITY", "BY", "SINCE"]
    assert lines[3].endswith(format_time(NOW + DAY))


def test_channel_set_public__of_a_channel_that_exists_does_not_ask(run: Run, storage: DirectoryStorage) -> None:
    storage.root.joinpath("tools", "noarch").mkdir(parents=True)
    assert run("channel", "set-public", "tools").code == 0
    assert fetch_access(storage).channels["tools"].visibility is Visibility.PUBLIC


def test_channel_set_public__of_a_missing_channel_is_an_error_where_no_person_answers(
    run: Run, storage: DirectoryStorage
) -> None:
    storage.root.joinpath("tools", "noarch").mkdir(parents=True)
    result = run("channel", "set-public", "tool")
    assert result.code == 2
    assert "there is no channel 'tool'" in result.err
    assert "hint: see 'fairway channel list', or say --yes" in result.err
    assert fetch_access(storage) == AccessDocument()


@pytest.mark.parametrize(("answer", "code"), [("y\n", 0), ("n\n", 2), ("\n", 2)])
def test_channel_set_public__of_a_missing_channel_asks(
    run: Run, storage: DirectoryStorage, monkeypatch: pytest.MonkeyPatch, answer: str, code: int
) -> None:
    terminal = io.StringIO(answer)
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr("sys.stdin", terminal)
    result = run("channel", "set-public", "planned")
    assert result.code == code
    assert "There is no channel 'planned'" in result.err
    assert ("planned" in fetch_access(storage).channels) == (code == 0)


def test_channel_set_private__does_not_ask(run: Run) -> None:
    assert run("channel", "set-private", "planned").code == 0


def test_audit__records_caller_time_and_change(run: Run, clock: dict[str, int]) -> None:
    assert run("audit").out == "no changes\n"
    run("token", "create", "ci", "--channel", "team")
    clock["now"] += DAY
    run("token", "revoke", "ci")
    run("channel", "set-public", "tools", "--yes")
    entries = run("audit", "--json").document
    assert [(entry["action"], entry["subject"]) for entry in entries] == [
        ("token-created", "ci"),
        ("token-revoked", "ci"),
        ("channel-public", "tools"),
    ]
    assert {entry["by"] for entry in entries} == {"arn:aws:iam::123456789012:user/ada"}
    assert len(run("audit", "--since", "1h", "--json").document) == 2
    assert len(run("audit", "--subject", "ci", "--json").document) == 2


def test_issuer_add__with_keys_from_a_file(run: Run, storage: DirectoryStorage, tmp_path: Path) -> None:
    keys = tmp_path / "keys.json"
    keys.write_text(json.dumps({"keys": [{"kty": "RSA", "kid": KEY.kid, "n": KEY.n, "e": KEY.e}]}))
    arguments = ["--audience", AUDIENCE, "--claim", "repository=acme/*", "--channel", "team", "--jwks", str(keys)]
    assert run("issuer", "add", ISSUER, *arguments).code == 0
    assert reads(storage, make_identity(make_claims()), "team")
    assert not reads(storage, make_identity(make_claims(repository="evil/app")), "team")
    assert run("issuer", "list", "--json").document[0]["keys"] == [KEY.kid]
    assert run("issuer", "refresh", ISSUER, "--jwks", str(keys)).code == 0
    assert run("issuer", "remove", ISSUER).code == 0
    assert not reads(storage, make_identity(make_claims()), "team")


def test_issuer_refresh__fetches_the_keys(run: Run, storage: DirectoryStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    pages = {
        f"{ISSUER}/.well-known/openid-configuration": {"issuer": ISSUER, "jwks_uri": f"{ISSUER}/keys"},
        f"{ISSUER}/keys": {"keys": [{"kty": "RSA", "kid": "k9", "n": KEY.n, "e": KEY.e}]},
    }
    monkeypatch.setattr(jwks, "fetch_https", lambda url: json.dumps(pages[url]).encode())
    arguments = ["--audience", AUDIENCE, "--claim", "repository=acme/*", "--channel", "team"]
    assert run("issuer", "add", ISSUER, *arguments).code == 0
    assert run("issuer", "refresh", "--json").document == {ISSUER: ["k9"]}
    assert fetch_access(storage).issuers[0].keys[0].kid == "k9"


@pytest.mark.parametrize("claim", ["repository", "=x", "repository=*"])
def test_issuer_add__attack_claims_match_every_identity_token(run: Run, claim: str) -> None:
    result = run("issuer", "add", ISSUER, "--audience", AUDIENCE, "--claim", claim, "--channel", "team")
    assert result.code == 2


@pytest.mark.parametrize(
    "claims",
    [
        ["aud=https://conda.example.com"],
        [f"iss={ISSUER}"],
        ["repository=*/*"],
        ["repository=acme*/app"],
        ["ref=refs/heads/main"],
        ["sub=repo:*"],
        ["sub=repo:*", "ref=refs/heads/main", f"iss={ISSUER}"],
    ],
)
def test_issuer_add__attack_rule_that_lets_everybody_in(run: Run, storage: DirectoryStorage, claims: list[str]) -> None:
    options = [word for claim in claims for word in ("--claim", claim)]
    result = run("issuer", "add", ISSUER, "--audience", AUDIENCE, *options, "--channel", "team")
    assert result.code == 2
    assert "everybody" in result.err
    assert "hint: name an owner: --claim repository=OWNER/REPOSITORY" in result.err
    assert fetch_access(storage) == AccessDocument()


def test_issuer_check__says_why(run: Run, storage: DirectoryStorage, tmp_path: Path) -> None:
    keys = tmp_path / "keys.json"
    keys.write_text(json.dumps({"keys": [{"kty": "RSA", "kid": KEY.kid, "n": KEY.n, "e": KEY.e}]}))
    arguments = ["--audience", AUDIENCE, "--claim", "repository=acme/*", "--channel", "team", "--jwks", str(keys)]
    run("issuer", "add", ISSUER, *arguments)
    token = tmp_path / "token"
    token.write_text(make_identity(make_claims()) + "\n")
    assert run("issuer", "check", str(token), "--json").document["scopes"] == ["team"]
    token.write_text(make_identity(make_claims(aud="another")))
    result = run("issuer", "check", str(token))
    assert result.code == 1
    assert "wrong-audience" in result.err


def test_main__malformed_document_is_left_alone(run: Run, storage: DirectoryStorage, tmp_path: Path) -> None:
    path = tmp_path / ".fairway" / "access.json"
    path.write_text('{"version": 2}')
    result = run("token", "create", "ci", "--channel", "team")
    assert result.code == 1
    assert path.read_text() == '{"version": 2}'


def test_main__missing_bucket(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FAIRWAY_BUCKET", raising=False)
    monkeypatch.setattr(sys, "argv", ["fairway", "token", "list"])
    with pytest.raises(SystemExit) as caught:
        main_module.main()
    assert caught.value.code == 2
    assert "FAIRWAY_BUCKET" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["token"],
        *(["token", name] for name in ("create", "list", "revoke", "rotate")),
        ["channel"],
        *(["channel", name] for name in ("list", "set-public", "set-private")),
        ["issuer"],
        *(["issuer", name] for name in ("add", "list", "remove", "refresh", "check")),
        ["audit"],
    ],
)
def test_main__every_command_has_help_and_examples(run: Run, arguments: list[str]) -> None:
    result = run(*arguments, "--help")
    assert result.code == 0
    assert result.err == ""
    is_group = not arguments or arguments in (["token"], ["channel"], ["issuer"])
    assert ("Examples:" in result.out) is not is_group


def test_main__help_imports_no_boto3() -> None:
    code = (
        "import sys; sys.argv = ['fairway', '--help']\n"
        "from scripts.fairway.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "assert not {'boto3', 'botocore'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.parametrize(("text", "seconds"), [("30m", 1800), ("12h", 43_200), ("90d", 90 * DAY), ("1y", 365 * DAY)])
def test_parse_duration__units(text: str, seconds: int) -> None:
    assert parse_duration(text) == seconds


def test_parse_expiry__day_begins_at_midnight_utc() -> None:
    assert parse_expiry("2030-01-01", now=NOW) == 1_893_456_000
    assert parse_expiry("never", now=NOW) is None


def test_encode_access__empty_document() -> None:
    assert json.loads(encode_access(AccessDocument())) == {
        "version": 1,
        "channels": {},
        "tokens": [],
        "issuers": [],
        "history": [],
    }
