"""Suppresses findings of cdk-nag and cfn-lint: each by its own name, where it was found, with a reason.

A finding of cdk-nag that is not suppressed fails the synthesis.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from constructs import IConstruct

_CROSS_REGION_REASON = (
    "the CDK's own function; it reads or writes parameters named after this stack while the stack is deployed"
)


def suppress_rules(construct: IConstruct, reasons: Mapping[str, str]) -> None:
    """Suppress rules or single findings (``{name: reason}``) for one construct."""
    for rule, reason in reasons.items():
        cdk.Validations.of(construct).acknowledge(cdk.Acknowledgment(id=rule, reason=reason))


def suppress_wildcards(role: iam.IRole, resources: Iterable[str], reason: str) -> None:
    """Suppress wildcards in a role's policies, each by its full pattern: any other pattern is a new finding."""
    for resource in sorted(resources):
        suppress_rules(role, {f"AwsSolutions-IAM5[Resource::{resource}]": reason})


def suppress_cross_region_functions(stack: cdk.Stack) -> None:
    """Suppress findings about the functions with which the CDK passes values between regions."""
    for child in stack.node.children:
        if child.node.id.startswith("Custom::CrossRegion"):
            rules = ("AwsSolutions-IAM4", "AwsSolutions-IAM5", "AwsSolutions-L1")
            suppress_rules(child, dict.fromkeys(rules, _CROSS_REGION_REASON))


def suppress_redundant_dependencies(stack: cdk.Stack) -> None:
    """Suppress cfn-lint's W3005: the CDK makes a resource depend on a role and on that role's policy."""
    stack.template_options.metadata = {"cfn-lint": {"config": {"ignore_checks": ["W3005"]}}}
