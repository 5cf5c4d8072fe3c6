"""Records of a synthetic channel of realistic shape, the same in every run.

Names, versions, builds, dependencies and hashes are chosen so that they compress as real ones do:
most packages depend on a tenth of the names, builds of a name differ little, hashes differ entirely.
"""

import functools
import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from lambdas.channel.names import PackageName
from lambdas.indexer.tree.cards import Card, Cards

MAX_NAMES: Final = 30_000  # as in the largest subdir of conda-forge
START_MS: Final = 1_600_000_000_000

_RECORDS_PER_NAME: Final = 10
_PYTHONS: Final = ("3.9", "3.10", "3.11", "3.12", "3.13")
_PURE_SHARE: Final = 0.3
_LICENSES: Final = ("MIT", "BSD-3-Clause", "Apache-2.0", "GPL-3.0-or-later", "LGPL-2.1-only", "MPL-2.0")
_SYLLABLES: Final = [
    "py",
    "lib",
    "core",
    "data",
    "json",
    "http",
    "net",
    "fast",
    "micro",
    "meta",
    "geo",
    "stat",
    "plot",
    "num",
    "graph",
    "node",
    "web",
    "async",
    "cloud",
    "file",
    "stream",
    "text",
    "image",
    "audio",
    "math",
    "sci",
    "ml",
    "deep",
    "tensor",
    "auto",
    "test",
    "mock",
    "tool",
    "kit",
    "util",
    "parse",
    "render",
    "cache",
]


@dataclass(frozen=True, kw_only=True)
class Channel:
    """A synthetic subdir with this number of records."""

    records: int

    @property
    def names(self) -> int:
        """The number of package names."""
        return max(1, min(MAX_NAMES, self.records // _RECORDS_PER_NAME))

    def list_names(self) -> list[PackageName]:
        """Return every name, sorted."""
        return sorted(make_name(number) for number in range(self.names))

    @functools.cached_property
    def _numbers(self) -> dict[PackageName, int]:
        return {make_name(number): number for number in range(self.names)}

    def make_cards(self, name: PackageName) -> Cards:
        """Return the cards of one name."""
        number = self._numbers[name]
        share, more = divmod(self.records, self.names)
        return dict(iter_cards(name, share + (number < more)))


@functools.lru_cache(maxsize=MAX_NAMES)
def make_name(number: int) -> PackageName:
    """Return the package name of a number; names are unique."""
    chance = random.Random(f"name {number}")  # noqa: S311 - synthetic data, not a secret
    words = chance.sample(_SYLLABLES, chance.choice([1, 2, 2, 3]))
    return PackageName(f"{'-'.join(words)}{number:x}")


def iter_cards(name: PackageName, count: int) -> Iterator[tuple[str, Card]]:
    """Yield the cards of a name, oldest artifact first."""
    chance = random.Random(f"cards {name}")  # noqa: S311 - synthetic data, not a secret
    needs = [make_name(int(chance.paretovariate(0.6)) % 3000) for _ in range(chance.randrange(9))]
    license_name = chance.choice(_LICENSES)
    is_pure = chance.random() < _PURE_SHARE
    time_ms = START_MS + chance.randrange(10**11)
    for at in range(count):
        time_ms += chance.randrange(10**9)
        version = f"{1 + at // 40}.{at // 8 % 12}.{at // 5 % 4}"
        python = _PYTHONS[at % len(_PYTHONS)]
        short = python.replace(".", "")
        digest = chance.randbytes(32).hex()
        build = f"pyh{digest[:7]}_{at % 3}" if is_pure else f"py{short}h{digest[:7]}_{at}"
        minor = int(python.partition(".")[2])
        record: dict[str, Any] = {
            "build": build,
            "build_number": at,
            "depends": [
                *(["__glibc >=2.17,<3.0.a0", "libgcc >=13"] if not is_pure else []),
                f"python >={python},<3.{minor + 1}.0a0",
                *([f"python_abi 3.{minor}.* *_cp{short}"] if not is_pure else []),
                *(f"{need} >={chance.randrange(9)}.{at % 20},<{1 + at // 40}.0a0" for need in needs),
            ],
            "indexed_timestamp": time_ms + 60_000,
            "license": license_name,
            "license_family": license_name.partition("-")[0],
            "md5": hashlib.md5(digest.encode(), usedforsecurity=False).hexdigest(),
            "name": name,
            "sha256": digest,
            "size": chance.randrange(5_000, 5_000_000),
            "subdir": "linux-64",
            "timestamp": time_ms,
            "version": version,
        }
        run_exports = {"weak": [f"{name} >={version},<{1 + at // 40}.0a0"]} if len(needs) % 4 == 0 else {}
        facts = {"summary": f"The {name} package does what its name says", "home": f"https://{name}.example.org"}
        yield (
            f"{name}-{version}-{build}.conda",
            Card(record=record, run_exports=run_exports, facts=facts, etag=digest[:32]),
        )
