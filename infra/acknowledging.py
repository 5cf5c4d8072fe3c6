"""Acknowledges findings of checkers: each by its own name, where it was found, with a reason.

Owns nothing but that form. A finding of cdk-nag that nobody acknowledged fails the synthesis.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from constructs import IConstruct


def acknowledge_rules(construct: IConstruct, reasons: Mapping[str, str]) -> None:
    """Acknowledge rules or single findings (``{name: reason}``) for one construct."""
    for rule, reason in reasons.items():
        cdk.Validations.of(construct).acknowledge(cdk.Acknowledgment(id=rule, reason=reason))


def acknowledge_patterns(role: iam.IRole, resources: Iterable[str], reason: str) -> None:
    """Acknowledge wildcards in a role's policies, each spelt out: another one is another finding."""
    for resource in sorted(resources):
        acknowledge_rules(role, {f"AwsSolutions-IAM5[Resource::{resource}]": reason})


def acknowledge_providers(stack: cdk.Stack) -> None:
    """Acknowledge the helpers by which the CDK carries a value from one region to another."""
    for child in stack.node.children:
        if child.node.id.startswith("Custom::CrossRegion"):
            acknowledge_rules(
                child, dict.fromkeys(("AwsSolutions-IAM4", "AwsSolutions-IAM5", "AwsSolutions-L1"), _HELPER)
            )


def silence_redundant_dependencies(stack: cdk.Stack) -> None:
    """Tell cfn-lint that a dependency said twice is the CDK's way: it names a role beside its policy."""
    stack.template_options.metadata = {"cfn-lint": {"config": {"ignore_checks": ["W3005"]}}}


_HELPER = "the CDK's own function, which reads or writes parameters named after this stack while it is deployed"
