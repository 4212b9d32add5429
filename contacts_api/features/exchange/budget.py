"""Limit the CPU time of an import."""

import asyncio
from collections.abc import Callable
from threading import Event
from time import thread_time
from typing import TypeVar

from contacts_api.features.exchange.files import TooSlow

# Twice the time of a file of empty lines, and at least five times that of other files. See docs/decisions.md.
SECONDS, SECONDS_PER_ROW, SECONDS_PER_MB = 5.0, 0.001, 4.0

T = TypeVar("T")


class Stopped(Exception):  # noqa: N818 (not an error)
    """The import was cancelled."""


class Budget:
    """Runs the work of one import in threads, and stops it if it takes too long or is cancelled.

    The work must call `check` between rows, and between pieces of the file.
    """

    def __init__(self, size: int) -> None:
        """`size` is the size of the file in bytes."""
        self._left = SECONDS + SECONDS_PER_MB * size / 1_000_000
        self._deadline = 0.0
        self._is_stopped = Event()

    async def run(self, work: Callable[[], T]) -> T:
        """Run the work in a thread. If cancelled, wait until the work stops at its next `check`.

        Raises TooSlow.
        """
        working = asyncio.ensure_future(asyncio.to_thread(self._run, work))
        try:
            return await asyncio.shield(working)
        except asyncio.CancelledError:
            self._is_stopped.set()
            await asyncio.gather(working, return_exceptions=True)
            raise

    def _run(self, work: Callable[[], T]) -> T:
        # `thread_time` counts per thread, so set a new deadline for this one.
        self._deadline = thread_time() + self._left
        try:
            return work()
        finally:
            self._left = self._deadline - thread_time()

    def add_row(self) -> None:
        """Allow the time for one more row."""
        self._deadline += SECONDS_PER_ROW

    def check(self, line: int = 0) -> None:
        """Raise TooSlow if the time is up, or Stopped if the import was cancelled.

        `line` is the current line of the file, for the message.
        """
        if self._is_stopped.is_set():
            raise Stopped
        if thread_time() > self._deadline:
            place = f"It was given up after line {line:,}. " if line else ""
            raise TooSlow(f"{place}{TooSlow.advice}")
