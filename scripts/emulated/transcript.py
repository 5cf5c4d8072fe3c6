"""A transcript of steps and their durations, as text or as JSON."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TextIO


@dataclass(kw_only=True, slots=True)
class Transcript:
    """Steps with facts: printed as text as they happen, and as one JSON document at the end."""

    as_json: bool = False
    before_seconds: float = 0.0  # duration of earlier work, included in the total
    _steps: list[dict[str, object]] = field(default_factory=list)
    _facts: list[dict[str, object]] = field(default_factory=list)
    _started: float = field(default_factory=time.monotonic)
    _since: float = field(default_factory=time.monotonic)

    @property
    def _text_stream(self) -> TextIO:
        """The stream for text: stderr if stdout has the JSON document."""
        return sys.stderr if self.as_json else sys.stdout

    def report_step(self, title: str, fact: str, seconds: float) -> None:
        """Add a fact to the step with this title; start the step if it is not the current one."""
        if not self._steps or self._steps[-1]["step"] != title:
            self.begin(title)
        self.tell(fact, seconds)

    def begin(self, title: str) -> None:
        """Start the next step."""
        self._facts = []
        self._steps.append({"step": title, "facts": self._facts})
        self._since = time.monotonic()
        print(f"\n{len(self._steps)}. {title}", file=self._text_stream, flush=True)

    def tell(self, fact: str, seconds: float | None = None) -> None:
        """Add a fact to the current step; its duration is the time since the last fact unless given."""
        now = time.monotonic()
        took = now - self._since if seconds is None else seconds
        self._since = now
        self._facts.append({"fact": fact, "seconds": round(took, 3)})
        print(f"{took:8.2f} s  " + fact.replace("\n", "\n" + 12 * " "), file=self._text_stream, flush=True)

    def restart_clock(self) -> None:
        """Measure the duration of the next fact from now."""
        self._since = time.monotonic()

    @contextmanager
    def concluded(self) -> Iterator[None]:
        """Print the result when the block ends: success and the total duration, or the error as JSON."""
        error: str | None = "interrupted"
        try:
            yield
            error = None
        except Exception as failure:
            error = str(failure)
            raise
        finally:
            took = self.before_seconds + time.monotonic() - self._started
            if self.as_json:
                result = {"ok": error is None, "seconds": round(took, 3), "error": error, "steps": self._steps}
                print(json.dumps(result, indent=2), flush=True)
            if error is None:
                print(f"\nEvery step succeeded, in {took:.1f} s.", file=self._text_stream, flush=True)
