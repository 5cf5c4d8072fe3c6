import json

import pytest

from lambdas.channel.errors import UnavailableError
from scripts.emulated.deploy import parse_outputs

VALUES = {
    "ChannelUrl": "https://d1.cloudfront.net",
    "BucketName": "bucket",
    "DistributionId": "E1",
    "QueueUrl": "queue",
    "DeadLetterQueueUrl": "dead",
    "EventBusName": "bus",
    "IndexerFunctionName": "indexer",
    "PublishCommand": "aws s3 cp",
}


def test_parse_outputs__two_stacks() -> None:
    outputs = parse_outputs(json.dumps({"one": VALUES, "two": {"Other": "x"}}))
    assert (outputs.bucket, outputs.distribution_id, outputs.dead_letter_queue_url) == ("bucket", "E1", "dead")


def test_parse_outputs__missing_output() -> None:
    with pytest.raises(UnavailableError, match="no output 'BucketName'"):
        parse_outputs(json.dumps({"one": {key: value for key, value in VALUES.items() if key != "BucketName"}}))
