import pytest
from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given
from hypothesis import strategies as st

from lambdas.authorizer.sigv4 import EMPTY_SHA256, AwsCredentials, sign_get

SUITE = AwsCredentials(access_key_id="AKIDEXAMPLE", secret_access_key="wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
MANUAL = AwsCredentials(
    access_key_id="AKIAIOSFODNN7EXAMPLE", secret_access_key="wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
)


def sign(path: str, headers: dict[str, str]) -> str:
    """Sign as AWS's published Signature Version 4 test suite does; return the signature."""
    signed = sign_get(
        host="example.amazonaws.com",
        path=path,
        headers=headers,
        credentials=SUITE,
        region="us-east-1",
        service="service",
        timestamp="20150830T123600Z",
    )
    return signed["authorization"].rpartition("Signature=")[2]


@pytest.mark.parametrize(
    ("path", "headers", "signature"),
    [
        ("/", {}, "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"),  # get-vanilla
        (  # get-header-value-trim
            "/",
            {"My-Header1": " value1", "My-Header2": ' "a   b   c"'},
            "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736",
        ),
        (  # get-unreserved
            "/-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz",
            {},
            "07ef7494c76fa4850883e2b006601f940f8a34d404d0cfa977f52a65bbf5f24f",
        ),
    ],
)
def test_sign_get__published_test_suite(path: str, headers: dict[str, str], signature: str) -> None:
    assert sign(path, headers) == signature


def test_sign_get__example_of_the_s3_manual() -> None:
    # "Example: GET Object", Signature Calculations for the Authorization Header, S3 API reference.
    signed = sign_get(
        host="examplebucket.s3.amazonaws.com",
        path="/test.txt",
        headers={"Range": "bytes=0-9", "x-amz-content-sha256": EMPTY_SHA256},
        credentials=MANUAL,
        region="us-east-1",
        service="s3",
        timestamp="20130524T000000Z",
    )
    assert signed["authorization"] == (
        "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request, "
        "SignedHeaders=host;range;x-amz-content-sha256;x-amz-date, "
        "Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"
    )


@given(
    path=st.from_regex(r"/[A-Za-z0-9._~/-]{0,40}", fullmatch=True).filter(lambda path: "//" not in path),
    etag=st.none() | st.from_regex(r'"[0-9a-f]{32}"', fullmatch=True),
    token=st.none() | st.text("abcdefABC123+/=", min_size=1, max_size=40),
    region=st.sampled_from(["us-east-1", "eu-central-1"]),
)
def test_sign_get__agrees_with_botocore(path: str, etag: str | None, token: str | None, region: str) -> None:
    headers = {"x-amz-content-sha256": EMPTY_SHA256}
    if etag is not None:
        headers["if-none-match"] = etag
    ours = sign_get(
        host="bucket.s3.eu-central-1.amazonaws.com",
        path=path,
        headers=headers,
        credentials=AwsCredentials(access_key_id="AKIA", secret_access_key="secret", session_token=token),
        region=region,
        service="s3",
        timestamp="20260131T120000Z",
    )
    request = AWSRequest("GET", f"https://bucket.s3.eu-central-1.amazonaws.com{path}", headers=headers)
    request.context["timestamp"] = "20260131T120000Z"
    theirs: SigV4Auth = S3SigV4Auth(Credentials("AKIA", "secret", token), "s3", region)
    request.headers["X-Amz-Date"] = "20260131T120000Z"
    if token is not None:
        request.headers["X-Amz-Security-Token"] = token
    canonical = theirs.canonical_request(request)
    signature = theirs.signature(theirs.string_to_sign(request, canonical), request)
    assert ours["authorization"].endswith(f"Signature={signature}")


def test_aws_credentials__secrets_stay_out_of_the_repr() -> None:
    text = repr(AwsCredentials(access_key_id="AKIA", secret_access_key="sEcReT", session_token="tOkEn"))
    assert "sEcReT" not in text
    assert "tOkEn" not in text
