"""Errors of AWS as one line and a hint: what failed, and what the user can do.

Decided by the types of botocore's exceptions and the codes of AWS's answers, never by their texts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import urlsplit

from botocore import exceptions as aws
from botocore.exceptions import BotoCoreError, ClientError

from lambdas.channel.errors import (
    AccessDeniedError,
    ConflictError,
    FairwayError,
    PermanentError,
    UnavailableError,
    UsageError,
    VanishedError,
)

_SIGN_IN: Final = "sign in again: 'aws sso login', or 'aws configure'"
_NETWORK: Final = "check the network, the proxy and AWS_ENDPOINT_URL; then try again"
_REGION: Final = "check the region: 'fairway use NAME --region REGION', or AWS_REGION"
_BUCKET: Final = "check --bucket and FAIRWAY_BUCKET: only the name of the bucket, no s3://"
_ENDPOINT: Final = "check AWS_ENDPOINT_URL, the bucket and the region"
_REQUEST: Final = "FairwayRequest"  # member of ResponseMetadata that ``note_requests`` adds

_REQUEST_IDS: Final = ("x-amz-request-id", "x-amzn-requestid")
_DENIED: Final = frozenset(
    {"AccessDenied", "AccessDeniedException", "AuthorizationError", "Forbidden", "UnauthorizedOperation", "403"}
)
_DENIED_STATUSES: Final = frozenset({HTTPStatus.BAD_REQUEST, HTTPStatus.FORBIDDEN})  # 400: of JSON services
_HTTP_ERROR: Final = 500


@dataclass(frozen=True, slots=True)
class _Explanation:
    """An error for the user; ``message`` is a format string."""

    kind: type[FairwayError]
    message: str
    hint: str

    def fill(self, **values: str) -> FairwayError:
        """Return the error."""
        return self.kind(self.message.format(**values), hint=self.hint)


_NO_CREDENTIALS: Final = _Explanation(
    AccessDeniedError, "no AWS credentials found", "sign in (aws sso login, aws configure) or set AWS_PROFILE"
)

# {codes of an answer: explanation}, where "request" is the action and the resource.
_ANSWERS: Final[tuple[tuple[frozenset[str], _Explanation], ...]] = (
    (
        _DENIED,
        _Explanation(
            AccessDeniedError, "access denied: {request}", "see 'fairway whoami'; an operator can grant the permission"
        ),
    ),
    (
        frozenset({"ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired"}),
        _Explanation(AccessDeniedError, "the AWS session has expired", _SIGN_IN),
    ),
    (
        frozenset({"InvalidAccessKeyId", "InvalidClientTokenId", "InvalidSignatureException", "InvalidToken"})
        | {"SignatureDoesNotMatch", "UnrecognizedClientException"},
        _Explanation(
            AccessDeniedError,
            "AWS does not accept the credentials: {code}",
            f"check AWS_PROFILE and ~/.aws/credentials, or {_SIGN_IN}",
        ),
    ),
    (
        frozenset({"RequestLimitExceeded", "RequestThrottled", "SlowDown", "Throttling", "ThrottlingException"})
        | {"TooManyRequests", "TooManyRequestsException", "429"},
        _Explanation(UnavailableError, "AWS throttles requests: {request}", "try again in a minute"),
    ),
    (
        frozenset({"NoSuchBucket"}),
        _Explanation(
            AccessDeniedError,
            "the bucket does not exist",
            "check --bucket, FAIRWAY_BUCKET or --deployment, and the region",
        ),
    ),
    (
        frozenset({"301", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "PermanentRedirect"}),
        _Explanation(UsageError, "the bucket is in another region", _REGION),
    ),
    (frozenset({"InvalidBucketName"}), _Explanation(UsageError, "invalid bucket name", _BUCKET)),
    (
        frozenset({"RequestTimeTooSkewed", "RequestInTheFuture"}),
        _Explanation(AccessDeniedError, "the clock of this machine is wrong", "set it, then try again"),
    ),
    (
        frozenset({"400"}),  # to HeadObject, whose answer has no body
        _Explanation(
            AccessDeniedError,
            "AWS rejected {request} without a reason",
            f"if 'aws sts get-caller-identity' fails as well, {_SIGN_IN}; otherwise {_REGION}",
        ),
    ),
)

# {types of a failure without an answer: explanation}, where other names are members of the exception.
_FAILURES: Final[tuple[tuple[tuple[type[BotoCoreError], ...], _Explanation], ...]] = (
    (
        (aws.ProfileNotFound,),
        _Explanation(
            UsageError, "there is no AWS profile {profile!r}", "check AWS_PROFILE; see 'aws configure list-profiles'"
        ),
    ),
    (
        (aws.PartialCredentialsError,),
        _Explanation(
            AccessDeniedError,
            "incomplete AWS credentials: {cred_var} is missing",
            "check the profile in ~/.aws/credentials, or the variables AWS_…",
        ),
    ),
    ((aws.NoCredentialsError, aws.NoAuthTokenError), _NO_CREDENTIALS),
    (
        (aws.SSOError, aws.TokenRetrievalError, aws.LoginError),
        _Explanation(AccessDeniedError, "the AWS sign-in has expired or is missing", "sign in again: 'aws sso login'"),
    ),
    (
        (aws.CredentialRetrievalError, aws.RefreshWithMFAUnsupportedError, aws.UnknownCredentialError),
        _Explanation(
            AccessDeniedError, "the AWS credentials cannot be loaded: {type}", "check the profile in ~/.aws/config"
        ),
    ),
    (
        (aws.ConfigParseError, aws.ConfigNotFound, aws.InvalidConfigError),
        _Explanation(UsageError, "invalid AWS configuration: {type}", "check ~/.aws/config"),
    ),
    (
        (aws.NoRegionError, aws.InvalidRegionError, aws.UnknownRegionError),
        _Explanation(UsageError, "no valid AWS region", _REGION),
    ),
    (
        (aws.ParamValidationError, aws.InvalidDNSNameError, aws.UnsupportedS3ArnError),
        _Explanation(UsageError, "a name is invalid in a request to AWS", _BUCKET),
    ),
    (
        (aws.EndpointProviderError, aws.InvalidEndpointConfigurationError, aws.BaseEndpointResolverError),
        _Explanation(UsageError, "invalid AWS endpoint", "check AWS_ENDPOINT_URL and AWS_REGION"),
    ),
    (
        (aws.SSLError,),
        _Explanation(
            UnavailableError, "{endpoint_url} has no certificate that this machine trusts", "check AWS_CA_BUNDLE"
        ),
    ),
    (
        (aws.EndpointConnectionError, aws.ProxyConnectionError),
        _Explanation(UnavailableError, "{endpoint_url} cannot be reached", _NETWORK),
    ),
    (
        (aws.ConnectTimeoutError, aws.ReadTimeoutError, aws.HTTPClientError),
        _Explanation(UnavailableError, "{endpoint_url} did not answer", _NETWORK),
    ),
    ((BotoCoreError,), _Explanation(UnavailableError, "a request to AWS failed: {type}", f"{_NETWORK}; see --debug")),
)

_S3_ACTIONS: Final = {  # {operation: the permission that it needs}, where they differ
    "CompleteMultipartUpload": "PutObject",
    "CopyObject": "PutObject",
    "CreateMultipartUpload": "PutObject",
    "HeadBucket": "ListBucket",
    "HeadObject": "GetObject",
    "ListObjectVersions": "ListBucketVersions",
    "ListObjectsV2": "ListBucket",
    "UploadPart": "PutObject",
    "UploadPartCopy": "PutObject",
}


def note_requests(events: Any) -> None:  # noqa: ANN401 - botocore's hooks
    """Add what was requested to each answer, so that an error can say which action on what was denied.

    An answer that is not from AWS is an error before botocore parses it.
    """
    events.register("before-parameter-build", _remember_request)
    events.register("before-parse", _require_aws)
    events.register("after-call", _add_request)


def explain(error: BaseException) -> FairwayError | None:
    """Return an error of AWS with a hint, or None for an error that says enough already.

    Errors of the storage are explained by the error of AWS that caused them.
    """
    cause = error.__cause__
    if type(error) in {AccessDeniedError, UnavailableError} and isinstance(cause, BotoCoreError | ClientError):
        return explain(cause)
    if isinstance(error, ClientError):
        return _explain_answer(error) or _reject(error)
    if isinstance(error, BotoCoreError):
        return _explain_failure(error)
    if isinstance(error, ConflictError | VanishedError) and error.hint is None and isinstance(cause, ClientError):
        return type(error)(str(error), hint=f"{_ENDPOINT}; --debug prints the answer")
    return None


def is_denial(error: ClientError) -> bool:
    """Tell whether AWS denied a request because a permission is missing."""
    return str(error.response.get("Error", {}).get("Code", "")) in _DENIED


def _explain_answer(error: ClientError) -> FairwayError | None:
    """Explain an answer that is an error."""
    code = str(error.response.get("Error", {}).get("Code", ""))
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    request = _describe_request(error)
    for codes, explanation in _ANSWERS:
        if code in codes:
            return explanation.fill(code=code, request=request)
    if status >= _HTTP_ERROR:
        return UnavailableError(f"AWS failed: {request}: {code}", hint="try again in a minute")
    return None


def _reject(error: ClientError) -> FairwayError:
    """Return the error for an answer of which nothing more is known than its code."""
    code = error.response.get("Error", {}).get("Code", "")
    return PermanentError(
        f"AWS rejected {_describe_request(error)}: {code}", hint=f"{_ENDPOINT}; --debug prints the answer"
    )


def _explain_failure(error: BotoCoreError) -> FairwayError:
    """Explain a request that got no answer, or was never sent."""
    members = {"endpoint_url": "AWS", **getattr(error, "kwargs", {}), "type": type(error).__name__}
    if (parts := urlsplit(str(members["endpoint_url"]))).netloc:  # it may be the URL of a request
        members["endpoint_url"] = f"{parts.scheme}://{parts.netloc}"
    explanation = next(explanation for types, explanation in _FAILURES if isinstance(error, types))
    return explanation.fill(**members)


def no_credentials() -> FairwayError:
    """Return the error for a caller without credentials."""
    return _NO_CREDENTIALS.fill()


def _describe_request(error: ClientError) -> str:
    """Return ``ACTION on RESOURCE``, as far as it is known."""
    request: Mapping[str, Any] = error.response.get("ResponseMetadata", {}).get(_REQUEST, {})  # type: ignore[assignment] # added by note_requests
    service = request.get("service", "s3")
    operation = error.operation_name
    action = f"{service}:{_S3_ACTIONS.get(operation, operation) if service == 's3' else operation}"
    resource = request.get("resource")
    return f"{action} on {resource}" if resource else action


def _remember_request(params: Mapping[str, Any], model: Any, context: dict[str, Any], **_: Any) -> None:  # noqa: ANN401 - botocore's
    context[_REQUEST] = {"service": model.service_model.signing_name, "resource": _name_resource(params)}


def _name_resource(params: Mapping[str, Any]) -> str | None:
    if "Bucket" in params:
        return f"s3://{params['Bucket']}/{params.get('Key', params.get('Prefix', ''))}"
    names = ("StackName", "QueueUrl", "FunctionName", "DistributionId", "PolicySourceArn")
    return next((repr(params[name]) for name in names if name in params), None)


def _require_aws(response_dict: Mapping[str, Any], **_: Any) -> None:  # noqa: ANN401 - botocore's
    """Raise an error for an answer without the ID that every service of AWS gives to a request."""
    status = response_dict["status_code"]
    is_failure = status >= _HTTP_ERROR  # of a proxy, perhaps: botocore retries it
    is_denial_of_emulator = status in _DENIED_STATUSES and b"AccessDenied" in response_dict["body"]
    has_id = any(name in response_dict["headers"] for name in _REQUEST_IDS)
    if not (is_failure or is_denial_of_emulator or has_id):
        raise UsageError("the endpoint does not answer as AWS does", hint=_ENDPOINT)


def _add_request(parsed: dict[str, Any], context: Mapping[str, Any], **_: Any) -> None:  # noqa: ANN401 - botocore's
    if _REQUEST in context:
        parsed.setdefault("ResponseMetadata", {})[_REQUEST] = context[_REQUEST]
