"""The shard tree uses the rules for records without loading the code that reads archives."""

import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[3]
PURE = ("lambdas.indexer.tree.patches", "lambdas.indexer.tree.shards", "lambdas.indexer.tree.subdir")
FORBIDDEN = ("bz2", "tarfile", "zipfile", "lambdas.indexer.artifacts.archives", "lambdas.indexer.artifacts.read")


def loaded_after(*modules: str) -> set[str]:
    program = f"import sys, {', '.join(modules)}; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True, timeout=60
    )
    return set(done.stdout.split())


def test_tree__loads_no_archive_code() -> None:
    loaded = loaded_after(*PURE)

    assert set(PURE) <= loaded
    assert loaded.isdisjoint(FORBIDDEN)


def test_read__loads_archive_code() -> None:
    """The names above are the ones that an import would load."""
    assert set(FORBIDDEN) - {"zipfile"} <= loaded_after("lambdas.indexer.artifacts.read")
