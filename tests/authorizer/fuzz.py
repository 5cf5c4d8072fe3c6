"""Sends unusual requests to the authorizer and compares each answer with an oracle.

    python -m tests.authorizer.fuzz --paths 1000000 [--seed 1]

The oracle shares no code with the authorizer. It reads the final URI as S3 would (percent-decoding,
``+`` as a space), looks up the key in tables of plain names and permissions, and parses the viewer's
URL with one regular expression and the standard library's decoder. Four properties must hold: the key
that is fetched is the requested one, one of the credentials in the request may read it, the answer
contains no part of a credential, and the authorizer allows what the oracle allows.
"""

import argparse
import base64
import json
import posixpath
import random
import re
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_to_bytes

from lambdas.access.decisions import compile_rules
from lambdas.access.document import Visibility
from lambdas.authorizer.answers import answer_request
from lambdas.channel.layout import IndexFiles
from tests.access_documents import (
    NOW,
    format_basic,
    make_claims,
    make_document,
    make_identity,
    make_issuer,
    make_request,
    make_secret,
    make_token,
)

ALL, TEAM, NARROW, EXPIRED, REVOKED, STRANGER = (make_secret(number) for number in range(6))
IDENTITY = make_identity(make_claims())
SECRETS = (ALL, TEAM, NARROW, EXPIRED, REVOKED, STRANGER, IDENTITY)

RULES = compile_rules(
    make_document(
        make_token(ALL, "*", name="all"),
        make_token(TEAM, "team", "lab-*", name="team"),
        make_token(NARROW, "team", "secret", packages=["foo", "bar-*"], name="narrow"),
        make_token(EXPIRED, "*", expires=NOW, name="expired"),
        make_token(REVOKED, "*", revoked=NOW - 1, name="revoked"),
        issuers=[make_issuer("team")],
        tools=Visibility.PUBLIC,
        secret=Visibility.PRIVATE,
    ),
    public_globs=("pub-*",),
    index_files=IndexFiles(
        channel=frozenset({"channeldata.json", "index.html"}), subdir=frozenset({"repodata.json", "index.html"})
    ),
)

# What the oracle knows of the rules above, in other words.
CHANNELS = ("team", "lab-1", "secret", "tools", "pub-x", "ghost", "team.")
READERS: dict[str, Callable[[str], bool]] = {
    ALL: lambda _: True,
    TEAM: lambda channel: channel == "team" or channel.startswith("lab-"),
    NARROW: lambda channel: channel in {"team", "secret"},
    IDENTITY: lambda channel: channel == "team",
}
NARROW_FILES = {
    "foo-1.0-0.conda",
    "foo-1.0+cu1-0.conda",
    "foo-1.0-0.tar.bz2",
    "bar-x-1.0-0.conda",
    "foo-1.0-0.conda.sigs",
}
OTHER_ARTIFACTS = {"qux-1.0-0.conda", "qux-1!2.0-0.tar.bz2", "foobar-1.0-0.conda", "qux-1.0-0.conda.sigs", "foo.conda"}
INDEX_FILES = {"repodata.json", "repodata_shards.msgpack.zst", "index.html", "patch_instructions.json", "x~y", "a_b"}
FILES = sorted(NARROW_FILES | OTHER_ARTIFACTS | INDEX_FILES)
FOLDERS = ("noarch", "linux-64", "shards", "label", "t")
TRICKS = (
    "",
    ".",
    "..",
    "...",
    ".fairway",
    "access.json",
    "%2e",
    "%2e%2e",
    ".%2E",
    "%252e%252e",
    "..;",
    ";",
    "%00",
    "\x00",
    "\\",
    "..\\",
    "%5c",
    "%2f",
    "..%2f",
    "%c0%ae%c0%ae",
    "%c0%af",
    "%e0%80%af",
    "%ef%bc%8f",
    "\uff0f",
    "\uff0e\uff0e",
    "\uff54eam",
    "TEAM",
    "Team",
    "team%20",
    "team ",
    " team",
    "team%0d%0a",
    "team\n",
    "team;x=1",
    "team?x",
    "team#x",
    "*",
    "?",
    "~",
    "!",
    "+",
    "%2B",
    "%2b",
    "%",
    "%zz",
    "%2",
    "t",
    "%74",
    "index.html",
    "team.",
    "team..",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "<TOKEN>",
    "*****",
    "@",
    ":",
    "http:",
    "\ud800",
    "%ud800",
    "$",
    "&",
    "'",
    '"',
    "|",
    "^",
    "`",
    "{",
    "}",
    "[",
    "]",
    "=",
    ",",
    "\u0130",
    "\u017f",
)

_PLAIN = re.compile(r"(?:/[A-Za-z0-9._~!+-]+)+/?\Z")
_LEGAL_CHANNEL = re.compile(r"(?!(?:t|label|noarch)/)[a-z0-9_][a-z0-9_.-]{0,127}/")
_ARTIFACT = re.compile(
    r"(?P<name>.*)-[^-]*-[^-]*(?:\.conda|\.tar\.bz2)(?!.*(?:\.conda|\.tar\.bz2))", re.IGNORECASE | re.DOTALL
)
_CACHED_LONG = re.compile(r"(?!repodata_shards\.msgpack\.zst\Z).*(?:\.conda|\.tar\.bz2|\.msgpack\.zst)\Z", re.DOTALL)
_SUBDIR = re.compile(r"(?:noarch|[a-z0-9]+-[a-z0-9]+)\Z")


_INDEX_PATH = re.compile(
    r"[^/]*(?:/?|/channeldata\.json|/index\.html|/(?=[^/]{1,32}(?:/|\Z))(?:noarch|[a-z0-9]+-[a-z0-9]+)"
    r"(?:/?|/repodata\.json|/index\.html|/repodata_shards\.msgpack\.zst|/shards/[^/]*\.msgpack\.zst))\Z"
)


class DifferenceError(AssertionError):
    """The authorizer and the oracle do not agree."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """A request, and the secrets that a fair reader finds in it; None where the header is garbage."""

    request: dict[str, Any]
    presented: frozenset[str] | None


def make_case(chance: random.Random) -> Case:
    """Draw a request: sound ones, sound ones with something odd in them, and pure noise."""
    presented: set[str] = set()
    path = _make_path(chance)
    if chance.random() < 0.5:
        mark = chance.choice(["t", "t", "t", "t", "%74", "T"])
        token = chance.choice([*SECRETS[:-1], "*****", "", "%3CTOKEN%3E", "..", "%2e%2e"])
        path = f"/{mark}/{token}{path}"
        if mark != "T":
            presented.add(token)
    if chance.random() < 0.25:
        path = _mutate(chance, path)
        presented = set(_read_path_token(path))
    header, sent = _make_header(chance)
    certain = sent is not None
    request = make_request(
        path,
        method=chance.choice(["GET"] * 12 + ["HEAD", "POST", "get", ""]),
        query=chance.choice(["", "", "list-type=2&prefix=secret/", "versionId=x", "../secret"]),
        authorization=header,
    )
    return Case(request=request, presented=frozenset(presented | (sent or set())) if certain else None)


def _make_path(chance: random.Random) -> str:
    names = [chance.choice(CHANNELS)]
    names += [chance.choice(FOLDERS) for _ in range(chance.choice([0, 1, 1, 1, 1, 2]))]
    names += [chance.choice(FILES)] * chance.choice([0, 1, 1, 1])
    for _ in range(chance.choice([0, 0, 0, 1, 1, 2])):
        at = chance.randrange(len(names) + 1)
        names[at : at + chance.choice([0, 1])] = [chance.choice(TRICKS)]
    names = [_escape(chance, name) if chance.random() < 0.15 else name for name in names]
    return "/" + "/".join(names) + chance.choice(["", "", "", "/", "//"])


def _escape(chance: random.Random, name: str) -> str:
    if not name.isascii() or "%" in name:
        return name
    template = chance.choice(["%{:02x}", "%{:02X}", "%25{:02x}"])
    return "".join(template.format(ord(letter)) if chance.random() < 0.4 else letter for letter in name)


def _mutate(chance: random.Random, path: str) -> str:
    for _ in range(chance.choice([1, 1, 2, 5])):
        at = chance.randrange(len(path) + 1)
        piece = chance.choice(
            [
                "/",
                ".",
                "%",
                "%2e",
                "%2f",
                "\\",
                ";",
                chr(chance.randrange(0x250)),
                "%" + f"{chance.randrange(256):02x}",
                "/../",
                "//",
                "+",
            ]
        )
        path = path[:at] + piece + path[at + chance.choice([0, 1]) :]
    return chance.choice([path, path, path, "http://evil" + path, path.upper(), path[1:], path + "?" + path])


def _make_header(chance: random.Random) -> tuple[str | list[str] | None, set[str] | None]:
    secret, other = chance.choice(SECRETS), chance.choice([*SECRETS, "*****", ""])
    sound: list[tuple[str | None, set[str]]] = [
        (None, set()),
        (None, set()),
        (None, set()),
        (f"Bearer {secret}", {secret}),
        (f"bEaReR   {secret}  ", {secret}),
        (format_basic("user", secret), {secret}),
        (format_basic(secret, ""), {secret}),
        (format_basic(other, secret), {secret, other}),
        (format_basic("user", "*****"), set()),
        ("Bearer *****", set()),
        (f"Digest {secret}", set()),
        (secret, set()),
        (f"Basic {secret}", set()),
    ]
    if chance.random() < 0.9:
        return chance.choice(sound)
    value = chance.choice(sound)[0] or "Bearer "
    garbage: list[str | list[str]] = [
        _mutate(chance, value),
        value[: chance.randrange(len(value) + 1)],
        [value, f"Bearer {secret}"],
        "Basic " + base64.b64encode(bytes(chance.randrange(256) for _ in range(20))).decode(),
        "Basic " + base64.b64encode(f"{secret}:{other}".encode("utf-16")).decode(),
        f"Bearer {secret} {other}",
        f"Bearer {secret},",
    ]
    return chance.choice(garbage), None


def _read_path_token(path: str) -> list[str]:
    """Find the credential in a path as RFC 3986 splits it, before any decoding of the token."""
    parts = path.split("/")
    return parts[2:3] if path[:1] == "/" and _unquote(parts[1]) == b"t" else []


def read_url(uri: str) -> str | None:
    """Return the path that a URL asks for, decoded once, without its token; None where it isn't plain."""
    if len(uri) > 2048:
        return None
    parts = uri.split("/")
    if parts[0] == "" and len(parts) > 1 and _unquote(parts[1]) == b"t":
        parts = ["", *parts[3:]] if len(parts) > 3 else ["", ""]
    decoded = []
    for part in parts:
        if re.search(r"%(?![0-9A-Fa-f]{2})", part) or not part.isascii():
            return None
        raw = _unquote(part)
        if b"/" in raw:
            return None
        decoded.append(raw.decode("latin-1"))
    path = "/".join(decoded)
    if path in {"/", "/index.html"}:
        return "/"
    # Where the end is escaped, CloudFront and the authorizer might read it differently.
    is_escaped = (_CACHED_LONG.match(decoded[-1]) is None) != (_CACHED_LONG.match(parts[-1]) is None)
    if is_escaped or not _PLAIN.match(path) or posixpath.normpath(path) != path.rstrip("/"):
        return None
    return path


def _unquote(text: str) -> bytes:
    return unquote_to_bytes(text.encode("utf-8", "surrogatepass"))


def read_as_s3(uri: str) -> str:
    """Return the key that S3 reads."""
    return unquote_to_bytes(uri.removeprefix("/").replace("+", " ")).decode()


def may_read(key: str, presented: frozenset[str]) -> bool:
    """Say whether one of the secrets opens a key."""
    channel = key.split("/", 1)[0]
    if channel == "tools" or channel.startswith("pub-"):
        return True
    return any(
        READERS[secret](channel) and (secret != NARROW or _is_open_to_narrow(key))
        for secret in presented & READERS.keys()
    )


def _is_open_to_narrow(key: str) -> bool:
    filename = key.rsplit("/", 1)[-1]
    if ".conda" not in filename.lower() and ".tar.bz2" not in filename.lower():
        return _INDEX_PATH.match(key) is not None
    match = _ARTIFACT.match(filename)
    return match is not None and re.fullmatch("foo|bar-.*", match["name"]) is not None


def expect(case: Case, presented: frozenset[str]) -> str:
    """Return the status, or the key, that the specification wants."""
    path = read_url(case.request["uri"])
    if case.request["method"] not in {"GET", "HEAD"}:
        return "405"
    if path is None:
        return "400"
    if path == "/":
        return "404"
    if not may_read(path[1:], presented):
        return "403" if presented & READERS.keys() else "401"
    return _expect_of_reader(path)


def _expect_of_reader(path: str) -> str:
    if not _LEGAL_CHANNEL.match(path[1:].rstrip("/") + "/"):
        return "404"
    parts = path[1:].split("/")
    if len(parts) == 1 or (len(parts) == 2 and _SUBDIR.match(parts[1])):
        return "302"
    return path[1:] + ("index.html" if path.endswith("/") else "")


def check(case: Case, answer: dict[str, Any]) -> str:
    """Compare an answer with the oracle; return what was answered.

    Raises:
        DifferenceError: they do not agree.
    """
    text = json.dumps(answer)
    if any(secret in text for secret in SECRETS):
        raise DifferenceError(f"a secret is left in {answer}")
    status = answer.get("status")
    if status is None:
        _check_fetch(case, answer)
    if case.presented is None:
        return f"{status or '200'} (garbage)"
    answered = status or read_as_s3(answer["uri"])
    expected = expect(case, case.presented)
    if answered != expected:
        raise DifferenceError(f"{answered!r}, but the oracle says {expected!r}")
    return status or "200"


def _check_fetch(case: Case, answer: dict[str, Any]) -> None:
    key = read_as_s3(answer["uri"])
    if "/" + key != posixpath.normpath("/" + key) or "%" in key or " " in key or not key.isascii():
        raise DifferenceError(f"key {key!r} is ambiguous")
    if key.startswith(".") or not _LEGAL_CHANNEL.match(key):
        raise DifferenceError(f"key {key!r} is of no channel")
    path = read_url(case.request["uri"])
    if path is None or key != path[1:] + ("index.html" if path.endswith("/") else ""):
        raise DifferenceError(f"key {key!r} was not requested")
    if answer["querystring"] != "" or "authorization" in answer["headers"]:
        raise DifferenceError("a query string or a credential is sent to S3")
    credentials = case.presented if case.presented is not None else _list_secrets(case.request)
    if not may_read(path[1:], credentials):
        raise DifferenceError(f"no credential of the request may read {key!r}")


def _list_secrets(request: dict[str, Any]) -> frozenset[str]:
    """Return every secret that is anywhere in a request, in any reading: the most that can be meant."""
    headers = [entry["value"] for entry in request["headers"].get("authorization", ())]
    texts = [request["uri"], *headers]
    for header in headers:
        for word in header.split():
            padded = word.rstrip("=") + "=" * (-len(word.rstrip("=")) % 4)
            if re.fullmatch(r"[A-Za-z0-9+/]+=*", padded) and len(padded.rstrip("=")) % 4 != 1:
                texts.append(base64.b64decode(padded).decode("latin-1"))
    return frozenset(secret for secret in SECRETS if any(secret in text for text in texts))


def run(paths: int, seed: int) -> Counter[str]:
    """Fuzz; return how often what was answered.

    Raises:
        DifferenceError: with the request that shows it.
    """
    chance = random.Random(seed)  # noqa: S311 - to be repeatable
    counts: Counter[str] = Counter()
    for _ in range(paths):
        case = make_case(chance)
        try:
            counts[check(case, answer_request(case.request, RULES, now=NOW))] += 1
        except DifferenceError as difference:
            raise DifferenceError(f"{difference}: {case.request}") from difference
    return counts


def main() -> None:
    """Run from a shell."""
    parser = argparse.ArgumentParser(description="fuzz the authorizer against an oracle")
    parser.add_argument("--paths", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    start = time.perf_counter()
    counts = run(arguments.paths, arguments.seed)
    result = {
        "paths": arguments.paths,
        "seed": arguments.seed,
        "differences": 0,
        "seconds": round(time.perf_counter() - start, 1),
        "answers": dict(sorted(counts.items())),
    }
    sys.stdout.write(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
