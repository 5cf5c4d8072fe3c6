"""``fairway list`` and ``fairway show``: what the index of a channel has."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import Any

import click

from lambdas.channel.artifact_kinds import kind_of
from lambdas.channel.errors import UsageError
from lambdas.channel.layout import ArtifactKey, parse_artifact_key
from lambdas.indexer.tree.shards import iter_records
from lambdas.indexer.tree.subdir import Subdir
from scripts.fairway.progress import format_bytes
from scripts.fairway.session import Session, with_session, with_session_and_url
from scripts.fairway.specs import SPEC_HELP, parse_name_glob, parse_spec
from scripts.fairway.status import State, fetch_status, format_statuses, strip_bucket
from scripts.fairway.targets import resolve_target
from scripts.fairway.terminal import format_table
from scripts.fairway.yank import fetch_instructions, yanked_notes


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One artifact of an index."""

    key: ArtifactKey
    record: Mapping[str, Any]


@click.command(
    name="list",
    epilog=f"""{SPEC_HELP}
\b
Examples:
  fairway list tools
  fairway list tools/linux-64 'hello=1.*'
  fairway list tools --json | jq -r '.[].record.sha256'

Yanked artifacts are not in the index; 'fairway show' finds them.
""",
)
@click.argument("target", metavar="CHANNEL[/SUBDIR]")
@click.argument("spec", default="*")
@with_session
def list_artifacts(session: Session, target: str, spec: str) -> None:
    """List the artifacts in the index of a channel."""
    _, subdirs = resolve_target(session.storage, target)
    found = list(find_entries(subdirs, spec))
    if not found and spec != "*":
        raise no_match(target, spec)
    rows = [
        (str(one.key), format_bytes(one.record["size"]), _format_ms(one.record.get("indexed_timestamp")))
        for one in found
    ]
    table = format_table(("ARTIFACT", "SIZE", "INDEXED (UTC)"), rows)
    session.show([{"key": str(one.key), "record": one.record} for one in found], table if rows else "no artifacts")


@click.command(
    epilog=f"""{SPEC_HELP}
\b
Examples:
  fairway show tools/noarch/hello-1.0-0.conda
  fairway show tools hello=1.0
  fairway show --json tools hello | jq '.[].yanked'
"""
)
@click.argument("target", metavar="CHANNEL[/SUBDIR[/FILENAME]]")
@click.argument("spec", required=False)
@with_session_and_url
def show(session: Session, target: str, spec: str | None) -> None:
    """Show artifacts: state, record, URL, and who yanked them and why."""
    keys = _find_keys(session, target, spec)
    documents, lines = [], []
    for key in keys:
        status = fetch_status(session.storage, key, since_ms=session.now * 1000)
        if status.state == State.UNKNOWN and spec is None:
            raise UsageError(f"there is no artifact {str(key)!r}", hint=f"see 'fairway list {key.subdir}'")
        yanked = yanked_notes(fetch_instructions(session.storage, key.subdir)).get(key.filename)
        url = f"{session.require_url()}/{key}" if session.url else None
        documents.append(status.to_json() | {"url": url, "yanked": yanked})
        lines += format_statuses([status])
        lines += [f"url: {url}"] if url else []
        lines += [f"yanked by {yanked['by']}: {yanked['reason']}"] if yanked else []
        lines += json.dumps(status.record, indent=2, sort_keys=True).splitlines() if status.record else []
        lines.append("")
    session.show(documents[0] if spec is None else documents, lines[:-1])


def find_entries(subdirs: list[Subdir], spec: str) -> Iterator[Entry]:
    """Yield the artifacts in the index that match the SPEC, by subdir and filename."""
    matches, names = parse_spec(spec), parse_name_glob(spec)
    for subdir in subdirs:
        index = subdir.fetch_commit().index
        wanted = [name for name in index.shards if fnmatchcase(name, names)]
        shards = subdir.fetch_shards(index, wanted)
        records = {filename: record for shard in shards.values() for filename, record in iter_records(shard)}
        for filename in sorted(records):
            if matches(filename):
                yield Entry(key=parse_artifact_key(subdir.layout.file(filename)), record=records[filename])


def no_match(target: str, spec: str) -> UsageError:
    """Return the error for a SPEC that matches nothing."""
    return UsageError(f"no artifact in {target} matches {spec!r}", hint=f"see 'fairway list {target}'")


def _find_keys(session: Session, target: str, spec: str | None) -> list[ArtifactKey]:
    """Return the key that the target is, or the artifacts that match the SPEC, yanked ones too."""
    target = strip_bucket(session, target)
    if spec is None:
        if kind_of(target) is None:
            raise UsageError(
                f"no artifact given in {target!r}", hint="add its filename, or a SPEC: CHANNEL NAME=VERSION"
            )
        return [parse_artifact_key(target)]
    _, subdirs = resolve_target(session.storage, target)
    keys = [parse_artifact_key(subdir.layout.file(name)) for subdir in subdirs for name in _find_names(subdir, spec)]
    if not keys:
        raise no_match(target, spec)
    return keys


def _find_names(subdir: Subdir, spec: str) -> list[str]:
    matches, names = parse_spec(spec), parse_name_glob(spec)
    index = subdir.fetch_commit().index
    cards = subdir.fetch_cards(index, [name for name in index.shards if fnmatchcase(name, names)])
    return sorted(filename for of_name in cards.values() for filename in of_name or {} if matches(filename))


def _format_ms(timestamp: int | None) -> str:
    if timestamp is None:
        return ""
    return datetime.fromtimestamp(timestamp / 1000, tz=UTC).strftime("%Y-%m-%d %H:%M:%S")
