"""Every AWS request that the functions make has its grant, and no request is missing in this list."""

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

import botocore.session
import pytest
from botocore import xform_name

from lambdas.storage.protocol import ObjectStorage
from tests.infra.synthesis import INDEXER, KEY_REFRESHER, ROOT, Synthesis, as_list

pytestmark = pytest.mark.xdist_group("synthesis")

ACTIONS: Mapping[str, tuple[str, ...]] = {
    "abort_multipart_upload": ("s3:AbortMultipartUpload",),
    "complete_multipart_upload": ("s3:PutObject",),
    "copy": ("s3:GetObject", "s3:GetObjectVersion", "s3:PutObject", "s3:AbortMultipartUpload"),
    "copy_object": (
        "s3:GetObject",
        "s3:GetObjectVersion",
        "s3:GetObjectTagging",
        "s3:GetObjectVersionTagging",
        "s3:PutObject",
        "s3:PutObjectTagging",
    ),
    "create_invalidation": ("cloudfront:CreateInvalidation",),
    "create_multipart_upload": ("s3:PutObject",),
    "delete_object": ("s3:DeleteObject", "s3:DeleteObjectVersion", "s3:GetObject"),  # the last for If-Match
    "get_object": ("s3:GetObject", "s3:GetObjectVersion"),
    "head_object": ("s3:GetObject", "s3:GetObjectVersion", "s3:ListBucket"),  # 404 instead of 403
    "list_object_versions": ("s3:ListBucketVersions",),
    "list_objects_v2": ("s3:ListBucket",),
    "put_events": ("events:PutEvents",),
    "put_object": ("s3:PutObject",),
    "send_message": ("sqs:SendMessage",),
    "upload_part": ("s3:PutObject",),
    "upload_part_copy": ("s3:GetObject", "s3:GetObjectVersion", "s3:PutObject"),
}
"""The actions that each method of a client needs. Source: service authorization reference, and the S3 API's pages."""

SERVICES = ("cloudfront", "events", "s3", "sqs")
OPERATIONS = {
    xform_name(operation)
    for service in SERVICES
    for operation in botocore.session.get_session().get_service_model(service).operation_names
}


def list_calls(folder: Path) -> Iterator[str]:
    """Yield the methods of clients that the code calls, and the operations that it pages."""
    for path in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            name, holder = node.func.attr, node.func.value
            is_client = isinstance(holder, ast.Attribute) and holder.attr == "_client"
            if name == "get_paginator":
                (operation,) = node.args
                assert isinstance(operation, ast.Constant)
                yield str(operation.value)
            elif is_client or (name in OPERATIONS and not hasattr(ObjectStorage, name)):
                yield name


def list_clients(folder: Path) -> set[str]:
    """Return the services that the code makes clients of."""
    return {
        str(node.args[0].value)
        for path in folder.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "client"
        and node.args
        and isinstance(node.args[0], ast.Constant)
    }


def list_granted(synthesis: Synthesis, handler: str) -> set[str]:
    return {
        action
        for statement in synthesis.statements(synthesis.role_of(handler))
        if statement["Effect"] == "Allow"
        for action in as_list(statement["Action"])
    }


def test_calls__each_is_known() -> None:
    assert set(list_calls(ROOT / "lambdas")) == set(ACTIONS)
    assert list_clients(ROOT / "lambdas") == set(SERVICES)


def test_indexer__may_make_every_call(full: Synthesis) -> None:
    needed = {action for actions in ACTIONS.values() for action in actions}
    assert needed <= list_granted(full, INDEXER)


def test_indexer__sends_to_both_queues(full: Synthesis) -> None:
    (statement,) = [
        each
        for each in full.statements(full.role_of(INDEXER))
        if each["Effect"] == "Allow" and "sqs:SendMessage" in as_list(each["Action"])
    ]
    queues = {each["Id"] for each in full.resources("AWS::SQS::Queue")}
    assert {arn["Fn::GetAtt"][0] for arn in as_list(statement["Resource"])} == queues


def test_key_refresher__may_make_every_call(full: Synthesis) -> None:
    """It gets and replaces one object that is there, and nothing else."""
    needed = {action for call in ("get_object", "put_object") for action in ACTIONS[call]} - {"s3:GetObjectVersion"}
    assert needed <= list_granted(full, KEY_REFRESHER)
