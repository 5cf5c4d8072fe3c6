"""What the authorizer costs: its zip, its start against boto3's, a decision, memory, a small share of a core.

    python -m tests.benchmarks.bench_authorizer

Prints one JSON document. Imports and processes are timed in fresh interpreters, both kinds alternately,
so that a busy machine slows both.
"""

import io
import json
import statistics
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lambdas.access.decisions import compile_rules
from lambdas.access.document import AccessDocument, ChannelRule, Visibility, encode_access, parse_access
from lambdas.authorizer.answers import answer_request
from scripts.benchmarks.processor_share import measure_share
from tests.access_documents import (
    NOW,
    format_basic,
    make_claims,
    make_document,
    make_identity,
    make_issuer,
    make_request,
    make_secret,
    make_token,
)

ROOT = Path(__file__).parents[2]
TOKENS = 4_000
CHANNELS = 1_000
ROUNDS = 15
SHARE_ROUNDS = 5
DECISIONS = 20_000

_TIME_IMPORT = """
import sys, time
sys.path.insert(0, {root!r})
start = time.perf_counter()
import {module}
print(time.perf_counter() - start)
"""

_MEASURE_MEMORY = """
import resource, sys, time
sys.path.insert(0, {root!r})
from lambdas.authorizer.rules import FetchedDocument, RulesCache
from lambdas.authorizer import source
import http.client, ssl
body = sys.stdin.buffer.read()
class Source:
    def fetch(self, etag):
        return FetchedDocument(body=body, etag="1")
rules_cache = RulesCache(Source(), public_globs=(), refresh_seconds=30, stale_seconds=900, report=print)
start = time.perf_counter()
assert rules_cache.current(1790000000.0)
first = time.perf_counter() - start
assert rules_cache.current(1790000100.0)  # a new document while the old one is in memory: the peak
print(first, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def make_large_document() -> AccessDocument:
    """Return 4,000 tokens over 1,000 channels, with an issuer."""
    tokens = [
        make_token(
            make_secret(number),
            f"channel-{number % CHANNELS}",
            f"lab-{number % 7}-*",
            packages=["foo", f"bar-{number % 13}-*"] if number % 5 == 0 else None,
            name=f"token-{number}",
        )
        for number in range(TOKENS)
    ]
    document = make_document(*tokens, issuers=[make_issuer("channel-1")])
    channels = {
        f"channel-{number}": ChannelRule(visibility=Visibility.PUBLIC if number % 3 == 0 else Visibility.PRIVATE)
        for number in range(CHANNELS)
    }
    return AccessDocument(channels=channels, tokens=document.tokens, issuers=document.issuers)


def measure_import_seconds(module: str) -> float:
    """Import a module in a fresh interpreter."""
    code = _TIME_IMPORT.format(root=str(ROOT), module=module)
    return float(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout)


def measure_imports() -> dict[str, Any]:
    """Time the imports of the handler and of boto3, in turns."""
    handler = "lambdas.authorizer.handler"
    modules = (handler, f"{handler}, http.client, ssl", "boto3")
    rounds = [[measure_import_seconds(module) for module in modules] for _ in range(ROUNDS)]
    start, first_request, boto3 = (statistics.median(column) for column in zip(*rounds, strict=True))
    return {
        "import_handler_ms": round(start * 1e3, 1),
        "import_with_first_request_ms": round(first_request * 1e3, 1),  # imported by the first request to S3
        "import_boto3_ms": round(boto3 * 1e3, 1),
        "import_ratio": round(start / boto3, 3),
        "import_with_first_request_ratio": round(first_request / boto3, 3),
    }


def measure_call_us(call: Callable[[], object]) -> float:
    """Return the median of many calls."""
    times = []
    for _ in range(DECISIONS):
        start = time.perf_counter_ns()
        call()
        times.append(time.perf_counter_ns() - start)
    return round(statistics.median(times) / 1e3, 2)


def measure_decisions(document: AccessDocument) -> dict[str, float]:
    """Time whole answers: the event's request in, the rewritten request or the response out."""
    rules = compile_rules(document, public_globs=("pub-*", "*-open"))
    secret, identity = make_secret(2501), make_identity(make_claims())
    requests = {
        "path_token": make_request(f"/t/{secret}/channel-501/noarch/foo-1.0-0.conda"),
        "basic": make_request("/channel-501/noarch/foo-1.0-0.conda", authorization=format_basic("ada", secret)),
        "narrow_glob": make_request(f"/t/{make_secret(5)}/lab-5-x/noarch/bar-5-y-1.0-0.conda"),
        "identity_remembered": make_request("/channel-1/noarch/x.json", authorization=f"Bearer {identity}"),
        "public": make_request("/channel-3/noarch/repodata.json"),
        "no_credentials": make_request("/channel-1/noarch/repodata.json"),
        "wrong_token": make_request(f"/t/{make_secret(999_999)}/channel-1/noarch/repodata.json"),
        "no_scope": make_request(f"/t/{secret}/channel-2/noarch/repodata.json"),
        "malformed": make_request("/channel-1/%2e%2e/x"),
    }
    times = {
        f"decision_{name}_us": measure_call_us(lambda request=request: answer_request(request, rules, now=NOW))  # type: ignore[misc]  # bound in the loop
        for name, request in requests.items()
    }

    def verify() -> None:
        rules.remembered.clear()
        answer_request(requests["identity_remembered"], rules, now=NOW)

    return {**times, "decision_identity_first_us": measure_call_us(verify)}


def measure_memory(body: bytes) -> dict[str, Any]:
    """Load the large document in a fresh process; its peak includes TLS and HTTP."""
    code = _MEASURE_MEMORY.format(root=str(ROOT))
    done = subprocess.run([sys.executable, "-c", code], input=body, capture_output=True, check=True)
    seconds, kibibytes = done.stdout.split()
    return {"load_ms": round(float(seconds) * 1e3, 1), "peak_memory_mib": round(int(kibibytes) / 1024, 1)}


def measure_zip_bytes() -> int:
    """Pack what the function's zip holds."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for folder in ("lambdas/channel", "lambdas/authorizer"):
            for path in sorted((ROOT / folder).rglob("*.py")):
                archive.write(path, path.relative_to(ROOT))
    return len(packed.getvalue())


def measure_authorizer() -> dict[str, Any]:
    """Measure everything."""
    document = make_large_document()
    body = encode_access(document)
    return {
        "tokens": TOKENS,
        "channels": CHANNELS,
        "document_bytes": len(body),
        "zip_bytes": measure_zip_bytes(),
        **measure_imports(),
        **measure_decisions(parse_access(body)),
        **measure_memory(body),
        **measure_share(body, "/channel-3/noarch/repodata.json", repeats=SHARE_ROUNDS),
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(measure_authorizer(), indent=2) + "\n")
