"""Retries a read-modify-write that another writer interfered with: the one bound and the one back-off."""

import random
import time
from collections.abc import Callable
from typing import Final, TypeVar

from lambdas.channel.errors import ConflictError, TransientError

MAX_ATTEMPTS: Final = 40
MAX_PAUSE_SECONDS: Final = 3.0

_FIRST_PAUSE_SECONDS: Final = 0.05
_Result = TypeVar("_Result")


def retry_conflicts(
    attempt: Callable[[], _Result],
    *,
    retry_on: type[TransientError] | tuple[type[TransientError], ...] = ConflictError,
    sleep: Callable[[float], None] = time.sleep,
) -> _Result:
    """Return what the attempt returns; repeat it while another writer interferes.

    Each attempt reads the current state again. Pauses grow and are random, so that writers don't collide again.

    Raises:
        TransientError: the last attempt failed as well.
    """
    for number in range(MAX_ATTEMPTS - 1):
        try:
            return attempt()
        except retry_on:
            longest = min(MAX_PAUSE_SECONDS, _FIRST_PAUSE_SECONDS * 2.0**number)
            sleep(random.uniform(0, longest))  # noqa: S311 - jitter, not a secret
    return attempt()
