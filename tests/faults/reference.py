"""Measures how slow this machine currently is, because limits in seconds were set on a faster, idle one."""

import statistics
import time
from collections.abc import Callable

from pwdlib.hashers.argon2 import Argon2Hasher

# The time to hash one password on a core of the machine that the limits were set on.
REFERENCE_SECONDS = 0.021
_HASHER = Argon2Hasher(time_cost=2, memory_cost=19456, parallelism=1)


def slowness(clock: Callable[[], float] = time.monotonic, rounds: int = 9) -> float:
    """Return the time of a fixed piece of work relative to the reference machine, at least 1.

    The default clock includes the load of other processes; `time.process_time` does not.
    """
    _HASHER.hash("the first one takes longer")
    times = []
    for _ in range(rounds):
        begun_at = clock()
        _HASHER.hash("a long enough phrase")
        times.append(clock() - begun_at)
    return max(1.0, statistics.median(times) / REFERENCE_SECONDS)
