"""The progress of an upload: one line on a terminal for each file, nothing elsewhere."""

from __future__ import annotations

import shutil
import sys
import time
from types import TracebackType
from typing import Final, Self

from scripts.fairway.terminal import escape

_REDRAW_SECONDS: Final = 0.1
_MINUTE: Final = 60
_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB")


class Progress:
    """Redraws a line on stderr while an upload proceeds."""

    def __init__(self, name: str, size: int, *, is_shown: bool) -> None:
        """Show nothing if stderr is no terminal, or unless ``is_shown``."""
        self._name = name
        self._size = size
        self._is_shown = is_shown and _is_terminal()
        self._started = time.monotonic()
        self._drawn = 0.0
        self._done = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the line; it shows the end of the upload, or where it failed."""
        if self._is_shown:
            self._draw()
            print(file=sys.stderr)

    def advance_to(self, done: int) -> None:
        """Show that so many bytes are sent; fewer than before if they are sent again."""
        if done < self._done:
            self._started = time.monotonic()
        self._done = done
        if self._is_shown and time.monotonic() - self._drawn >= _REDRAW_SECONDS:
            self._draw()

    def _draw(self) -> None:
        self._drawn = time.monotonic()
        line = format_progress(self._name, self._done, self._size, self._drawn - self._started)
        columns = shutil.get_terminal_size().columns - 1
        print(f"\r{line[:columns].ljust(columns)}", end="", file=sys.stderr, flush=True)


def _is_terminal() -> bool:
    return sys.stderr.isatty()


def format_progress(name: str, done: int, size: int, seconds: float) -> str:
    """Return bytes, rate and time left as one line. Pure."""
    rate = done / seconds if seconds > 0 else 0.0
    parts = [escape(name), f"{format_bytes(done)} of {format_bytes(size)}", f"{format_bytes(round(rate))}/s"]
    if done >= size:
        parts.append(f"done in {_format_seconds(seconds)}")
    elif rate:
        parts.append(f"{_format_seconds((size - done) / rate)} left")
    return "  ".join(parts)


def format_bytes(size: int) -> str:
    """Return a size with a binary unit, such as ``1.5 MiB``."""
    amount, unit = float(size), 0
    while round(amount, 1) >= 1024 and unit < len(_UNITS) - 1:  # noqa: PLR2004 - the step between units
        amount, unit = amount / 1024, unit + 1
    return f"{size} B" if unit == 0 else f"{amount:.1f} {_UNITS[unit]}"


def _format_seconds(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), _MINUTE)
    hours, minutes = divmod(minutes, _MINUTE)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
