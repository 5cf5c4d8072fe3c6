"""Match specs: whether every client can parse one, and reads it the same way. Pure.

Clients parse the specs of all records of a name together: a single invalid one makes conda fail for
everybody who meets the name. Owns the grammar of specs in ``depends``, ``constrains``, run exports and
patches: what conda and rattler both accept and understand alike. Does not evaluate specs.

    spec     = name [version [separator build]] [brackets]
    version  = clause {("," | "|") clause}
    clause   = [operator] literal [glob] | "*"
    brackets = "[" key "=" value {"," key "=" value} "]"

Source: CEP 29 (match specs), CEP 26 (names); conda 26.7 (``conda/models/match_spec.py``, ``version.py``),
rattler 0.28 in its lenient mode, which it uses for records.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Final

from lambdas.channel.artifact_kinds import extensions
from lambdas.channel.errors import InvalidNameError, RejectedError
from lambdas.channel.names import parse_subdir
from lambdas.channel.rejection_codes import RejectionCode
from lambdas.indexer.artifacts.version_literal import is_version_literal

MAX_SPEC_CHARS: Final = 2048
MAX_GLOBS: Final = 5
"""Asterisks in a build pattern: conda matches it with a backtracking regular expression."""
MAX_DEPTH: Final = 8
"""Parentheses within each other."""
CONDITIONAL_SCHEMA: Final = 3
"""The ``schema_version`` from which on clients know ``extras`` and ``flags``."""

_MAX_NAME_CHARS = 128
_SHOWN_CHARS = 100
_LEGACY_FILENAMES = (*extensions(), ".whl")

# CEP 26 as conda checks it, for names of packages and of virtual packages.
_NAME = re.compile(
    r"(?:[a-z0-9]|[a-z0-9_](?!_)|__[a-z0-9])[._-]?(?:[a-z0-9]+(?:[._-]|\Z))*\Z", re.IGNORECASE | re.ASCII
)
_NAME_END = re.compile(r"[ =<>!~]|\Z")
_NO_SEPARATOR_AFTER = frozenset("=!|,<>~")
_NOT_IN_BUILD = frozenset("-=,|<>~")
_BLANK_IN_VERSION = re.compile(r"[^ =<>~,|] +[^ =<>!~,|]|[=<>!~] +[=<>!~]")
_CONNECTIVE = re.compile(r"[,|]")
_OPERATOR = re.compile(r"==|!=|<=|>=|~=|=|<|>")
_ANY_VERSION = re.compile(r"\*(?:\.\*)?\Z")
_ANY_OPERATORS = frozenset({"", "=", "==", ">="})
_TRAILING_GLOB = re.compile(r"(?:\.\*){1,3}\Z|\*\Z")
_EMPTY_PART = re.compile(r"\.[_-](?:\+|\Z)")  # rattler ends the version before it
_LARGE_EPOCH = re.compile(r"0*[0-9]{10,}!")  # rattler has 32 bits for it
_BUILD = re.compile(r"[A-Za-z0-9_.+*]+\Z")
_REGEX = re.compile(r"\^[A-Za-z0-9_.+*?|()\\-]*\$\Z")
_REGEX_ESCAPE = re.compile(r"\\[^.+*?|()d_-]|\\\Z|\(\?")
_REGEX_REPEAT = re.compile(r"(?<!\\)[+*]|(?<!\\)\)[?]")
_NESTED_REPEAT = re.compile(r"\)[+*?]|[+*?][+*?]")

_PAIR = re.compile(
    r"""[ ]*(?P<key>[a-z0-9_]+)=
        (?: "(?P<double>[^"'\[\]]*)" | '(?P<single>[^"'\[\]]*)' | (?P<list>\[[^"'\[\]]*\]) | (?P<bare>[^"'\[\], =]*) )
        (?:,|\Z)""",
    re.VERBOSE,
)
_BUILD_NUMBER = re.compile(r"(?:==|!=|<=|>=|<|>)?[0-9]{1,18}\Z")
_MD5 = re.compile(r"[0-9A-Fa-f]{32}\Z")
_SHA256 = re.compile(r"[0-9A-Fa-f]{64}\Z")
_WORDS = re.compile(r"[A-Za-z0-9_.+ -]+\Z")
_FILENAME = re.compile(r"[A-Za-z0-9_.+!-]+\Z")
_LIST = re.compile(r"\[? *[A-Za-z0-9_.:+-]+(?: *, *[A-Za-z0-9_.:+-]+)* *\]?\Z")
_VERSION_TOKEN = re.compile(r"[(),|]")
_CONDITION_TOKEN = re.compile(r"\(|\)| and | or ")


class _InvalidSpecError(Exception):
    """What is wrong with a spec, as the end of a sentence."""


def check_match_specs(specs: Iterable[str], name: str, *, schema_version: int = 1) -> None:
    """Check specs; ``name`` is their field's name in messages.

    Raises:
        RejectedError: ``spec-invalid``, for the first spec that some client cannot parse.
    """
    for spec in specs:
        problem = describe_problem(spec, schema_version=schema_version)
        if problem is not None:
            shown = repr(spec if len(spec) <= _SHOWN_CHARS else f"{spec[:_SHOWN_CHARS]}…")
            raise RejectedError(
                RejectionCode.SPEC_INVALID,
                f"{name} has the match spec {shown}: {problem}",
                hint="write it as 'NAME', 'NAME >=1.2,<2.0a0' or 'NAME 1.2.* BUILD'",
            )


def describe_problem(spec: str, *, schema_version: int = 1) -> str | None:
    """Return what is wrong with a spec, or None if every client can parse it."""
    try:
        _check_spec(spec, schema_version)
    except _InvalidSpecError as error:
        return str(error)
    return None


def _check_spec(spec: str, schema_version: int) -> None:
    text = _without_comment(spec)
    head, bracket, inner = text.partition("[")
    _check_head(head)
    end = _NAME_END.search(head)
    name = head[: end.start() if end else None]
    if not name:
        raise _InvalidSpecError("it has no package name")
    if len(name) > _MAX_NAME_CHARS or not _NAME.match(name):
        raise _InvalidSpecError("its package name is invalid")
    _check_version_and_build(head[len(name) :])
    if bracket:
        _check_brackets(inner, schema_version)


def _without_comment(spec: str) -> str:
    if len(spec) > MAX_SPEC_CHARS:
        raise _InvalidSpecError(f"it has more than {MAX_SPEC_CHARS} characters")
    if not spec.isascii() or not spec.isprintable():
        raise _InvalidSpecError("it has characters other than printable ASCII")
    if spec.endswith("@"):
        raise _InvalidSpecError("it names a feature")
    text = spec.partition("#")[0].rstrip(" ")  # clients ignore comments
    if text.endswith(_LEGACY_FILENAMES):
        raise _InvalidSpecError("it is a filename or URL")
    return text


def _check_head(head: str) -> None:
    """Reject what clients take for something else than a name, a version and a build."""
    if "/" in head:
        raise _InvalidSpecError("it is a URL or path")
    if " if " in f"{head} ":
        raise _InvalidSpecError("it has a condition without brackets, which clients read differently")
    if ":" in head:
        raise _InvalidSpecError("it names a channel")


def _check_version_and_build(text: str) -> None:
    text = text.strip(" ")
    if not text:
        return
    version, build = _split_build(text)
    if _BLANK_IN_VERSION.search(version):
        raise _InvalidSpecError("its version has a space that clients read differently")
    _check_version(version.replace(" ", ""))
    if build is not None:
        _check_build(build)


def _split_build(text: str) -> tuple[str, str | None]:
    """Divide the text after the name at the first separator that can precede a build, as conda does."""
    last = max((text.rfind(sign) for sign in _NOT_IN_BUILD), default=-1)
    for at in range(max(last, 1), len(text) - 1):
        if text[at] in " =" and text[at - 1] not in _NO_SEPARATOR_AFTER:
            if text[at] == "=" and text[at - 1] == " ":
                raise _InvalidSpecError("its build has an operator that clients read differently")
            return text[:at], text[at + 1 :].strip(" ")
    return text, None


def _check_version(version: str) -> None:
    """Check a version expression without spaces and parentheses."""
    if "(" in version or ")" in version:
        raise _InvalidSpecError("its version has parentheses outside brackets, which clients read differently")
    for clause in _CONNECTIVE.split(version):
        _check_clause(clause)


def _check_clause(clause: str) -> None:
    if not clause:
        raise _InvalidSpecError("its version has an empty part, as in '>=1,'")
    if not clause.strip("=<>!~"):
        raise _InvalidSpecError(f"it has nothing after {clause[:_SHOWN_CHARS]!r}")
    found = _OPERATOR.match(clause)
    operator = found[0] if found else ""
    literal = clause[len(operator) :]
    if _ANY_VERSION.match(literal) and operator in _ANY_OPERATORS:
        return
    glob = _TRAILING_GLOB.search(literal)
    plain = literal[: glob.start()] if glob else literal
    if plain.startswith("^") or plain.endswith("$"):
        raise _InvalidSpecError("its version is a regular expression, which not every client can parse")
    if "*" in plain or not plain:
        raise _InvalidSpecError(f"{clause[:_SHOWN_CHARS]!r} has an asterisk in a wrong place")
    # conda reads dashes as underscores, but does not accept both.
    is_ambiguous = ("-" in plain and "_" in plain) or _EMPTY_PART.search(plain)
    if is_ambiguous or not is_version_literal(plain.replace("-", "_")) or _LARGE_EPOCH.match(plain):
        raise _InvalidSpecError(f"{clause[:_SHOWN_CHARS]!r} is not a version that clients can compare")
    if glob and plain.endswith(("_", "-")) and (len(glob[0]) > len(".*") or plain.endswith(("__", "._", "--", ".-"))):
        raise _InvalidSpecError(f"{clause[:_SHOWN_CHARS]!r} has an asterisk after a trailing underscore")
    if operator == "~=" and (glob or not is_version_literal(plain.rpartition(".")[0])):
        raise _InvalidSpecError(
            f"{clause[:_SHOWN_CHARS]!r} needs a version of two parts after '~=', without an asterisk"
        )


def _check_build(build: str) -> None:
    if build.startswith("^") or build.endswith("$"):
        _check_regex(build)
    elif not _BUILD.match(build):
        raise _InvalidSpecError(f"its build {build[:_SHOWN_CHARS]!r} has invalid characters")
    elif "**" in build and build != "**":
        raise _InvalidSpecError(f"its build {build[:_SHOWN_CHARS]!r} has two asterisks in a row")
    elif build.count("*") > MAX_GLOBS:
        raise _InvalidSpecError(f"its build has more than {MAX_GLOBS} asterisks")


def _check_regex(pattern: str) -> None:
    """Check a pattern ``^…$``: it compiles everywhere, and no text makes matching slow."""
    if not _REGEX.match(pattern) or _REGEX_ESCAPE.search(pattern):
        raise _InvalidSpecError(f"its build is not a pattern that every client can parse: {pattern[:_SHOWN_CHARS]!r}")
    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise _InvalidSpecError(f"its build is not a valid pattern: {error}") from error
    if _NESTED_REPEAT.search(pattern) or len(_REGEX_REPEAT.findall(pattern)) > MAX_GLOBS:
        raise _InvalidSpecError("its build is a pattern that takes too long to match")


def _check_brackets(text: str, schema_version: int) -> None:
    """Check what follows the opening bracket."""
    if not text.endswith("]"):
        raise _InvalidSpecError("its brackets are not closed at its end")
    inner = text[:-1]
    seen: set[str] = set()
    at = 0
    while at < len(inner) or not seen:
        pair = _PAIR.match(inner, at)
        if not pair:
            raise _InvalidSpecError("its brackets do not hold 'key=value' pairs, separated by commas")
        key = pair["key"]
        value = next(group for group in pair.group("double", "single", "list", "bare") if group is not None)
        if key in seen:
            raise _InvalidSpecError(f"its brackets have {key!r} twice")
        seen.add(key)
        at = pair.end()
        if pair["list"] is not None and key not in {"extras", "flags"}:
            raise _InvalidSpecError(f"{key!r} in its brackets is not a list")
        _check_pair(key, value, schema_version)
    if inner.endswith(","):
        raise _InvalidSpecError("its brackets end in a comma")


def _check_pair(key: str, value: str, schema_version: int) -> None:
    if key in {"url", "channel"}:
        raise _InvalidSpecError("it names a channel" if key == "channel" else "it has a URL")
    if not value:
        raise _InvalidSpecError(f"it has nothing after '{key}='")
    if key == "version":
        _check_expression(value.replace(" ", ""), _VERSION_TOKEN, _check_clause)
    elif key == "build":
        _check_build(value)
    elif key == "when":
        _check_expression(value, _CONDITION_TOKEN, _check_condition)
    elif key in {"extras", "flags"} and schema_version < CONDITIONAL_SCHEMA:
        raise _InvalidSpecError(f"{key!r} needs schema_version {CONDITIONAL_SCHEMA}")
    elif key not in _VALUES:
        raise _InvalidSpecError(f"clients do not know {key!r} in brackets")
    elif not _VALUES[key](value):
        raise _InvalidSpecError(f"{key!r} in its brackets has an invalid value")


def _check_expression(text: str, connective: re.Pattern[str], check: Callable[[str], None]) -> None:
    """Check operands with connectives between them, and parentheses around them."""
    depth = at = 0
    expects_operand = True
    for token in [*connective.finditer(text), None]:
        operand = text[at : token.start() if token else len(text)].strip(" ")
        if operand:
            if not expects_operand:
                raise _InvalidSpecError("its brackets hold a malformed expression")
            check(operand)
            expects_operand = False
        if token is None:
            break
        at = token.end()
        opens, closes = token[0] == "(", token[0] == ")"
        depth += opens - closes
        if expects_operand != opens or not 0 <= depth <= MAX_DEPTH:
            raise _InvalidSpecError("its brackets hold a malformed expression")
        expects_operand = not closes
    if expects_operand or depth:
        raise _InvalidSpecError("its brackets hold a malformed expression")


def _check_condition(spec: str) -> None:
    """Check one spec of a condition, which has no brackets."""
    if not {"and", "or"}.isdisjoint(spec.split(" ")):
        raise _InvalidSpecError("its condition is malformed")
    _check_spec(spec, 1)


def _is_subdir(text: str) -> bool:
    try:
        parse_subdir(text)
    except InvalidNameError:
        return False
    return True


_VALUES: Final[dict[str, Callable[[str], object]]] = {
    "build_number": _BUILD_NUMBER.match,
    "extras": _LIST.match,
    "flags": _LIST.match,
    "fn": _FILENAME.match,
    "license": _WORDS.match,
    "license_family": _WORDS.match,
    "md5": _MD5.match,
    "sha256": _SHA256.match,
    "subdir": _is_subdir,
    "track_features": _WORDS.match,
}
