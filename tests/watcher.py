"""Ends the processes that a test run started, even if the run is killed.

`watch` runs this file as a process whose standard input is a pipe. The pipe closes when the process that called `watch`
ends for any reason.
"""

import atexit
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil

# An environment variable that all child processes inherit.
MARK = "TESTS_DIRECTORY"
SECONDS_TO_STOP = 20


def watch(directory: Path) -> None:
    """When this process ends, end all processes that it started and marked with the directory.

    Also remove the directory if this process was killed.
    """
    os.environ[MARK] = f"{directory}/"
    watcher = subprocess.Popen(
        [sys.executable, __file__, os.environ[MARK]], stdin=subprocess.PIPE, start_new_session=True
    )
    # atexit runs handlers in reverse order: this one runs after the servers of this process have stopped.
    atexit.register(watcher.communicate, b"not killed")


def main(mark: str) -> None:
    was_killed = not sys.stdin.read()
    while processes := list(find(mark)):
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.terminate()
        for process in psutil.wait_procs(processes, timeout=SECONDS_TO_STOP)[1]:
            with suppress(psutil.NoSuchProcess):
                process.kill()
    if was_killed:
        shutil.rmtree(mark, ignore_errors=True)


def find(mark: str) -> Iterator[psutil.Process]:
    """Find processes with the mark in their environment or, as for PostgreSQL, in their command line."""
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            is_marked = any(mark in text for text in (*process.cmdline(), *process.environ().values()))
            if is_marked and process.pid != os.getpid():
                yield process


if __name__ == "__main__":
    main(sys.argv[1])
