"""Publishing: a role for each publisher, taken by people, machines, or CI jobs that prove who they are.

Owns who may take a role. What a role may do in the bucket is said in storage.py.
"""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from constructs import Construct

from infra.config import Configuration, Publisher, Workload
from infra.storage import Storage


class Publishing(Construct):
    """The publishers' roles."""

    def __init__(self, scope: Construct, construct_id: str, *, configuration: Configuration, storage: Storage) -> None:
        super().__init__(scope, construct_id)
        self._configuration = configuration
        workloads = [workload for publisher in configuration.publishers for workload in publisher.workloads]
        self._providers = {
            issuer: self._find_provider(issuer, workloads) for issuer in sorted({each.issuer for each in workloads})
        }
        self.roles = {publisher.name: self._make_role(publisher) for publisher in configuration.publishers}
        for publisher in configuration.publishers:
            storage.allow_publishing(self.roles[publisher.name], publisher)

    def _find_provider(self, issuer: str, workloads: list[Workload]) -> str:
        """Return the ARN of the issuer's provider; an account has one for each issuer, whoever made it."""
        if issuer in self._configuration.existing_oidc_providers:
            provider = issuer.removeprefix("https://")
            return f"arn:aws:iam::{self._configuration.account}:oidc-provider/{provider}"
        return iam.OidcProviderNative(
            self,
            f"Issuer-{issuer.removeprefix('https://').replace('/', '-')}",
            url=issuer,
            client_ids=sorted({each.audience for each in workloads if each.issuer == issuer}),
        ).oidc_provider_arn

    def _make_role(self, publisher: Publisher) -> iam.Role:
        takers: list[iam.PrincipalBase] = [iam.ArnPrincipal(arn) for arn in publisher.principals]
        takers += [self._describe_workload(workload) for workload in publisher.workloads]
        return iam.Role(
            self,
            f"Publisher-{publisher.name}",
            assumed_by=iam.CompositePrincipal(*takers),
            description=f"Fairway: publishes to {', '.join(publisher.channels)}"[:1000],
            max_session_duration=cdk.Duration.hours(1),
        )

    def _describe_workload(self, workload: Workload) -> iam.WebIdentityPrincipal:
        return iam.WebIdentityPrincipal(
            self._providers[workload.issuer],
            {
                "StringEquals": {f"{workload.provider}:aud": workload.audience},
                "StringLike": {f"{workload.provider}:sub": list(workload.subjects)},
            },
        )
