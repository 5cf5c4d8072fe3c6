"""The evaluator itself, held against what IAM's documentation says about missing keys."""

from typing import Any

import pytest

from tests.infra.iam import Request, applies, is_allowed, is_denied

GRANT: dict[str, Any] = {"Effect": "Allow", "Action": "s3:*", "Resource": "arn:aws:s3:::b/*"}
KEY = "s3:x-amz-storage-class"


def ask(**context: str) -> Request:
    return Request(
        action="s3:PutObject",
        resource="arn:aws:s3:::b/a/b.conda",
        context={name.replace("__", ":").replace("_", "-"): value for name, value in context.items()},
    )


@pytest.mark.parametrize(
    ("operator", "wanted", "without", "equal", "other"),
    [
        ("StringEquals", "A", False, True, False),
        ("StringNotEquals", "A", True, False, True),
        ("StringNotEquals", ["A", "B"], True, False, True),
        ("StringEqualsIfExists", "A", True, True, False),
        ("StringNotEqualsIfExists", "A", True, False, True),
        ("StringLike", "A*", False, True, False),
        ("StringNotLike", "A*", True, False, True),
        ("Null", "true", True, False, False),
        ("Null", "false", False, True, True),
    ],
)
def test_applies__keys_that_are_missing(
    operator: str, wanted: object, *, without: bool, equal: bool, other: bool
) -> None:
    statement = GRANT | {"Condition": {operator: {KEY: wanted}}}
    assert applies(statement, ask()) == without
    assert applies(statement, ask(s3__x_amz_storage_class="A")) == equal
    assert applies(statement, ask(s3__x_amz_storage_class="C")) == other


def test_applies__every_condition_must_hold() -> None:
    statement = GRANT | {"Condition": {"Null": {KEY: "false"}, "StringNotEquals": {KEY: ["A", "B"]}}}
    assert [applies(statement, ask(**context)) for context in ({}, {"s3__x_amz_storage_class": "C"})] == [False, True]


def test_is_allowed__a_denial_wins() -> None:
    denial = {"Effect": "Deny", "Action": "s3:PutObject", "NotResource": "arn:aws:s3:::b/other*", "Principal": "*"}
    assert is_allowed([GRANT], ask())
    assert not is_allowed([GRANT, denial], ask())
    assert is_denied([denial], ask())
    assert not is_allowed([], ask())


def test_applies__wildcards_match_slashes_and_nothing_else_is_special() -> None:
    statement = {"Effect": "Allow", "Action": "s3:Put*", "Resource": ["arn:aws:s3:::b/a*.conda", "arn:aws:s3:::b/[x]?"]}
    for key, expected in {"a/b/c.conda": True, "aXconda": False, "x1": False, "[x]1": True, "[x]12": False}.items():
        request = Request(action="s3:PutObject", resource=f"arn:aws:s3:::b/{key}")
        assert applies(statement, request) == expected, key
