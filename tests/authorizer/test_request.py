import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lambdas.authorizer.request import (
    MAX_URI_CHARS,
    MalformedRequestError,
    ViewerRequest,
    format_uri,
    object_key,
    parse_authorization,
    parse_request,
    redirect_location,
)
from tests.access_documents import format_basic, make_request


def parse(uri: str) -> ViewerRequest:
    return parse_request(make_request(uri))


def encode_basic(credentials: bytes) -> str:
    return "Basic " + base64.b64encode(credentials).decode()


def find(uri: str) -> str | None:
    return object_key(parse(uri))


@pytest.mark.parametrize(
    ("uri", "key"),
    [
        ("/team/noarch/repodata.json", "team/noarch/repodata.json"),
        ("/team/noarch/foo-1.0+cu118-0.conda", "team/noarch/foo-1.0+cu118-0.conda"),
        ("/team/noarch/foo-1.0%2Bcu118-0.conda", "team/noarch/foo-1.0+cu118-0.conda"),
        ("/team/noarch/foo-1.0%2bcu118-0.conda", "team/noarch/foo-1.0+cu118-0.conda"),
        ("/team/noarch/foo-1!2.0-0.conda", "team/noarch/foo-1!2.0-0.conda"),
        ("/team/noarch/foo-1%212.0-0.conda", "team/noarch/foo-1!2.0-0.conda"),
        ("/team/", "team/index.html"),
        ("/team/noarch/", "team/noarch/index.html"),
        ("/team/noarch/shards/", "team/noarch/shards/index.html"),
        ("/%74eam/noarch/x", "team/noarch/x"),
        ("/t/anything/team/noarch/x", "team/noarch/x"),
        ("/t/*****/team/noarch/x", "team/noarch/x"),
        ("/t/%3CTOKEN%3E/team/noarch/x", "team/noarch/x"),
        ("/t//team/noarch/x", "team/noarch/x"),
        ("/%74/anything/team/noarch/x", "team/noarch/x"),
        ("/team/t/x/y", "team/t/x/y"),
        ("/team/patch_instructions.json", "team/patch_instructions.json"),
    ],
)
def test_object_key__of_a_plain_path(uri: str, key: str) -> None:
    assert find(uri) == key


@pytest.mark.parametrize(
    "uri",
    [
        "/.fairway/access.json",
        "/TEAM/x",
        "/label/x",
        "/noarch/repodata.json",
        "/t/x/t/y/team/x",
        "/-x/y",
        "/.x/y",
        "/a~/x",
    ],
)
def test_object_key__invalid_channel(uri: str) -> None:
    assert find(uri) is None


@pytest.mark.parametrize("uri", ["/", "/t/", "/t", "/t/token", "/t/token/", "/index.html"])
def test_parse_request__root(uri: str) -> None:
    assert parse(uri).segments == ()
    assert find(uri) is None


@pytest.mark.parametrize(
    ("uri", "is_plain"),
    [
        ("/team/noarch/tool-1.0-0.conda", True),
        ("/team/noarch/tool-1.0%2Bcu1-0.conda", True),
        ("/team/noarch/t%6Fol-1.0-0.conda", True),
        ("/team/noarch/tool%2D1.0-0.tar.bz2", True),
        ("/team/noarch/repod%61ta.json", True),
        ("/team%2Econda/noarch/repodata.json", True),
        ("/team/noarch/tool-1.0-0%2Econda", False),
        ("/team/noarch/tool-1.0-0.c%6Fnda", False),
        ("/team/noarch/tool-1.0-0.tar.bz%32", False),
        ("/team/noarch/shards/0.msgpack.zs%74", False),
        ("/team/noarch/repodata%5Fshards.msgpack.zst", False),
    ],
)
def test_parse_request__attack_escaped_extension_that_chooses_another_behaviour(uri: str, *, is_plain: bool) -> None:
    if is_plain:
        assert find(uri) is not None
    else:
        with pytest.raises(MalformedRequestError):
            parse(uri)


# The tricks of docs/security.md. Each is answered 400: no key follows from it.
TRICKS = {
    "dots": ["/team/../secret/x", "/team/./x", "/..", "/team/..", "/../.fairway/access.json", "/./team/x"],
    "encoded dots": ["/team/%2e%2e/secret/x", "/team/.%2e/x", "/team/%2E./x", "/%2e/team", "/%2e%2e/x"],
    "double encoding": ["/team/%252e%252e/secret/x", "/%2574eam/x", "/team/%25%32%65/x", "/te%25am/x"],
    "empty parts": ["//team/x", "/team//x", "/team/x//", "//", "/t/token//team/x"],
    "encoded slash": ["/team%2fnoarch/x", "/team%2F..%2Fsecret/x", "/team/noarch%2f..%2f..%2fsecret"],
    "semicolon": ["/team;/x", "/team;v=1/x", "/team/..;/secret/x", "/team/x;.conda"],
    "backslash": ["/team\\..\\secret/x", "/team%5c..%5csecret/x", "/\\team/x", "/team\\noarch/x"],
    "overlong UTF-8": ["/team/%c0%ae%c0%ae/secret/x", "/%e0%80%af/x", "/team/%c0%af/x", "/team/%f0%80%80%ae/x"],
    "NUL": ["/team%00/x", "/team/x%00.conda", "/team\0/x", "/%00team/x"],
    "full-width letters": [
        "/\uff54\uff45\uff41\uff4d/x",
        "/%ef%bd%94eam/x",
        "/team/\uff0e\uff0e/x",
        "/team\uff0fnoarch/x",
    ],
    "absolute form": ["https://evil.example.com/team/x", "team/x", "", "*", "evil.example.com:443"],
    "control characters": ["/team\r\nX: y/x", "/team%0d%0aX:%20y/x", "/team/\tx", "/te%7fam/x"],
    "percent signs": ["/team/%", "/team/%2", "/team/%zz/x", "/team/%u002e/x", "/100%/x"],
    "spaces": ["/team /x", "/team%20/x", "/team/x y", "/ team/x"],
    "query in the path": ["/team/x?list-type=2", "/team?prefix=", "/?list-type=2", "/team/x%3flist-type=2"],
    "fragments and hosts": ["/team#/x", "/@evil/x", "/team/x:80", "/team/'x'", '/team/"x"', "/team/<x>"],
    "long": ["/" + "a" * 8192, "/team/" + "x/" * 4000, "/team/" + "%41" * 700],
}


@pytest.mark.parametrize(("name", "uri"), [(name, uri) for name, uris in TRICKS.items() for uri in uris])
def test_parse_request__attack_path_trick(name: str, uri: str) -> None:
    for trick in (uri, f"/t/token{uri}") if uri.startswith("/") else (uri,):
        with pytest.raises(MalformedRequestError):
            parse(trick)


def test_parse_request__trailing_dots_are_part_of_the_name() -> None:
    # S3 takes them literally, and so do we: another channel, another key.
    assert find("/team./noarch/x") == "team./noarch/x"
    assert find("/team/noarch/x.conda.") == "team/noarch/x.conda."


def test_parse_request__longest_path() -> None:
    assert parse("/" + "a" * (MAX_URI_CHARS - 1)).channel == "a" * (MAX_URI_CHARS - 1)


NAMES = st.from_regex(r"[A-Za-z0-9_~!+-][A-Za-z0-9._~!+-]{0,12}", fullmatch=True).filter(lambda name: name != "t")


@given(names=st.lists(NAMES, min_size=1, max_size=5), data=st.data())
def test_parse_request__decoding_undoes_any_escaping(names: list[str], data: st.DataObject) -> None:
    def escape(character: str) -> str:
        plain = character != "%" and data.draw(st.booleans())
        return character if plain else data.draw(st.sampled_from([f"%{ord(character):02x}", f"%{ord(character):02X}"]))

    uri = "/" + "/".join("".join(escape(character) for character in name) for name in names)
    assert parse(uri).segments == tuple(names)


@given(names=st.lists(NAMES, min_size=1, max_size=5))
def test_format_uri__parsed_again_is_the_key(names: list[str]) -> None:
    key = "/".join(names)
    uri = format_uri(key)
    assert "+" not in uri
    assert "/".join(parse(uri).segments) == key


@pytest.mark.parametrize(
    ("value", "credentials"),
    [
        ("Bearer abc", ("abc",)),
        ("bearer  abc ", ("abc",)),
        ("Bearer", ("",)),
        (format_basic("user", "token"), ("token", "user")),
        (format_basic("token", ""), ("", "token")),
        (format_basic("a", "b:c"), ("b:c", "a")),
        ("basic " + format_basic("u", "p")[6:], ("p", "u")),
        ("Basic ****", ("",)),
        ("Basic", ("", "")),
        ("Basic YQ", ("",)),
        ("Basic /////w==", ("", "\ufffd" * 4)),
        # RFC 7617: user names in UTF-8; older clients send Latin-1.
        (encode_basic("zoë:token".encode()), ("token", "zoë")),
        (encode_basic("名前@例え.jp:token".encode()), ("token", "名前@例え.jp")),
        (encode_basic("zoë:token".encode("latin-1")), ("token", "zo\ufffd")),
        (encode_basic(b"\x00\xff\xfe:token"), ("token", "\x00\ufffd\ufffd")),
        (encode_basic(b"a user:token"), ("token", "a user")),
        (encode_basic(b"user: token\r\n"), ("token", "user")),
        (encode_basic(b"\ttoken\n:"), ("", "token")),
        (encode_basic(b" : "), ("", "")),
        ("Basic   " + encode_basic(b"u:p")[6:] + "  ", ("p", "u")),
        ("Bearer  \ttoken\t ", ("token",)),
        ("Digest abc", ("",)),
        ("", ("",)),
        ("abc", ("",)),
    ],
)
def test_parse_authorization__forms(value: str, credentials: tuple[str, ...]) -> None:
    assert parse_authorization([{"key": "Authorization", "value": value}]) == credentials


def test_parse_request__path_token_is_tried_first() -> None:
    request = make_request("/t/path/team/x", authorization=format_basic("user", "password"))
    assert parse_request(request).credentials == ("path", "password", "user")


def test_parse_request__attack_two_authorization_headers() -> None:
    with pytest.raises(MalformedRequestError):
        parse_request(make_request("/team/x", authorization=["Bearer a", "Bearer b"]))


def test_parse_request__attack_very_long_authorization() -> None:
    with pytest.raises(MalformedRequestError):
        parse_request(make_request("/team/x", authorization="Bearer " + "a" * 20_000))


@pytest.mark.parametrize(
    ("uri", "location"),
    [
        ("/team", "./team/"),
        ("/team/noarch", "./noarch/"),
        ("/team/linux-64", "./linux-64/"),
        ("/t/token/team", "./team/"),
        ("/team/", None),
        ("/team/channeldata.json", None),
        ("/team/noarch/repodata.json", None),
        ("/team/noarch/linux-64", None),
    ],
)
def test_redirect_location__folders(uri: str, location: str | None) -> None:
    assert redirect_location(parse(uri)) == location
