"""Publishing: a role for each publisher, assumed by AWS principals or by CI jobs with identity tokens.

Owns who may assume a role; its permissions on the bucket are in storage.py.
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
            issuer: self._provider_arn(issuer, workloads) for issuer in sorted({each.issuer for each in workloads})
        }
        self.roles = {publisher.name: self._make_role(publisher) for publisher in configuration.publishers}
        for publisher in configuration.publishers:
            storage.grant_publisher(self.roles[publisher.name], publisher)

    def _provider_arn(self, issuer: str, workloads: list[Workload]) -> str:
        """Return the ARN of the issuer's provider; an account can have only one for each issuer."""
        if issuer in self._configuration.existing_oidc_providers:
            provider = issuer.removeprefix("https://")
            return f"arn:aws:iam::{self._configuration.account}:oidc-provider/{provider}"
        made = iam.OidcProviderNative(
            self,
            f"Issuer-{issuer.removeprefix('https://').replace('/', '-')}",
            url=issuer,
            client_ids=sorted({each.audience for each in workloads if each.issuer == issuer}),
        )
        if not self._configuration.is_emulated:
            # Others in the account may use it by now. That of a failed creation is deleted, as its ARN is then taken.
            made.apply_removal_policy(cdk.RemovalPolicy.RETAIN_ON_UPDATE_OR_DELETE)
        return made.oidc_provider_arn

    def _make_role(self, publisher: Publisher) -> iam.Role:
        principals: list[iam.PrincipalBase] = [iam.ArnPrincipal(arn) for arn in publisher.principals]
        principals += [self._make_principal(workload) for workload in publisher.workloads]
        return iam.Role(
            self,
            f"Publisher-{publisher.name}",
            assumed_by=iam.CompositePrincipal(*principals),
            description=f"Fairway: publishes to {', '.join(publisher.channels)}"[:1000],
            max_session_duration=cdk.Duration.hours(1),
        )

    def _make_principal(self, workload: Workload) -> iam.WebIdentityPrincipal:
        return iam.WebIdentityPrincipal(
            self._providers[workload.issuer],
            {
                "StringEquals": {f"{workload.provider}:aud": workload.audience},
                "StringLike": {f"{workload.provider}:sub": list(workload.subjects)},
            },
        )
