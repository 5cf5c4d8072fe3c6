"""Acknowledges findings of cdk-nag: each by its own name, on the construct it was found at, with a reason.

Owns nothing but that form. A finding that nobody acknowledged fails the synthesis.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from constructs import IConstruct


def acknowledge_rules(construct: IConstruct, reasons: Mapping[str, str]) -> None:
    """Acknowledge whole rules (``{rule: reason}``) for one construct."""
    for rule, reason in reasons.items():
        cdk.Validations.of(construct).acknowledge(cdk.Acknowledgment(id=rule, reason=reason))


def acknowledge_patterns(role: iam.IRole, resources: Iterable[str], reason: str) -> None:
    """Acknowledge wildcards in a role's policies, each spelt out: another one is another finding."""
    for resource in sorted(resources):
        acknowledge_rules(role, {f"AwsSolutions-IAM5[Resource::{resource}]": reason})
