"""The distribution: behaviours, caching, headers."""

import json
from typing import Any

import pytest

from infra.delivery import immutable_patterns, metadata_patterns
from lambdas.access.decisions import compile_rules
from lambdas.access.document import AccessDocument
from lambdas.authorizer.answers import answer_request
from lambdas.channel.layout import is_immutable_filename
from scripts.emulated.cloudfront import Behaviour, find_behaviour, parse_behaviours
from tests.access_documents import make_request
from tests.infra.synthesis import Synthesis, find_values

pytestmark = pytest.mark.xdist_group("synthesis")


def behaviours(synthesis: Synthesis) -> dict[str, dict[str, Any]]:
    config = synthesis.only("AWS::CloudFront::Distribution")["Properties"]["DistributionConfig"]
    return {"*": config["DefaultCacheBehavior"], **{each["PathPattern"]: each for each in config["CacheBehaviors"]}}


def referred(synthesis: Synthesis, reference: dict[str, str], resource_type: str) -> dict[str, Any]:
    (found,) = [each for each in synthesis.resources(resource_type) if each["Id"] == reference["Ref"]]
    properties: dict[str, Any] = found["Properties"]
    return properties


@pytest.mark.parametrize("which", ["plain", "full", "other_region", "emulated"])
def test_behaviours__all_run_the_authorizer(which: str, request: pytest.FixtureRequest) -> None:
    synthesis: Synthesis = request.getfixturevalue(which)
    found = behaviours(synthesis)
    immutable = {"*.conda", "*.tar.bz2", "*.msgpack.zst"}
    assert set(found) == {"*", "*/repodata_shards.msgpack.zst", "*.conda.sigs", "*.tar.bz2.sigs", *immutable}
    versions = set()
    for behaviour in found.values():
        versions.add(json.dumps(functions_of(behaviour)["viewer-request"]))
        assert "FunctionAssociations" not in behaviour
    assert len(versions) == 1


@pytest.mark.parametrize("which", ["plain", "full", "other_region", "emulated"])
def test_behaviours__that_run_the_origin_response_function(which: str, request: pytest.FixtureRequest) -> None:
    found = behaviours(request.getfixturevalue(which))
    marks = {pattern: functions_of(behaviour).get("origin-response") for pattern, behaviour in found.items()}
    assert marks.pop("*") is None
    assert marks.pop("*/repodata_shards.msgpack.zst") is None
    assert None not in marks.values()
    assert len({json.dumps(version) for version in marks.values()}) == 1
    assert marks["*.conda"] != functions_of(found["*.conda"])["viewer-request"]
    for behaviour in found.values():
        assert set(functions_of(behaviour)) <= {"viewer-request", "origin-response"}


def functions_of(behaviour: dict[str, Any]) -> dict[str, Any]:
    associations = behaviour["LambdaFunctionAssociations"]
    assert not any(each.get("IncludeBody") for each in associations)
    found = {each["EventType"]: each["LambdaFunctionARN"] for each in associations}
    assert len(found) == len(associations)
    return found


def test_behaviours__allow_get_and_head_over_https_alone(full: Synthesis) -> None:
    for behaviour in behaviours(full).values():
        assert set(behaviour["AllowedMethods"]) == {"GET", "HEAD"}
        # Before a redirect, the credential would have been sent in clear text.
        assert behaviour["ViewerProtocolPolicy"] == "https-only"


def test_behaviours__cache_by_path_alone(full: Synthesis) -> None:
    for behaviour in behaviours(full).values():
        policy = referred(full, behaviour["CachePolicyId"], "AWS::CloudFront::CachePolicy")["CachePolicyConfig"]
        parameters = policy["ParametersInCacheKeyAndForwardedToOrigin"]
        assert parameters["CookiesConfig"] == {"CookieBehavior": "none"}
        assert parameters["HeadersConfig"] == {"HeaderBehavior": "none"}
        assert parameters["QueryStringsConfig"] == {"QueryStringBehavior": "none"}
        assert "OriginRequestPolicyId" not in behaviour
        assert "ForwardedValues" not in behaviour


@pytest.mark.parametrize(
    ("pattern", "max_seconds"),
    [
        ("*", 30),
        ("*/repodata_shards.msgpack.zst", 30),
        ("*.conda", 31536000),
        ("*.tar.bz2", 31536000),
        ("*.msgpack.zst", 31536000),
    ],
)
def test_behaviours__ttl(full: Synthesis, pattern: str, max_seconds: int) -> None:
    policy = referred(full, behaviours(full)[pattern]["CachePolicyId"], "AWS::CloudFront::CachePolicy")
    # Without a Cache-Control of its own, nothing is kept longer than metadata, in any behaviour.
    assert policy["CachePolicyConfig"]["DefaultTTL"] == 30
    assert policy["CachePolicyConfig"]["MinTTL"] == 0  # the object's own Cache-Control has priority
    # Whatever Cache-Control or Expires an upload has: only artifacts and shards are kept for long.
    assert policy["CachePolicyConfig"]["MaxTTL"] == max_seconds


CACHING_OPTIMIZED = "658327ea-f89d-4fab-a63d-7e88639e58f6"  # AWS's; minimum 1 s, default 24 h, maximum a year


def test_behaviours__managed_cache_policies(managed: Synthesis, full: Synthesis) -> None:
    assert not managed.resources("AWS::CloudFront::CachePolicy")
    found = behaviours(managed)
    assert found.keys() == behaviours(full).keys()
    for behaviour in found.values():
        assert behaviour["CachePolicyId"] == CACHING_OPTIMIZED
        # What has no Cache-Control would be kept for a day.
        assert set(functions_of(behaviour)) == {"viewer-request", "origin-response"}
        assert behaviour["ViewerProtocolPolicy"] == "https-only"
        assert not behaviour.keys() & {"OriginRequestPolicyId", "ForwardedValues"}


def test_behaviours__own_cache_policies_are_the_default(plain: Synthesis) -> None:
    assert len(plain.resources("AWS::CloudFront::CachePolicy")) == 2
    assert CACHING_OPTIMIZED not in {json.dumps(each["CachePolicyId"]) for each in behaviours(plain).values()}


CHANNELS = ("team", "shards", "x.conda", "x.tar.bz2", "repodata_shards.msgpack.zst", "y.msgpack.zst", "0" * 41)
TOKENS = (
    "",
    "fw-token",
    "shards",
    "x.conda",
    "x.tar.bz2",
    "x.msgpack.zst",
    "repodata_shards.msgpack.zst",
    "..",
    ".",
    "t",
    "%2E%2E",
    "a%2Fshards%2Fb.conda",
    "*",
    "x" * 300,
)
FILES = (
    "",
    "notices.json",
    "index.html",
    "channeldata.json",
    "noarch/",
    "noarch/repodata.json",
    "noarch/repodata.json.zst",
    "noarch/repodata_shards.msgpack.zst",
    "noarch/tool-1.0-0.conda",
    "noarch/tool-1.0%2Bcu1-0.tar.bz2",
    "noarch/tool-1.0-0.conda.sigs",
    f"noarch/tool-1.0-0.conda.sigs.{'0' * 64}",
    "noarch/patch_instructions.json",
    f"noarch/shards/{'0' * 64}.msgpack.zst",
    f"noarch/shards/{'0' * 64}.msgpack.zst/",
    "noarch/shards/repodata_shards.msgpack.zst",
    "noarch/shards/",
    "shards/index.html",
    "shards/notices.json",
    "x.conda/notices.json",
    "noarch/x.conda/",
    "noarch/TOOL-1.0-0.CONDA",
    "noarch/.conda",
    "noarch/x.conda.",
    "noarch/other.msgpack.zst",
    "noarch/my-repodata_shards.msgpack.zst",
    # Spelled so that CloudFront has to decode them to find their behaviour.
    "noarch/tool-1.0-0%2Econda",
    "noarch/tool-1.0-0.cond%61",
    "noarch/tool-1.0-0.tar%2ebz2",
    "noarch/repodata%5Fshards.msgpack.zst",
    "noarch/shards/0.msgpack%2Ezst",
    "noarch/shards%2F0.msgpack.zst",
    "noarch/notices.json%3F.conda",
    "noarch/notices.json%23.conda",
    "noarch/notices.json;.conda",
    "noarch//x.conda",
    "noarch/./x.conda",
    "noarch/x.conda/..",
    "noarch/x.conda/.",
    "noarch/../x.conda",
)


def find_patterns(synthesis: Synthesis) -> tuple[Behaviour, ...]:
    """Return the behaviours in the order in which CloudFront tries them, the default last."""
    config = synthesis.only("AWS::CloudFront::Distribution")["Properties"]["DistributionConfig"]
    patterns = [{"PathPattern": each["PathPattern"]} for each in config["CacheBehaviors"]]
    return parse_behaviours({"CacheBehaviors": {"Items": patterns}, "DefaultCacheBehavior": {}})


def find_without_normalising(patterns: tuple[Behaviour, ...], path: str) -> Behaviour:
    return next(each for each in patterns if each.pattern.fullmatch(path))


@pytest.mark.parametrize("file", FILES)
def test_behaviours__attack_url_of_another_behaviour_than_its_key(full: Synthesis, file: str) -> None:
    patterns = find_patterns(full)
    first = len(metadata_patterns())
    immutable = patterns[first : first + len(immutable_patterns())]
    rules = compile_rules(AccessDocument(), public_globs=("*",))  # whatever stands where a token does
    forwarded = 0
    for channel in CHANNELS:
        for url in (
            f"/{channel}/{file}",
            *(f"/{t}/{token}/{channel}/{file}" for token in TOKENS for t in ("t", "%74")),
        ):
            answer = answer_request(make_request(url), rules, now=0)
            if "status" in answer:
                continue  # nothing is fetched, nothing is cached
            forwarded += 1
            expected = find_without_normalising(patterns, answer["uri"])
            # AWS does not say how far it normalises a URL before it matches: it must not matter.
            assert find_behaviour(patterns, url) is expected, url
            assert find_without_normalising(patterns, url) is expected, url
            is_immutable = expected in immutable
            assert is_immutable == is_immutable_filename(answer["uri"].rpartition("/")[2]), url
    assert forwarded or "%" in file or "//" in file or "/." in file or ";" in file


@pytest.mark.parametrize(
    ("pattern", "compress"), [("*", True), ("*.conda", False), ("*.tar.bz2", False), ("*.msgpack.zst", False)]
)
def test_behaviours__compress_text_alone(full: Synthesis, pattern: str, *, compress: bool) -> None:
    behaviour = behaviours(full)[pattern]
    policy = referred(full, behaviour["CachePolicyId"], "AWS::CloudFront::CachePolicy")["CachePolicyConfig"]
    parameters = policy["ParametersInCacheKeyAndForwardedToOrigin"]
    assert behaviour["Compress"] is compress
    assert parameters["EnableAcceptEncodingGzip"] is compress
    assert parameters["EnableAcceptEncodingBrotli"] is compress


def test_headers__are_secure_and_never_set_an_encoding(full: Synthesis) -> None:
    for behaviour in behaviours(full).values():
        config = referred(full, behaviour["ResponseHeadersPolicyId"], "AWS::CloudFront::ResponseHeadersPolicy")[
            "ResponseHeadersPolicyConfig"
        ]
        security = config["SecurityHeadersConfig"]
        assert security["StrictTransportSecurity"]["AccessControlMaxAgeSec"] == 31536000
        assert security["ContentTypeOptions"] == {"Override": True}
        assert security["ReferrerPolicy"]["ReferrerPolicy"] == "no-referrer"
        assert security["ContentSecurityPolicy"]["ContentSecurityPolicy"].startswith("default-src 'none';")
        assert "script-src" not in security["ContentSecurityPolicy"]["ContentSecurityPolicy"]
        assert "ncoding" not in json.dumps(config)


def test_headers__set_no_cache_control(full: Synthesis) -> None:
    # A policy can't tell files from errors: a 404 would be cached as long as a file.
    for policy in full.resources("AWS::CloudFront::ResponseHeadersPolicy"):
        assert "ache-" not in json.dumps(policy["Properties"])
        assert "CustomHeadersConfig" not in policy["Properties"]["ResponseHeadersPolicyConfig"]


def test_distribution__signs_every_request_to_the_bucket(full: Synthesis) -> None:
    control = full.only("AWS::CloudFront::OriginAccessControl")
    assert control["Properties"]["OriginAccessControlConfig"]["SigningBehavior"] == "always"
    assert control["Properties"]["OriginAccessControlConfig"]["SigningProtocol"] == "sigv4"
    config = full.only("AWS::CloudFront::Distribution")["Properties"]["DistributionConfig"]
    (origin,) = config["Origins"]
    assert origin["OriginAccessControlId"] == {"Fn::GetAtt": [control["Id"], "Id"]}
    assert config["DefaultRootObject"] == "index.html"


def test_distribution__caches_errors_for_a_moment(full: Synthesis) -> None:
    config = full.only("AWS::CloudFront::Distribution")["Properties"]["DistributionConfig"]
    ttls = {each["ErrorCode"]: each["ErrorCachingMinTTL"] for each in config["CustomErrorResponses"]}
    # All that CloudFront knows; any other is cached for ten seconds.
    assert set(ttls) == {400, 403, 404, 405, 414, 416, 500, 501, 502, 503, 504}
    assert max(ttls.values()) <= 5
    assert not list(find_values(config["CustomErrorResponses"], "ResponseCode"))  # a 404 stays a 404


def test_distribution__protocols(full: Synthesis) -> None:
    config = full.only("AWS::CloudFront::Distribution")["Properties"]["DistributionConfig"]
    assert config["HttpVersion"] == "http2and3"
    assert config["Aliases"] == ["conda.example.com"]
    assert config["ViewerCertificate"]["MinimumProtocolVersion"] == "TLSv1.2_2021"
    assert config["ViewerCertificate"]["SslSupportMethod"] == "sni-only"
