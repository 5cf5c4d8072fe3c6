"""Properties of all functions."""

import pytest

from tests.infra.synthesis import AUTHORIZER, INDEXER, KEY_REFRESHER, ORIGIN_RESPONSE, RECONCILER, Synthesis

pytestmark = pytest.mark.xdist_group("synthesis")


def test_functions__runtime_and_architecture(plain: Synthesis) -> None:
    for handler in (INDEXER, RECONCILER, AUTHORIZER, ORIGIN_RESPONSE, KEY_REFRESHER):
        properties = plain.function(handler)["Properties"]
        assert properties["Runtime"] == "python3.13"
        assert properties["Architectures"] == ["x86_64" if handler in (AUTHORIZER, ORIGIN_RESPONSE) else "arm64"]


def test_functions__log_groups_have_a_retention(full: Synthesis, other_region: Synthesis) -> None:
    for synthesis in (full, other_region):
        groups = synthesis.resources("AWS::Logs::LogGroup")
        assert {group["Properties"]["RetentionInDays"] for group in groups} == {90}
        for handler in (INDEXER, RECONCILER, AUTHORIZER, ORIGIN_RESPONSE, KEY_REFRESHER):
            function = synthesis.function(handler)
            group = function["Properties"]["LoggingConfig"]["LogGroup"]["Ref"]
            assert group in {each["Id"] for each in groups if each["Stack"] == function["Stack"]}
