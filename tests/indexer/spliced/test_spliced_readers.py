"""Real clients read spliced files whole, after a thousand publishes and removals."""

import functools
import http.server
import json
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from lambdas.indexer.model import Limits
from lambdas.indexer.outputs.registry import REPODATA
from lambdas.indexer.spliced import files
from lambdas.indexer.spliced.sizes import Sizes
from tests.indexer.world import NOARCH, World, package

CHANGES = 1000
LIMITS = Limits(sizes=Sizes(large=10_000, whole=2_000, min_part=3_000, max_part=20_000, segment_scale=16_000 / 1024**2))
READER = Path(__file__).with_name("read_with_rattler.py")


class Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 512  # rattler asks for every shard at once


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    folder = tmp_path / "served"
    folder.mkdir()
    server = Server(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def publish_at_random(world: World) -> dict[str, str]:
    """Publish and remove; return the remaining keys, and their names."""
    chance = random.Random("a thousand changes")  # noqa: S311 - no secret hangs on it
    there: dict[str, str] = {}
    for _ in range(CHANGES):
        if there and chance.random() < 0.4:
            key = chance.choice(sorted(there))
            del there[key]
            world.storage.remove(key)
        else:
            name = f"pkg{chance.randrange(120):03}{chance.choice(['', '-dev', '.x', '_y'])}"
            needs = [f"pkg{chance.randrange(120):03} >={number}" for number in range(chance.randrange(5))]
            version = f"{chance.randrange(10)}.{chance.randrange(10)}"
            key = f"{NOARCH}/{name}-{version}-0.conda"
            if key in there:
                continue
            world.upload(NOARCH, package(name, version, depends=needs, run_exports={"weak": [name]}))
            there[key] = name
        world.index(key)
    return there


def test_update__rattler_reads_all_of_it(served: tuple[Path, str], tmp_path: Path) -> None:
    world = World(limits=LIMITS)
    there = publish_at_random(world)
    info = world.storage.head(f"{NOARCH}/{REPODATA.name}")
    assert info is not None
    assert files.TABLES in info.metadata  # it is segmented, not whole
    folder, url = served
    for key, body in world.storage.snapshot().items():
        (folder / key).parent.mkdir(parents=True, exist_ok=True)
        (folder / key).write_bytes(body)
    done = subprocess.run(
        [sys.executable, str(READER), f"{url}/team", "noarch", str(tmp_path / "cache")],
        input=json.dumps(sorted(set(there.values()))),
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout)
    document = world.index_json(NOARCH)
    expected = {name: record["sha256"] for name, record in document["packages.conda"].items()}
    assert set(expected) == {key.rpartition("/")[2] for key in there}
    assert found == {"flat": expected, "sharded": expected}
