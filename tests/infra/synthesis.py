"""Queries synthesized templates: resources by type, policies by what they allow."""

import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import aws_cdk as cdk

from infra.app import build

ROOT = Path(__file__).resolve().parents[2]
BUCKET = "arn:aws:s3:::fairway-team-123456789012-us-east-1"
INDEXER = "lambdas.indexer.handler.handle_queue"
RECONCILER = "lambdas.indexer.handler.handle_schedule"
AUTHORIZER = "lambdas.authorizer.handler.handle_viewer_request"
ORIGIN_RESPONSE = "lambdas.authorizer.origin_response.handle_origin_response"
KEY_REFRESHER = "lambdas.key_refresher.handler.handle_event"

Resource = dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Synthesis:
    """The templates of one synthesis, by stack, and their folder."""

    folder: Path
    templates: dict[str, dict[str, Any]]

    def resources(self, resource_type: str, *, stack: str | None = None) -> list[Resource]:
        """Return all resources of a type, each with its logical id under ``Id``."""
        return [
            {"Id": name, "Stack": stack_name, **resource}
            for stack_name, template in self.templates.items()
            if stack in (None, stack_name)
            for name, resource in template["Resources"].items()
            if resource["Type"] == resource_type
        ]

    def only(self, resource_type: str, *, stack: str | None = None) -> Resource:
        """Return the one resource of a type."""
        (resource,) = self.resources(resource_type, stack=stack)
        return resource

    def function(self, handler: str) -> Resource:
        """Return the one function with this handler."""
        (function,) = [
            function
            for function in self.resources("AWS::Lambda::Function")
            if function["Properties"]["Handler"].endswith(handler)
        ]
        return function

    def role_of(self, handler: str) -> Resource:
        """Return the role of the function with this handler."""
        function = self.function(handler)
        role_id = function["Properties"]["Role"]["Fn::GetAtt"][0]
        (role,) = [role for role in self.resources("AWS::IAM::Role", stack=function["Stack"]) if role["Id"] == role_id]
        return role

    def statements(self, role: Resource) -> list[dict[str, Any]]:
        """Return every statement of a role's policies."""
        found = [policy["PolicyDocument"] for policy in role["Properties"].get("Policies", [])]
        found += [
            policy["Properties"]["PolicyDocument"]
            for policy in self.resources("AWS::IAM::Policy", stack=role["Stack"])
            if {"Ref": role["Id"]} in policy["Properties"]["Roles"]
        ]
        return [statement for document in found for statement in document["Statement"]]

    def publisher(self, name: str) -> Resource:
        """Return a publisher's role, by its output."""
        (stack,) = [stack for stack, template in self.templates.items() if "Outputs" in template]
        value = self.templates[stack]["Outputs"][f"PublisherRole{name.title()}"]["Value"]
        (role,) = [
            role for role in self.resources("AWS::IAM::Role", stack=stack) if role["Id"] == value["Fn::GetAtt"][0]
        ]
        return role


def synthesise(
    folder: Path, *, settings: Mapping[str, Any] | None = None, environment: str = "production", **above: str
) -> Synthesis:
    """Synthesize the app as ``cdk synth`` does, with the context of ``cdk.json``."""
    context: dict[str, Any] = json.loads((ROOT / "cdk.json").read_text())["context"]
    context["environment"] = environment
    if settings is not None:
        context["environments"] = {environment: settings}
    app = cdk.App(context=context | above, outdir=str(folder))
    build(app)
    assembly = app.synth()
    return Synthesis(
        folder=folder,
        templates={stack.stack_name: json.loads(json.dumps(stack.template)) for stack in assembly.stacks},
    )


def as_list(value: object) -> list[Any]:
    """Return a policy's value as a list, whether it is one value or a list."""
    return value if isinstance(value, list) else [value]


def allows(statements: Sequence[Mapping[str, Any]], action: str, resource: str) -> bool:
    """Evaluate policies as IAM does, for literal ARNs and without conditions: a denial wins."""
    effects = {
        statement["Effect"] for statement in statements if _covers(statement, action) and _names(statement, resource)
    }
    return effects == {"Allow"}


def _covers(statement: Mapping[str, Any], action: str) -> bool:
    return any(fnmatchcase(action, pattern) for pattern in as_list(statement["Action"]))


def _names(statement: Mapping[str, Any], resource: str) -> bool:
    key = "NotResource" if "NotResource" in statement else "Resource"
    patterns = [pattern for pattern in as_list(statement[key]) if isinstance(pattern, str)]
    return any(fnmatchcase(resource, pattern.replace("[", "[[]")) for pattern in patterns) == (key == "Resource")


def find_values(node: object, key: str) -> Iterator[Any]:
    """Return every value under a key, at any depth."""
    if isinstance(node, dict):
        for name, value in node.items():
            if name == key:
                yield value
            yield from find_values(value, key)
    elif isinstance(node, list):
        for item in node:
            yield from find_values(item, key)


def bucket_statements(synthesis: Synthesis) -> list[dict[str, Any]]:
    statements: list[dict[str, Any]] = synthesis.only("AWS::S3::BucketPolicy")["Properties"]["PolicyDocument"][
        "Statement"
    ]
    return statements


def read_settings(synthesis: Synthesis) -> dict[str, Any]:
    code = synthesis.function(AUTHORIZER)["Properties"]["Code"]["S3Key"]
    with zipfile.ZipFile(synthesis.folder / f"asset.{code}") as archive:
        settings: dict[str, Any] = json.loads(archive.read("settings.json"))
        return settings
