"""The results of ``fairway doctor``, and how they are printed. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final

from scripts.fairway.prices import price_publish, price_requests, price_viewers
from scripts.fairway.terminal import format_table


class State(Enum):
    """The result of a step."""

    PASSED = "passed"
    FAILED = "failed"
    NOT_ENFORCED = "not enforced"  # by this emulator; on AWS, the step would have failed
    NOT_RUN = "not run"  # a step that it needs did not pass


@dataclass(frozen=True, kw_only=True, slots=True)
class Usage:
    """What a step used."""

    seconds: float = 0.0
    requests: Mapping[str, int] = field(default_factory=dict)
    """The command's own requests to S3: ``{operation: count}``."""
    viewer_requests: int = 0
    sent_bytes: int = 0
    """To viewers."""
    indexed: int = 0
    """Runs of the indexer that the step led to: an estimate."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """The result of one step."""

    name: str
    state: State
    detail: str
    hint: str | None = None
    usage: Usage = field(default_factory=Usage)

    @property
    def dollars(self) -> float:
        """About what the step cost, at list prices."""
        return (
            price_requests(self.usage.requests)
            + price_viewers(self.usage.viewer_requests, sent_bytes=self.usage.sent_bytes)
            + self.usage.indexed * _RUN_DOLLARS
        )


# One run of the indexer for one artifact in a small subdir, as docs/performance.md measures it.
_RUN_DOLLARS: Final = price_publish({"PutObject": 12, "GetObject": 20}, seconds=0.5)
_HEADINGS: Final = ("STEP", "RESULT", "SECONDS", "DOLLARS", "")


def is_healthy(results: Sequence[Result]) -> bool:
    """Tell whether no step failed, and each was run."""
    return all(result.state in {State.PASSED, State.NOT_ENFORCED} for result in results)


def to_json(results: Sequence[Result]) -> dict[str, Any]:
    """Return the document that ``--json`` prints."""
    return {
        "healthy": is_healthy(results),
        "seconds": round(sum(result.usage.seconds for result in results), 1),
        "dollars": round(sum(result.dollars for result in results), 6),
        "steps": [
            {
                "name": result.name,
                "state": result.state.value,
                "detail": result.detail,
                "hint": result.hint,
                "seconds": round(result.usage.seconds, 1),
                "dollars": round(result.dollars, 6),
                "requests": dict(result.usage.requests),
                "viewer_requests": result.usage.viewer_requests,
            }
            for result in results
        ],
    }


def format_results(results: Sequence[Result]) -> list[str]:
    """Return the results as lines for people."""
    rows = [
        (
            result.name,
            result.state.value,
            f"{result.usage.seconds:.1f}",
            f"{result.dollars:.4f}",
            result.detail,
        )
        for result in results
    ]
    lines = format_table(_HEADINGS, rows)
    for result in results:
        if result.state is State.FAILED:
            lines += ["", f"{result.name}: {result.detail}"]
            if result.hint:
                lines.append(f"  hint: {result.hint}")
    seconds = sum(result.usage.seconds for result in results)
    dollars = sum(result.dollars for result in results)
    verdict = "healthy" if is_healthy(results) else "not healthy"
    return [*lines, "", f"{verdict}; {seconds:.0f} s, about ${dollars:.4f} at list prices"]
