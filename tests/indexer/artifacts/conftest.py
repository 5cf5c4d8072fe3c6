"""Compares every small archive that a test here reads with what clients extract of it.

What Fairway reads of an archive must be what conda-package-streaming, conda-package-handling and py-rattler
extract, or the archive is rejected. A tool that rejects the archive installs nothing, which is fine. Several bzip2
streams are compared with the first two alone: rattler reads the first stream.
"""

from __future__ import annotations

import bz2
import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lambdas.channel.artifact_kinds import Distribution
from lambdas.indexer.artifacts import read
from lambdas.indexer.artifacts.archives.artifact_source import RECIPES, ArtifactLimits, ArtifactSource, Contents
from lambdas.indexer.artifacts.budgets import Reading
from tests.builders import MemorySource

SERVER = Path(__file__).with_name("serve_extraction.py")
MAX_BYTES = 64 * 1024
DOCUMENTS = ("info/index.json", "info/about.json", "info/run_exports.json", "info/paths.json", *RECIPES)

Extracted = dict[str, dict[str, str] | None]


class Clients:
    """The clients' extraction, in another process."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process = subprocess.Popen(
            [sys.executable, str(SERVER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._seen: set[tuple[str, str]] = set()
        self.compared = 0

    def extract(self, filename: str, content: bytes) -> Extracted:
        """Return ``{tool: {path in info/: content} or None}``."""
        file = self._folder / filename
        file.write_bytes(content)
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(str(file)) + "\n")
        self._process.stdin.flush()
        extracted: Extracted = json.loads(self._process.stdout.readline())
        file.unlink()
        return extracted

    def compare(self, filename: str, content: bytes, contents: Contents) -> None:
        """Compare what was read with what is extracted."""
        identity = (filename, hashlib.sha256(content).hexdigest())
        if identity in self._seen:
            return
        self._seen.add(identity)
        read_documents = {name: body.decode("latin-1") for name, body in contents.members.items()}
        for tool, files in self.extract(filename, content).items():
            if files is None or (tool == "rattler" and _has_several_streams(filename, content)):
                continue
            for name in DOCUMENTS:
                if name in read_documents:
                    assert files.get(name) == read_documents[name], (tool, name)
                else:  # not there, or larger than what is read
                    assert len(files.get(name, "x" * 101)) > 100, (tool, name)
            self.compared += 1

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait(timeout=60)
        assert self._process.stdout
        self._process.stdout.close()


def _has_several_streams(filename: str, content: bytes) -> bool:
    decompressor = bz2.BZ2Decompressor()
    if filename.endswith(".conda"):
        return False
    decompressor.decompress(content)
    return bool(decompressor.unused_data)


@pytest.fixture(scope="session")
def clients(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clients]:
    """The clients, started once."""
    several = Clients(tmp_path_factory.mktemp("clients"))
    yield several
    several.close()


@pytest.fixture(autouse=True)
def compare_with_clients(monkeypatch: pytest.MonkeyPatch, clients: Clients) -> None:
    """Compare whatever is read in a test."""
    fetch = read._fetch_contents  # between the archive and its documents

    def fetch_and_compare(
        source: ArtifactSource, distribution: Distribution, limits: ArtifactLimits, reading: Reading
    ) -> Contents:
        contents = fetch(source, distribution, limits, reading)
        if isinstance(source, MemorySource) and source.size <= MAX_BYTES:
            clients.compare(distribution.filename, source.content, contents)
        return contents

    monkeypatch.setattr(read, "_fetch_contents", fetch_and_compare)
