"""Changes of access reach the deployed edge within a minute, without a deployment; identity tokens work there."""

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lambdas.channel.layout import ACCESS_KEY
from scripts.emulated.commands import run_tool
from scripts.emulated.viewer import Viewer, make_basic
from tests.access_documents import AUDIENCE, ISSUER, KEY, make_claims, make_identity
from tests.end_to_end.conftest import Channel, wait_until

if TYPE_CHECKING:
    from mypy_boto3_lambda import LambdaClient

pytestmark = [pytest.mark.emulator, pytest.mark.xdist_group("emulator")]

# These channels are empty: permitted readers get 404, others 401.
GUARDED = "/identity-only/noarch/x"
SHOWN = "/shown-for-a-while/noarch/x"


def make_fresh_identity(repository: str = "acme/app") -> str:
    now = int(time.time())
    return make_identity(make_claims(iat=now, nbf=now, exp=now + 600, repository=repository))


def test_access__changes_take_effect_within_a_minute(channel: Channel, tmp_path: Path) -> None:
    environment = channel.stack.environment
    keys = tmp_path / "keys.json"
    keys.write_text(json.dumps({"keys": [{"kty": "RSA", "kid": KEY.kid, "n": KEY.n, "e": KEY.e}]}))
    viewer = Viewer(url=channel.stack.edge_url)
    bearer = {"Authorization": f"Bearer {make_fresh_identity()}"}

    def statuses() -> tuple[int, int]:
        return viewer.ask(GUARDED, headers=bearer).status, viewer.ask(SHOWN).status

    assert statuses() == (401, 401)
    options = [
        "--audience",
        AUDIENCE,
        "--claim",
        "repository=acme/*",
        "--channel",
        "identity-only",
        "--jwks",
        str(keys),
    ]
    run_tool("fairway", "issuer", "add", ISSUER, *options, environment=environment)
    run_tool("fairway", "channel", "set-public", "--yes", "shown-for-a-while", environment=environment)
    wait_until(lambda: statuses() == (404, 404), "an issuer and a public channel are known")

    assert viewer.ask(GUARDED, headers=make_basic(make_fresh_identity())).status == 404
    assert viewer.ask("/another/noarch/x", headers=bearer).status == 403
    stranger = {"Authorization": f"Bearer {make_fresh_identity('evil/app')}"}
    assert viewer.ask(GUARDED, headers=stranger).status == 403
    forged = {"Authorization": bearer["Authorization"][:-4] + "AAAA"}
    assert viewer.ask(GUARDED, headers=forged).status == 401

    run_tool("fairway", "issuer", "remove", ISSUER, environment=environment)
    run_tool("fairway", "channel", "set-private", "shown-for-a-while", environment=environment)
    wait_until(lambda: statuses() == (401, 401), "both are forgotten")


def test_access__attack_deleted_document_is_missed_and_not_replaced_by_an_empty_one(
    channel: Channel, functions: "LambdaClient"
) -> None:
    pages = functions.get_paginator("list_functions").paginate()
    (key_refresher,) = [
        function["FunctionName"]
        for page in pages
        for function in page["Functions"]
        if "lambdas.key_refresher" in function["Handler"]
    ]
    assert "FunctionError" not in functions.invoke(FunctionName=key_refresher, Payload=b"{}")
    kept = channel.s3.get_object(Bucket=channel.bucket, Key=ACCESS_KEY)["Body"].read()
    channel.s3.delete_object(Bucket=channel.bucket, Key=ACCESS_KEY)
    try:
        assert "FunctionError" in functions.invoke(FunctionName=key_refresher, Payload=b"{}")
        assert ACCESS_KEY not in {
            each["Key"]
            for each in channel.s3.list_objects_v2(Bucket=channel.bucket, Prefix=ACCESS_KEY).get("Contents", [])
        }
    finally:
        channel.put(ACCESS_KEY, kept)
