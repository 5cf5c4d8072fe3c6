"""The client's own parser of timestamps agrees with botocore's."""

from typing import Any

import botocore.utils
import pytest

from lambdas.storage.client import parse_timestamp


@pytest.mark.parametrize(
    "text",
    [
        "Wed, 25 Nov 2026 21:46:13 GMT",
        "2026-11-25T21:46:13.000Z",
        "2026-11-25T21:46:13Z",
        "2026-11-25T21:46:13.123456+00:00",
        "20261125T214613Z",
        "Wednesday, 25-Nov-26 21:46:13 GMT",
        "1795643173",
        1795643173,
        1795643173.5,
    ],
)
def test_parse_timestamp__as_botocore(text: Any) -> None:  # noqa: ANN401 - parsers find strings and numbers
    assert parse_timestamp(text) == botocore.utils.parse_timestamp(text)


@pytest.mark.parametrize("text", ["", "tomorrow", "Wed, 99 Nov 2026 21:46:13 GMT"])
def test_parse_timestamp__invalid(text: str) -> None:
    with pytest.raises(ValueError, match="Invalid timestamp"):
        parse_timestamp(text)
