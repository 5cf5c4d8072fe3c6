"""``fairway yank`` and ``fairway unyank``: remove artifacts from the index, and add them again.

Both edit ``patch_instructions.json``, which the indexer applies. The member ``fairway`` of that file
records what was yanked, by whom and why.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import click

from lambdas.channel import caching
from lambdas.channel.artifact_kinds import kind_of
from lambdas.channel.errors import InvalidDocumentError, UsageError
from lambdas.channel.layout import SubdirLayout, parse_artifact_key
from lambdas.channel.names import SubdirId
from lambdas.indexer.tree.subdir import Subdir
from lambdas.indexer.upkeep.listing import list_files
from lambdas.storage.protocol import ContentHeaders, IfAbsent, IfMatch, ObjectStorage
from lambdas.storage.retry import retry_conflicts
from scripts.fairway.session import Session, with_session
from scripts.fairway.specs import SPEC_HELP, parse_spec
from scripts.fairway.status import State, wait_for_state
from scripts.fairway.targets import resolve_target
from scripts.fairway.terminal import format_table
from scripts.fairway.waiting import with_wait

Instructions = dict[str, Any]


@click.command(
    epilog=f"""{SPEC_HELP}
\b
Examples:
  fairway yank tools hello=1.0 --reason "crashes on start"
  fairway yank tools/linux-64 hello-1.0-h1_0.conda --reason "wrong libc" --wait
"""
)
@click.argument("target", metavar="CHANNEL[/SUBDIR]")
@click.argument("spec")
@click.option("--reason", required=True, help="Reason, recorded in patch_instructions.json.")
@with_wait("the index shows the change")
@with_session
def yank(session: Session, target: str, spec: str, *, reason: str, wait: float | None) -> int:
    """Remove artifacts from the index; they stay downloadable.

    Lock files that name a yanked artifact keep working.
    """
    note = {"reason": reason, "by": session.caller, "at": session.now}
    matches = parse_spec(spec)

    def change(subdir: Subdir, instructions: Instructions) -> tuple[Instructions, list[str]]:
        filenames = sorted(name for name in _list_filenames(subdir) if matches(name))
        return add_yanked(instructions, filenames, note), filenames

    return _change_target(session, target, spec, change, wait=wait, is_yanked=True)


@click.command(
    epilog=f"""{SPEC_HELP}
\b
Examples:
  fairway unyank tools hello=1.0
"""
)
@click.argument("target", metavar="CHANNEL[/SUBDIR]")
@click.argument("spec")
@with_wait("the index shows the change")
@with_session
def unyank(session: Session, target: str, spec: str, *, wait: float | None) -> int:
    """Add yanked artifacts to the index again."""
    matches = parse_spec(spec)

    def change(_: Subdir, instructions: Instructions) -> tuple[Instructions, list[str]]:
        filenames = sorted(name for name in yanked_notes(instructions) if matches(name))
        return remove_yanked(instructions, filenames), filenames

    return _change_target(session, target, spec, change, wait=wait, is_yanked=False)


def fetch_instructions(storage: ObjectStorage, subdir: SubdirId) -> Instructions:
    """Return the patch instructions that a publisher or operator uploaded; empty if there are none.

    Raises:
        InvalidDocumentError: they are not a JSON object.
    """
    key = SubdirLayout(subdir=subdir).patch_instructions
    stored = storage.get(key)
    return {} if stored is None else _parse_instructions(key, stored.body)


def yanked_notes(instructions: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``{filename: {"reason", "by", "at"}}`` of the artifacts that this command yanked."""
    notes: dict[str, Any] = instructions.get("fairway", {}).get("yanked", {})
    return notes


def add_yanked(instructions: Instructions, filenames: Iterable[str], note: Mapping[str, Any]) -> Instructions:
    """Return the instructions with more artifacts yanked; the input is untouched."""
    wanted = set(filenames)
    notes = {name: dict(note) for name in wanted} | yanked_notes(instructions)
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
    """Return the instructions with fewer artifacts yanked; the input is untouched."""
    restored = set(filenames)
    notes = {name: note for name, note in yanked_notes(instructions).items() if name not in restored}
    return {
        **instructions,
        "remove": sorted(set(instructions.get("remove", [])) - restored),
        "fairway": {**instructions.get("fairway", {}), "yanked": notes},
    }


def _list_filenames(subdir: Subdir) -> list[str]:
    return [filename for filename, _ in list_files(subdir) if kind_of(filename) is not None]


def _change_target(
    session: Session,
    target: str,
    spec: str,
    change: Callable[[Subdir, Instructions], tuple[Instructions, list[str]]],
    *,
    wait: float | None,
    is_yanked: bool,
) -> int:
    changed: dict[Subdir, list[str]] = {}
    for subdir in resolve_target(session.storage, target)[1]:
        if filenames := _replace(subdir, change):
            changed[subdir] = filenames
    if not changed:
        raise UsageError(f"no artifact in {target} matches {spec!r}", hint="see 'fairway yank --help' for patterns")
    if wait is not None:
        keys = [parse_artifact_key(subdir.layout.file(name)) for subdir, names in changed.items() for name in names]
        wait_for_state(session, keys, State.YANKED if is_yanked else State.INDEXED, timeout_seconds=wait)
    state = "yanked" if is_yanked else "unyanked"
    rows = [(subdir.layout.file(filename), state) for subdir, filenames in changed.items() for filename in filenames]
    session.show([{"key": key, "state": state} for key, state in rows], format_table(("ARTIFACT", "STATE"), rows))
    return 0


def _replace(
    subdir: Subdir,
    change: Callable[[Subdir, Instructions], tuple[Instructions, list[str]]],
) -> list[str]:
    """Change the instructions of a subdir by compare-and-swap; return the filenames that changed.

    Raises:
        ConflictError: other writers were faster every time.
    """
    storage, key = subdir.storage, subdir.layout.patch_instructions
    headers = ContentHeaders(content_type="application/json", cache_control=caching.METADATA)

    def attempt() -> list[str]:
        stored = storage.get(key)
        instructions = {} if stored is None else _parse_instructions(key, stored.body)
        changed, filenames = change(subdir, instructions)
        if filenames:
            body = json.dumps(changed, indent=1, sort_keys=True).encode()
            condition = IfAbsent() if stored is None else IfMatch(etag=stored.info.etag)
            storage.put(key, body, headers=headers, condition=condition)
        return filenames

    return retry_conflicts(attempt)


def _parse_instructions(key: str, body: bytes) -> Instructions:
    try:
        instructions = json.loads(body)
    except ValueError as error:
        raise InvalidDocumentError(f"{key!r} is not JSON", hint="correct or delete it") from error
    if not isinstance(instructions, dict):
        raise InvalidDocumentError(f"{key!r} is not a JSON object", hint="correct or delete it")
    return instructions
