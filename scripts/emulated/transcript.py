"""Tells people, or programs, what is being done and how long it took."""

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
    """Steps with facts; for people as they happen, for programs at the end."""

    as_json: bool = False
    before_seconds: float = 0.0  # what was done before, and counts
    _steps: list[dict[str, object]] = field(default_factory=list)
    _facts: list[dict[str, object]] = field(default_factory=list)
    _started: float = field(default_factory=time.monotonic)
    _since: float = field(default_factory=time.monotonic)

    @property
    def _people(self) -> TextIO:
        """Where people read: not where programs do."""
        return sys.stderr if self.as_json else sys.stdout

    def announce(self, title: str, fact: str, seconds: float) -> None:
        """Tell a fact of the step with this title, which begins unless it has."""
        if not self._steps or self._steps[-1]["step"] != title:
            self.begin(title)
        self.tell(fact, seconds)

    def begin(self, title: str) -> None:
        """Start the next step; facts belong to it from now on."""
        self._facts = []
        self._steps.append({"step": title, "facts": self._facts})
        self._since = time.monotonic()
        print(f"\n{len(self._steps)}. {title}", file=self._people, flush=True)

    def tell(self, fact: str, seconds: float | None = None) -> None:
        """Say what is so now, and how long it took: since the last fact, unless told."""
        now = time.monotonic()
        took = now - self._since if seconds is None else seconds
        self._since = now
        self._facts.append({"fact": fact, "seconds": round(took, 3)})
        print(f"{took:8.2f} s  " + fact.replace("\n", "\n" + 12 * " "), file=self._people, flush=True)

    def restart_clock(self) -> None:
        """Count the time of the next fact from now on."""
        self._since = time.monotonic()

    @contextmanager
    def judged(self) -> Iterator[None]:
        """Say at the end of the block whether all of it was so."""
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
                verdict = {"ok": error is None, "seconds": round(took, 3), "error": error, "steps": self._steps}
                print(json.dumps(verdict, indent=2), flush=True)
            if error is None:
                print(f"\nAll of it was so, in {took:.1f} s.", file=self._people, flush=True)
