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


@pytest.mark.parametrize(("handler", "retries"), [(RECONCILER, 2), (KEY_REFRESHER, 0)])
def test_functions__scheduled_ones_are_retried_by_lambda(full: Synthesis, handler: str, retries: int) -> None:
    """EventBridge invokes asynchronously: its own retries are those of the delivery alone."""
    (config,) = [
        each["Properties"]
        for each in full.resources("AWS::Lambda::EventInvokeConfig")
        if each["Properties"]["FunctionName"] == {"Ref": full.function(handler)["Id"]}
    ]
    assert config["MaximumRetryAttempts"] == retries
    assert config["Qualifier"] == "$LATEST"  # the version that the rule invokes


def test_functions__scheduled_ones_are_invoked_without_a_retry_policy_of_the_rule(full: Synthesis) -> None:
    rules = [rule["Properties"] for rule in full.resources("AWS::Events::Rule")]
    targets = [target for rule in rules if "ScheduleExpression" in rule for target in rule["Targets"]]
    assert len(targets) == 2
    assert not any("RetryPolicy" in target for target in targets)


def test_functions__leave_a_new_account_room_for_those_at_the_edge(plain: Synthesis) -> None:
    mapping = plain.only("AWS::Lambda::EventSourceMapping")["Properties"]
    assert mapping["ScalingConfig"]["MaximumConcurrency"] == 4
    assert not any(
        "ReservedConcurrentExecutions" in each["Properties"] for each in plain.resources("AWS::Lambda::Function")
    )
