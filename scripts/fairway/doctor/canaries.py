"""The artifacts that ``fairway doctor`` publishes: tiny, harmless, and all of one channel. Pure.

Those of the splice have a large record instead of a large payload: 80 of them make a subdir of more than
16 MiB, whose index is spliced.
"""

import base64
import hashlib
import io
import random
import tarfile
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from lambdas.channel.artifact_kinds import parse_filename
from lambdas.channel.layout import ArtifactKey
from lambdas.channel.names import DOCTOR_CHANNEL, NOARCH, SubdirId, SubdirName
from lambdas.indexer.tree.encoding import compress, encode_json

NOARCH_SUBDIR: Final = SubdirId(channel=DOCTOR_CHANNEL, name=NOARCH)
SPLICED_SUBDIR: Final = SubdirId(channel=DOCTOR_CHANNEL, name=SubdirName("linux-64"))
RECORD_BYTES: Final = 240 * 1024
"""Of a large record: info/index.json may have 256 KiB."""

_LEVEL: Final = 3
_EPOCH: Final = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip can state


@dataclass(frozen=True, kw_only=True, slots=True)
class Canary:
    """An artifact, and where it is published."""

    key: ArtifactKey
    body: bytes

    @property
    def sha256(self) -> str:
        """The hash of its bytes, in hex."""
        return hashlib.sha256(self.body).hexdigest()


def make_canary(
    name: str, version: str, *, subdir: SubdirId = NOARCH_SUBDIR, extra: Mapping[str, Any] | None = None
) -> Canary:
    """Build a ``.conda`` without files; ``extra`` are further fields of its info/index.json."""
    index = {
        "build": "0",
        "build_number": 0,
        "depends": [],
        "license": "0BSD",
        "name": name,
        "subdir": subdir.name,
        "version": version,
        **({"noarch": "generic"} if subdir.name == NOARCH else {}),
        **(extra or {}),
    }
    stem = f"{name}-{version}-0"
    info = _make_tar([("info/index.json", encode_json(index)), ("info/paths.json", b'{"paths":[],"paths_version":1}')])
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:
        for member, content in (
            ("metadata.json", b'{"conda_pkg_format_version": 2}'),
            (f"pkg-{stem}.tar.zst", compress(_make_tar([]), level=_LEVEL)),
            (f"info-{stem}.tar.zst", compress(info, level=_LEVEL)),
        ):
            archive.writestr(zipfile.ZipInfo(member, date_time=_EPOCH), content)
    key = ArtifactKey(subdir=subdir, distribution=parse_filename(f"{stem}.conda"))
    return Canary(key=key, body=packed.getvalue())


def make_large_canary(number: int) -> Canary:
    """Build an artifact of the spliced subdir: its record has text that can't be compressed well."""
    text = base64.b64encode(random.Random(number).randbytes(RECORD_BYTES * 3 // 4)).decode()  # noqa: S311 - filler
    return make_canary(f"canary-{number:03}", "1.0", subdir=SPLICED_SUBDIR, extra={"fairway_filler": text})


def _make_tar(members: Iterable[tuple[str, bytes]]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content in members:
            header = tarfile.TarInfo(name)
            header.size = len(content)
            archive.addfile(header, io.BytesIO(content))
    return packed.getvalue()
