"""Has py-rattler parse documents like info/index.json: a JSON list of them on standard input, and a list of whether
it could on standard output. Leaves without the interpreter's exit, where py-rattler sometimes aborts.
"""

import json
import os
import sys

from rattler import IndexJson


def is_parsed(document: str) -> bool:
    try:
        IndexJson.from_str(document)
    except Exception:  # noqa: BLE001 - whatever it is, the record can't be read
        return False
    return True


if __name__ == "__main__":
    json.dump([is_parsed(json.dumps(document)) for document in json.load(sys.stdin)], sys.stdout)
    sys.stdout.flush()
    os._exit(0)
