"""``fairway yank`` and ``fairway unyank``: take artifacts out of the index, and bring them back.

They write ``patch_instructions.json``: the indexer applies it as it applies any other. What was
yanked, by whom and why stands in the same file, under ``fairway``.
"""

import json
import time
from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any, Final

import click

from lambdas.channel.errors import ConflictError, InvalidNameError, UsageError
from lambdas.channel.names import (
    PATCH_INSTRUCTIONS,
    Distribution,
    SubdirId,
    find_extension,
    parse_artifact_key,
    parse_filename,
)
from lambdas.indexer.upkeep.listing import list_artifacts
from lambdas.storage.protocol import ContentHeaders, IfAbsent, IfMatch, ObjectStorage
from scripts.fairway.session import Session, format_table, with_session
from scripts.fairway.status import POLL_SECONDS, State, fetch_status
from scripts.fairway.targets import resolve_target

Instructions = dict[str, Any]

MAX_ATTEMPTS: Final = 10
_EPILOG: Final = """\b
SPEC is a filename, or NAME[=VERSION[=BUILD]] with '*' and '?':
  hello-1.0-0.conda      one artifact
  hello                  all of hello
  hello=1.0              all builds of 1.0
  hello=1.*=py312*       globs
"""


@click.command(
    epilog=f"""{_EPILOG}
\b
Examples:
  fairway yank tools hello=1.0 --reason "crashes on start"
  fairway yank tools/linux-64 hello-1.0-h1_0.conda --reason "wrong libc" --wait
"""
)
@click.argument("target", metavar="CHANNEL[/SUBDIR]")
@click.argument("spec")
@click.option("--reason", required=True, help="Why: kept beside the instructions, for people.")
@click.option("--wait", is_flag=True, help="Wait until the index says so.")
@with_session
def yank(session: Session, target: str, spec: str, *, reason: str, wait: bool) -> int:
    """Take artifacts out of the index. They stay downloadable, for lock files."""
    note = {"reason": reason, "by": session.caller, "at": session.now}
    matches = parse_spec(spec)

    def change(path: SubdirId, instructions: Instructions) -> tuple[Instructions, list[str]]:
        filenames = sorted(name for name in _list_filenames(session.storage, path) if matches(name))
        return add_yanked(instructions, filenames, note), filenames

    return _change_all(session, target, spec, change, wait=wait, gone=True)


@click.command(
    epilog=f"""{_EPILOG}
\b
Examples:
  fairway unyank tools hello=1.0
"""
)
@click.argument("target", metavar="CHANNEL[/SUBDIR]")
@click.argument("spec")
@click.option("--wait", is_flag=True, help="Wait until the index says so.")
@with_session
def unyank(session: Session, target: str, spec: str, *, wait: bool) -> int:
    """Bring yanked artifacts back into the index."""
    matches = parse_spec(spec)

    def change(_: SubdirId, instructions: Instructions) -> tuple[Instructions, list[str]]:
        filenames = sorted(name for name in yanked(instructions) if matches(name))
        return remove_yanked(instructions, filenames), filenames

    return _change_all(session, target, spec, change, wait=wait, gone=False)


def parse_spec(spec: str) -> Callable[[str], bool]:
    """Return what tells whether a filename is meant."""
    if find_extension(spec) is not None:
        return lambda filename: fnmatchcase(filename, spec)
    name, _, rest = spec.partition("=")
    version, _, build = rest.partition("=")

    def matches(filename: str) -> bool:
        try:
            parsed: Distribution = parse_filename(filename)
        except InvalidNameError:
            return False
        return (
            fnmatchcase(parsed.name, name)
            and fnmatchcase(parsed.version, version or "*")
            and fnmatchcase(parsed.build, build or "*")
        )

    return matches


def yanked(instructions: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``{filename: {"reason", "by", "at"}}`` of what was yanked by this command."""
    notes: dict[str, Any] = instructions.get("fairway", {}).get("yanked", {})
    return notes


def add_yanked(instructions: Instructions, filenames: Iterable[str], note: Mapping[str, Any]) -> Instructions:
    """Return the instructions with some more artifacts removed; the input is untouched."""
    wanted = set(filenames)
    notes = {**{name: dict(note) for name in wanted if name not in yanked(instructions)}, **yanked(instructions)}
    return {
        "patch_instructions_version": 1,
        "packages": {},
        "packages.conda": {},
        "revoke": [],
        **instructions,
        "remove": sorted({*instructions.get("remove", []), *wanted}),
        "fairway": {**instructions.get("fairway", {}), "yanked": notes},
    }


def remove_yanked(instructions: Instructions, filenames: Iterable[str]) -> Instructions:
    """Return the instructions with some artifacts brought back; the input is untouched."""
    back = set(filenames)
    notes = {name: note for name, note in yanked(instructions).items() if name not in back}
    return {
        **instructions,
        "remove": sorted(set(instructions.get("remove", [])) - back),
        "fairway": {**instructions.get("fairway", {}), "yanked": notes},
    }


def _list_filenames(storage: "ObjectStorage", path: SubdirId) -> list[str]:

    filenames = (info.key.rpartition("/")[2] for info in list_artifacts(storage, path))
    return [filename for filename in filenames if find_extension(filename) is not None]


def _change_all(
    session: Session,
    target: str,
    spec: str,
    change: Callable[[SubdirId, Instructions], tuple[Instructions, list[str]]],
    *,
    wait: bool,
    gone: bool,
) -> int:
    changed: dict[SubdirId, list[str]] = {}
    for path in resolve_target(session.storage, target)[1]:
        if filenames := _replace(session.storage, path, change):
            changed[path] = filenames
    if not changed:
        raise UsageError(f"nothing in {target} matches {spec!r}")
    if wait:
        for path, filenames in changed.items():
            _wait(session, path, filenames, gone=gone)
    word = "yanked" if gone else "back"
    rows = [(path.key(filename), word) for path, filenames in changed.items() for filename in filenames]
    session.show([{"key": key, "state": state} for key, state in rows], format_table(("ARTIFACT", ""), rows))
    return 0


def _replace(
    storage: "ObjectStorage",
    path: SubdirId,
    change: Callable[[SubdirId, Instructions], tuple[Instructions, list[str]]],
) -> list[str]:
    """Change the instructions of a subdir; whoever loses the write reads them again."""
    key = path.key(PATCH_INSTRUCTIONS)
    headers = ContentHeaders(content_type="application/json", cache_control="public, max-age=30")
    for attempt in range(MAX_ATTEMPTS):
        stored = storage.get(key)
        instructions = {} if stored is None else json.loads(stored.body)
        new, filenames = change(path, instructions)
        if not filenames:
            return []
        condition = IfAbsent() if stored is None else IfMatch(etag=stored.info.etag)
        try:
            storage.put(key, json.dumps(new, indent=1, sort_keys=True).encode(), headers=headers, condition=condition)
        except ConflictError:
            if attempt == MAX_ATTEMPTS - 1:
                raise
            continue
        return filenames
    return []


def _wait(session: Session, path: SubdirId, filenames: list[str], *, gone: bool) -> None:

    wanted = State.YANKED if gone else State.INDEXED
    for filename in filenames:
        key = parse_artifact_key(path.key(filename))
        # What was uploaded before, and refused, says nothing of the artifact that is there.
        while fetch_status(session.storage, key, since_ms=session.now * 1000).state != wanted:
            time.sleep(POLL_SECONDS)
