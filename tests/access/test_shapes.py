import pytest

from lambdas.access.shapes import NULL, Shape
from lambdas.channel.errors import InvalidDocumentError

SHAPE = Shape({"a": (int,), "b": (str, NULL), "c": (list,)}, c=[])


def test_read__values_in_order() -> None:
    assert SHAPE.read({"c": [1], "x": 0, "b": "b", "a": 1}) == (1, "b", [1])


def test_read__default_and_null() -> None:
    assert SHAPE.read({"a": 1, "b": None}) == (1, None, [])


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (None, "not an object"),
        ([1, "b", []], "not an object"),
        ({"a": 1}, "b is not of type str"),
        ({"b": "b"}, "a is not of type int"),
        ({"a": True, "b": "b"}, "a is not of type int"),
        ({"a": 1, "b": 2}, "b is not of type str"),
        ({"a": 1, "b": "b", "c": None}, "c is not of type list"),
    ],
)
def test_read__malformed(raw: object, message: str) -> None:
    with pytest.raises(InvalidDocumentError) as caught:
        SHAPE.read(raw)
    assert str(caught.value) == message


def test_rest__unknown_keys() -> None:
    assert SHAPE.rest({"a": 1, "b": "b", "x": 0}) == {"x": 0}
    assert SHAPE.rest({"a": 1, "b": "b"}) == {}
