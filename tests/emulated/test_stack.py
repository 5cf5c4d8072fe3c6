import socket
from pathlib import Path

import pytest

from lambdas.channel.errors import UsageError
from scripts.emulated.stack import _Ports


def test_ports__reused(tmp_path: Path) -> None:
    first = _Ports(tmp_path / "ports.json").pick("edge", None)
    assert _Ports(tmp_path / "ports.json").pick("edge", None) == first


def test_ports__last_one_in_use(tmp_path: Path) -> None:
    ports = _Ports(tmp_path / "ports.json")
    first = ports.pick("edge", None)
    with socket.socket() as other:
        other.bind(("127.0.0.1", first))
        other.listen()
        assert ports.pick("edge", None) != first
        with pytest.raises(UsageError, match=f"port {first} is in use"):
            ports.pick("edge", first)
