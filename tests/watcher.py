"""Ends what the tests have started when they end, also when they are killed.

`watch` runs this file as a process whose standard input is a pipe. The pipe closes when the process that called `watch`
ends, whatever ends it.
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

# An environment variable that what we start inherits.
MARK = "TESTS_DIRECTORY"
SECONDS_TO_STOP = 20


def watch(directory: Path) -> None:
    """When this process ends, end every process that it has started and that is marked with the directory.

    Remove the directory, too, if this process was killed.
    """
    os.environ[MARK] = f"{directory}/"
    watcher = subprocess.Popen(
        [sys.executable, __file__, os.environ[MARK]], stdin=subprocess.PIPE, start_new_session=True
    )
    # What is registered first runs last: when the servers that this process holds have been stopped.
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
    """Find the processes with the mark in their environment, or in their command line, as PostgreSQL has it."""
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            is_marked = any(mark in text for text in (*process.cmdline(), *process.environ().values()))
            if is_marked and process.pid != os.getpid():
                yield process


if __name__ == "__main__":
    main(sys.argv[1])
