"""Reads a channel with py-rattler, flat and sharded: ``read_with_rattler.py URL SUBDIR CACHE`` and names as JSON on
standard input. Prints ``{"flat": {filename: sha256}, "sharded": …}``. It ends with ``os._exit``, because
py-rattler may abort while the interpreter exits.
"""

import asyncio
import json
import os
import sys
from pathlib import Path

from rattler import Channel, Gateway, SourceConfig
from rattler.platform import Subdir


async def read(url: str, subdir: str, names: list[str], cache: Path) -> dict[str, dict[str, str]]:
    found = {}
    for kind, sharded in (("flat", False), ("sharded", True)):
        config = SourceConfig(sharded_enabled=sharded, bz2_enabled=False)
        gateway = Gateway(cache_dir=cache / kind, default_config=config)
        answers = await gateway.query([Channel(url)], [Subdir(subdir)], names, recursive=False)
        found[kind] = {record.file_name: (record.sha256 or b"").hex() for answer in answers for record in answer}
    return found


if __name__ == "__main__":
    json.dump(asyncio.run(read(sys.argv[1], sys.argv[2], json.load(sys.stdin), Path(sys.argv[3]))), sys.stdout)
    sys.stdout.flush()
    os._exit(0)
