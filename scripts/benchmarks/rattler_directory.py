"""Runs rattler's ``index_fs`` on the directory that the command line names, in a separate process.

It ends with ``os._exit``, because py-rattler may abort while the interpreter exits.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from rattler.index import index_fs

if __name__ == "__main__":
    asyncio.run(index_fs(Path(sys.argv[1])))
    os._exit(0)
