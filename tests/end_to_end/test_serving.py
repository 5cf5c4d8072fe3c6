"""The edge's responses to each kind of reader, as clients need them, on the deployed stack."""

import hashlib
import re
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest

from scripts.emulated.viewer import Viewer, make_basic
from tests.builders import conda_package, tar_bz2_package
from tests.end_to_end.conftest import CHANNEL, Channel

pytestmark = [pytest.mark.emulator, pytest.mark.xdist_group("emulator")]

MISSING = (
    f"/{CHANNEL}/noarch/missing-1.0-0.conda",
    f"/{CHANNEL}/noarch/missing-1.0-0.tar.bz2",
    f"/{CHANNEL}/noarch/shards/{'0' * 64}.msgpack.zst",
    f"/{CHANNEL}/noarch/patch_instructions.json",
    f"/{CHANNEL}/notices.json",
    f"/{CHANNEL}/win-64/repodata.json",
    f"/{CHANNEL}/win-64/repodata.json.zst",
    f"/{CHANNEL}/win-64/repodata.json.bz2",
    f"/{CHANNEL}/win-64/current_repodata.json",
    f"/{CHANNEL}/win-64/run_exports.json.zst",
    f"/{CHANNEL}/win-64/repodata_shards.msgpack.zst",
    f"/{CHANNEL}/win-64/",
)
IMMUTABLE = "public, max-age=31536000, immutable"
INDEX_FILES = (
    "repodata.json",
    "repodata.json.zst",
    "repodata_shards.msgpack.zst",
    "run_exports.json",
    "run_exports.json.zst",
)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("path", MISSING)
def test_missing__404_for_permitted_readers(channel: Channel, artifacts: list[str], path: str, method: str) -> None:
    assert channel.reader.ask(path, method).status == 404


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_existing__200_for_permitted_readers(channel: Channel, artifacts: list[str], method: str) -> None:
    for path in [*artifacts, *(f"noarch/{name}" for name in INDEX_FILES), "channeldata.json"]:
        assert channel.reader.ask(f"/{CHANNEL}/{path}", method).status == 200, path


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_denied__same_for_existing_and_missing_files(channel: Channel, artifacts: list[str], method: str) -> None:
    paths = [f"/{CHANNEL}/{artifacts[0]}", f"/{CHANNEL}/noarch/repodata.json", *MISSING, "/nosuch/noarch/repodata.json"]
    for viewer, status in ((channel.stranger, 401), (channel.outsider, 403)):
        answers = [viewer.ask(path, method) for path in paths]
        assert {answer.status for answer in answers} == {status}
        assert len({answer.body for answer in answers}) == 1
        assert (
            len(
                {
                    frozenset((*answer.headers.items(), ("date", ""))) - frozenset([("date", answer.headers["date"])])
                    for answer in answers
                }
            )
            == 1
        )


@pytest.mark.parametrize("mask", ["*****", "", "wrong", "fw-0000000000000000000000000000000000"])
def test_denied__wrong_or_masked_token(channel: Channel, artifacts: list[str], mask: str) -> None:
    for name in INDEX_FILES:
        assert channel.stranger.ask(f"/{CHANNEL}/noarch/{name}", headers=make_basic(mask)).status == 401
        assert channel.stranger.ask(f"/t/{mask}/{CHANNEL}/noarch/{name}").status == 401


def test_credentials__each_form(channel: Channel, artifacts: list[str]) -> None:
    token = channel.reader.token
    assert token
    path = f"/{CHANNEL}/{artifacts[0]}"
    for headers in (make_basic(token), make_basic("", user=token), {"Authorization": f"Bearer {token}"}):
        assert channel.stranger.ask(path, headers=headers).status == 200, headers
    assert channel.stranger.ask(f"/t/{token}{path}").status == 200


def test_public_channel__needs_no_token(channel: Channel) -> None:
    name, content = conda_package(name="for-all")
    channel.publish(f"open/noarch/{name}", content)
    assert channel.stranger.ask(f"/open/noarch/{name}").body == content
    assert channel.stranger.ask("/open/noarch/missing-1-0.conda").status == 404


@pytest.mark.parametrize("path", ["/", "/?list-type=2", "/?prefix=.fairway/", "/?versions", "//", "/?policy"])
def test_root__lists_nothing(channel: Channel, artifacts: list[str], path: str) -> None:
    for viewer in (channel.everything, channel.stranger):
        for prefix in ("", f"/t/{channel.everything.token}"):
            answer = viewer.ask(prefix + path)
            assert answer.status in {400, 401, 404}, answer
            assert b"ListBucketResult" not in answer.body
            assert CHANNEL.encode() not in answer.body


@pytest.mark.parametrize("query", ["list-type=2", "prefix=.fairway/", "versions", "uploads", "acl", "versionId=null"])
def test_query_string__reaches_no_bucket(channel: Channel, artifacts: list[str], query: str) -> None:
    for path in (f"/{CHANNEL}/", f"/{CHANNEL}/noarch/", f"/{CHANNEL}/noarch/repodata.json"):
        plain, queried = channel.reader.ask(path), channel.reader.ask(f"{path}?{query}")
        assert (plain.status, queried.status) == (200, 200)
        assert plain.body == queried.body


@pytest.mark.parametrize("path", [f"/{CHANNEL}/", f"/{CHANNEL}/noarch/"])
def test_directory__is_its_page(channel: Channel, artifacts: list[str], path: str) -> None:
    page = channel.reader.ask(path)
    assert page.status == 200
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert page.body == channel.reader.ask(path + "index.html").body
    redirected = channel.reader.ask(path.rstrip("/"))
    assert redirected.status == 302
    assert redirected.headers["location"] == f"./{path.split('/')[-2]}/"


@pytest.mark.parametrize(
    "path",
    [
        "/.fairway/access.json",
        "/%2efairway/access.json",
        "/%2Efairway%2Faccess.json",
        "//.fairway/access.json",
        "/./.fairway/access.json",
        f"/{CHANNEL}/../.fairway/access.json",
        f"/{CHANNEL}/%2e%2e/.fairway/access.json",
        f"/{CHANNEL}/..%2f.fairway/access.json",
        f"/{CHANNEL}/noarch/../../.fairway/access.json",
        f"/{CHANNEL}\\..\\.fairway\\access.json",
        "/open/../.fairway/access.json",
        "/open/%2e%2e/.fairway/access.json",
        "/.fairway/access.json?x=.conda",
        "/%252efairway/access.json",
        "/t/x/.fairway/access.json",
    ],
)
def test_private_keys__out_of_reach(channel: Channel, path: str) -> None:
    assert channel.s3.get_object(Bucket=channel.bucket, Key=".fairway/access.json")["Body"].read()
    for viewer in (channel.everything, channel.stranger):
        for prefix in ("", f"/t/{channel.everything.token}"):
            answer = viewer.ask(prefix + path)
            assert 400 <= answer.status < 500, answer
            assert b"sha256" not in answer.body


@pytest.mark.parametrize(
    "path",
    [
        "/_ministack/health",
        "/_ministack/ready",
        "/_localstack/health",
        "/health",
        "/v2/_catalog",
        "/oauth2/authorize",
        "/logout",
    ],
)
def test_emulator__its_other_interfaces_are_out_of_reach(channel: Channel, path: str) -> None:
    assert channel.everything.ask(path).status in {302, 400, 404}  # 302: to the page of a channel of that name


@pytest.mark.parametrize("name", ["iceberg", "v2", "_ministack", "restapis", "login"])
def test_channel__called_as_one_of_the_emulators_paths(channel: Channel, name: str) -> None:
    channel.put(f"{name}/noarch/notes.txt", b"mine")
    assert channel.everything.ask(f"/{name}/noarch/notes.txt").body == b"mine"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_method__reading_only(channel: Channel, artifacts: list[str], method: str) -> None:
    path = f"/{CHANNEL}/{artifacts[0]}"
    assert channel.everything.ask(path, method).status in {403, 405}
    assert channel.everything.ask(path).status == 200


def test_range__206(channel: Channel, artifacts: list[str]) -> None:
    for path in (f"/{CHANNEL}/{artifacts[0]}", f"/{CHANNEL}/noarch/repodata.json"):
        whole = channel.reader.ask(path).body
        size = len(whole)
        for asked, first, last in (
            ("bytes=100-", 100, size - 1),  # conda resumes like this
            ("bytes=-100", size - 100, size - 1),  # rattler reads the end of an archive like this
            ("bytes=0-0", 0, 0),
            ("bytes=10-19", 10, 19),
        ):
            part = channel.reader.ask(path, headers={"Range": asked})
            assert part.status == 206
            assert part.headers["content-range"] == f"bytes {first}-{last}/{size}"
            assert part.body == whole[first : last + 1]
        assert channel.reader.ask(path, headers={"Range": f"bytes={size}-"}).status == 416


def test_conditional__304(channel: Channel, artifacts: list[str]) -> None:
    for path in (artifacts[0], *(f"noarch/{name}" for name in INDEX_FILES)):
        answer = channel.reader.ask(f"/{CHANNEL}/{path}")
        etag, modified = answer.headers["etag"], answer.headers["last-modified"]
        assert re.fullmatch(r'"[^"]+"', etag)  # a strong one
        for condition in ({"If-None-Match": etag}, {"If-Modified-Since": modified}):
            unchanged = channel.reader.ask(f"/{CHANNEL}/{path}", headers=condition)
            assert (unchanged.status, unchanged.body) == (304, b"")
        assert channel.reader.ask(f"/{CHANNEL}/{path}", headers={"If-None-Match": '"other"'}).status == 200


def test_head__says_what_get_does(channel: Channel, artifacts: list[str]) -> None:
    for path in (artifacts[0], *(f"noarch/{name}" for name in INDEX_FILES)):
        got, head = channel.reader.ask(f"/{CHANNEL}/{path}"), channel.reader.ask(f"/{CHANNEL}/{path}", "HEAD")
        assert head.body == b""
        for name in ("content-length", "content-type", "etag", "last-modified", "cache-control"):
            assert head.headers[name] == got.headers[name]
        assert int(head.headers["content-length"]) == len(got.body)


def list_immutable(channel: Channel, artifacts: list[str]) -> list[str]:
    """Paths of artifacts, uploaded with a plain ``aws s3 cp``, and of a shard."""
    shard = next(key for key, _ in channel.versions(f"{CHANNEL}/noarch/shards/"))
    return [*(f"/{CHANNEL}/{path}" for path in artifacts), f"/{shard}"]


def test_headers__cache_control(channel: Channel, artifacts: list[str]) -> None:
    for path in list_immutable(channel, artifacts):
        for method in ("GET", "HEAD"):
            assert channel.reader.ask(path, method).headers["cache-control"] == IMMUTABLE, path
    for path in (*(f"noarch/{name}" for name in INDEX_FILES), "channeldata.json", "rss.xml", "", "noarch/"):
        assert channel.reader.ask(f"/{CHANNEL}/{path}").headers["cache-control"] == "public, max-age=30", path


def test_headers__cache_control_overrides_the_publisher_s(channel: Channel) -> None:
    for cache_control in ("no-cache", "private, max-age=5"):
        name, content = conda_package(name="own-header", version=str(len(cache_control)))
        key = f"{CHANNEL}/noarch/{name}"
        channel.s3.put_object(Bucket=channel.bucket, Key=key, Body=content, CacheControl=cache_control)
        channel.wait_until_listed(key)
        answer = channel.reader.ask(f"/{key}")
        assert (answer.status, answer.headers["cache-control"]) == (200, IMMUTABLE)
        assert answer.body == content


def test_headers__attack_artifact_is_served_alike_whatever_its_upload_set(channel: Channel) -> None:
    name, content = conda_package(name="own-headers")
    key = f"{CHANNEL}/noarch/{name}"
    channel.s3.put_object(
        Bucket=channel.bucket,
        Key=key,
        Body=content,
        ContentType="text/html",
        ContentEncoding="gzip",
        ContentDisposition="attachment; filename=other.exe",
        ContentLanguage="tlh",
        Expires=datetime(2020, 1, 1, tzinfo=UTC),
        WebsiteRedirectLocation="https://evil.example/",
        Metadata={"note": "hello"},
    )
    channel.wait_until_listed(key)
    for method in ("GET", "HEAD"):
        answer = channel.reader.ask(f"/{key}", method, headers={"Accept-Encoding": "identity"})
        assert answer.status == 200
        assert answer.headers["content-type"] == "application/octet-stream"
        assert answer.headers["cache-control"] == IMMUTABLE
        set_by_upload = {"content-encoding", "content-disposition", "content-language", "expires"}
        assert not {each for each in answer.headers if each in set_by_upload or each.startswith("x-amz-meta-")}
        assert "x-amz-website-redirect-location" not in answer.headers
    assert channel.reader.ask(f"/{key}").body == content


def test_behaviours__attack_token_that_looks_like_a_folder_of_shards(channel: Channel) -> None:
    channel.s3.put_object(Bucket=channel.bucket, Key="open/notices.json", Body=b"{}")
    for token in ("shards", "x.conda", "repodata_shards.msgpack.zst"):
        answer = channel.stranger.ask(f"/t/{token}/open/notices.json")
        assert answer.status == 200
        # From the default behaviour, which keeps it for 30 s: no function has changed it.
        assert "cache-control" not in answer.headers


def test_headers__cache_control_of_206_and_304(channel: Channel, artifacts: list[str]) -> None:
    for path in list_immutable(channel, artifacts):
        whole = channel.reader.ask(path)
        for headers, status in (({"Range": "bytes=0-9"}, 206), ({"If-None-Match": whole.headers["etag"]}, 304)):
            answer = channel.reader.ask(path, headers=headers)
            assert (answer.status, answer.headers["cache-control"]) == (status, IMMUTABLE), path


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("path", MISSING)
def test_headers__cache_control_of_missing_files(
    channel: Channel, artifacts: list[str], path: str, method: str
) -> None:
    answer = channel.reader.ask(path, method)
    assert answer.status == 404
    if path.endswith((".conda", ".tar.bz2")) or "/shards/" in path:
        assert answer.headers["cache-control"] == "no-store"
    else:
        assert "max-age" not in answer.headers.get("cache-control", "")


def test_headers__cache_control_of_other_errors(channel: Channel, artifacts: list[str]) -> None:
    for path in list_immutable(channel, artifacts):
        beyond = channel.reader.ask(path, headers={"Range": "bytes=999999999-"})
        assert (beyond.status, beyond.headers["cache-control"]) == (416, "no-store")
        for viewer in (channel.stranger, channel.outsider):
            assert viewer.ask(path).headers["cache-control"] == "no-store"


def test_headers__cache_control_of_a_channel_called_shards(channel: Channel) -> None:
    name, content = conda_package(name="in-shards")
    channel.publish(f"shards/noarch/{name}", content)
    # With a token in front, a pattern of the folder of shards would cover all of this channel.
    prefix = f"/t/{channel.everything.token}/shards"
    for path in ("/noarch/repodata.json", "/noarch/repodata_shards.msgpack.zst", "/noarch/", "/channeldata.json"):
        answer = channel.stranger.ask(prefix + path)
        assert (answer.status, answer.headers["cache-control"]) == (200, "public, max-age=30"), path
    assert channel.stranger.ask(f"{prefix}/noarch/{name}").headers["cache-control"] == IMMUTABLE
    missing = channel.stranger.ask(f"{prefix}/win-64/repodata.json")
    assert (missing.status, missing.headers.get("cache-control")) == (404, None)


def test_headers__content_type_and_no_encoding(channel: Channel, artifacts: list[str]) -> None:
    for name in INDEX_FILES:
        answer = channel.reader.ask(f"/{CHANNEL}/noarch/{name}", headers={"Accept-Encoding": "gzip, br, zstd"})
        assert "content-encoding" not in answer.headers
        if name.endswith(".json"):
            assert answer.headers["content-type"].startswith("application/json")
            assert answer.json()["info"]["subdir"] == "noarch"
        else:
            assert answer.body.startswith(b"\x28\xb5\x2f\xfd")  # the start of a zstd frame


def test_plus_and_bang__plain_and_encoded(channel: Channel) -> None:
    for name, content in (
        conda_package(name="plus", version="1.0+cu118", build="py3.11_0"),
        tar_bz2_package(name="epoch", version="1!2.0+local"),
    ):
        channel.publish(f"{CHANNEL}/noarch/{name}", content)
        encoded = name.replace("+", "%2B")
        for form in (name, encoded, encoded.replace("!", "%21"), encoded.lower()):
            for prefix in ("", f"/t/{channel.reader.token}"):
                assert channel.reader.ask(f"{prefix}/{CHANNEL}/noarch/{form}").body == content, form
            assert channel.stranger.ask(f"/{CHANNEL}/noarch/{form}").status == 401


def test_large_file__streams(channel: Channel) -> None:
    content = hashlib.shake_256(b"large").digest(1024 * 1024) * 64
    channel.put(f"{CHANNEL}/noarch/large.bin", content)
    answer = channel.reader.ask(f"/{CHANNEL}/noarch/large.bin")
    assert (answer.status, len(answer.body)) == (200, len(content))
    assert hashlib.sha256(answer.body).digest() == hashlib.sha256(content).digest()


def test_many_at_once(channel: Channel, artifacts: list[str]) -> None:
    paths = [f"/{CHANNEL}/{path}" for path in artifacts]
    expected = {path: channel.reader.ask(path).body for path in paths}
    with ThreadPoolExecutor(64) as threads:
        answers = threads.map(lambda path: (path, channel.reader.ask(path)), paths * 50)
        assert all(answer.status == 200 and answer.body == expected[path] for path, answer in answers)


def test_origin__reads_only_through_the_distribution(channel: Channel, artifacts: list[str]) -> None:
    unsigned = Viewer(url=channel.stack.endpoint)
    for path in (f"/{CHANNEL}/{artifacts[0]}", f"/{CHANNEL}/noarch/repodata.json", "/.fairway/access.json", ""):
        assert unsigned.ask(f"/{channel.bucket}{path}").status == 403
