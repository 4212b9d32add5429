"""How slow this machine is at the moment: limits in seconds are for one that is not."""

import statistics
import time
from collections.abc import Callable

from pwdlib.hashers.argon2 import Argon2Hasher

# What hashing one password takes on a core of the machine that the limits were set on.
REFERENCE_SECONDS = 0.021
_HASHER = Argon2Hasher(time_cost=2, memory_cost=19456, parallelism=1)


def slowness(clock: Callable[[], float] = time.monotonic, rounds: int = 9) -> float:
    """Return how many times as long as there a fixed piece of work takes here and now, and 1 where it is faster.

    By the default clock others count who are using the machine; by `time.process_time` they do not.
    """
    _HASHER.hash("the first one takes longer")
    times = []
    for _ in range(rounds):
        begun_at = clock()
        _HASHER.hash("a long enough phrase")
        times.append(clock() - begun_at)
    return max(1.0, statistics.median(times) / REFERENCE_SECONDS)
