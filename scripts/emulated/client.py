"""A real client: py-rattler solves, downloads and links, with fresh caches.

``python -m scripts.emulated.client --channel URL --folder DIR SPEC…`` installs into ``DIR/prefix`` and
prints what it installed as JSON. It is a separate program because py-rattler may abort while the
interpreter exits: the program ends with ``os._exit``.

py-rattler finds the credentials: in the URL (``/t/TOKEN/`` or ``user:TOKEN@``), in the file that
RATTLER_AUTH_FILE names, or in a netrc file.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from pathlib import Path

from rattler import Channel, Gateway, SourceConfig, install, solve
from rattler.networking import AuthenticationMiddleware, Client
from rattler.platform import Subdir

_INDEXES = {".msgpack": "sharded", ".json": "flat"}  # {suffix of files in py-rattler's cache: kind of index}


async def install_packages(channel: str, specs: list[str], folder: Path, *, sharded: bool) -> dict[str, object]:
    """Solve, download and link; return what was installed, and from which kind of index."""
    started = time.monotonic()
    client = Client([AuthenticationMiddleware()])
    cache = folder / "repodata"
    config = SourceConfig(sharded_enabled=sharded, bz2_enabled=False)
    gateway = Gateway(cache_dir=cache, default_config=config, client=client)
    records = await solve([Channel(channel)], specs, gateway=gateway, platforms=[Subdir.current(), Subdir("noarch")])
    solved = time.monotonic()
    prefix = folder / "prefix"
    await install(records, target_prefix=prefix, cache_dir=folder / "packages", client=client, show_progress=False)
    return {
        "records": sorted(record.file_name for record in records),
        "indexes": sorted({_INDEXES[path.suffix] for path in cache.rglob("*") if path.suffix in _INDEXES}),
        "solve_seconds": solved - started,
        "install_seconds": time.monotonic() - solved,
        "prefix": str(prefix),
    }


def main() -> int:
    """Install the packages that the command line names."""
    parser = argparse.ArgumentParser(prog="python -m scripts.emulated.client", description=__doc__)
    parser.add_argument("--channel", required=True, help="the channel's URL")
    parser.add_argument("--folder", required=True, type=Path, help="an empty folder for caches and the environment")
    parser.add_argument("--flat", action="store_true", help="do not use the sharded index")
    parser.add_argument("specs", nargs="+", metavar="SPEC")
    arguments = parser.parse_args()
    try:
        installed = asyncio.run(
            install_packages(arguments.channel, arguments.specs, arguments.folder, sharded=not arguments.flat)
        )
    except Exception as error:  # noqa: BLE001 - the client's error is the result
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        return 1
    print(json.dumps(installed), flush=True)
    return 0


if __name__ == "__main__":
    os._exit(main())
