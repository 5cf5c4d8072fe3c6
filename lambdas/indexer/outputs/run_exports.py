"""run_exports.json: what each package exports to the packages built against it. Pure.

Source: CEP 12; every package is listed, with ``{}`` if it exports nothing.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from lambdas.channel.artifact_kinds import flat_sections, kind_of, name_of
from lambdas.channel.names import PackageName, SubdirName
from lambdas.indexer.spliced.segments import Entries, Summary
from lambdas.indexer.tree.encoding import encode_json
from lambdas.indexer.tree.shards import Shard, iter_records


class RunExportsForm:
    """The run exports of a subdir."""

    segment_bytes = 256 * 1024  # entries are short and alike: small segments cost next to nothing
    is_compressed = True

    @property
    def sections(self) -> tuple[str, ...]:
        """The sections, in the order in which they are written."""
        return flat_sections()

    def name_of(self, section: str, key: str) -> str:  # noqa: ARG002 - keys are filenames everywhere
        """Return the name in a filename."""
        return name_of(key)

    def time_of(self, value: Any) -> int:  # noqa: ANN401, ARG002 - entries have no time
        """Return 0."""
        return 0

    def format_separators(self, header: Mapping[str, Any], sections: Mapping[str, Summary]) -> Sequence[bytes]:  # noqa: ARG002 - not needed here
        """Return the text around the sections."""
        separators = [b'{"info":' + encode_json(header["info"]) + b","]
        for section in self.sections:
            separators[-1] += encode_json(section) + b":{"
            separators.append(b"},")
        separators[-1] = b"}}"
        return separators

    def section_of(self, document: Mapping[str, Any], section: str) -> Mapping[str, Any]:
        """Return the entries of a section."""
        entries: Mapping[str, Any] = document[section]
        return entries

    def header_of(self, skeleton: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields outside the sections."""
        return {"info": skeleton["info"]}

    def empty_header(self, subdir: SubdirName) -> dict[str, Any]:
        """Return the header of a subdir without packages."""
        return {"info": {"subdir": subdir, "version": 1}}

    def entries_of(self, shard: Shard) -> Entries:
        """Return the run exports in a shard; kinds without a section of their own have none here."""
        entries: dict[str, dict[str, Any]] = {section: {} for section in self.sections}
        for filename, record in iter_records(shard):
            kind = kind_of(filename)
            if kind is not None and kind.section is not None:
                entries[kind.section][filename] = {"run_exports": record["run_exports"]}
        return entries

    def apply_to_header(
        self,
        header: Mapping[str, Any],
        shards: Mapping[PackageName, Shard | None],  # noqa: ARG002 - names don't show in the header
    ) -> Mapping[str, Any]:
        """Return the header unchanged."""
        return header
