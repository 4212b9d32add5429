"""What is set for a whole process: open files, garbage collection, logging. Importing this module sets nothing."""

import gc
import logging
import os
from contextlib import suppress
from typing import Any

if os.name == "posix":
    import resource


def prepare_start() -> None:
    """Collect garbage seldom while modules load: at the usual rate it takes a tenth of the time, and finds nothing."""
    gc.set_threshold(200_000)


def prepare_worker() -> None:
    """Set up a process that serves requests. Call it when everything is imported."""
    # What is imported stays: a collection that walks all of it stops the worker for 40 ms.
    gc.collect()
    gc.freeze()
    # Looking through what comes after that takes a millisecond at most.
    gc.set_threshold(10_000)
    # The log names no threads and no processes, so none are looked up.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False


def allow_many_files() -> None:
    """Raise the limit on open files to the highest that is allowed: each connection takes one."""
    if os.name == "posix":
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        # macOS names a limit that it does not grant.
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def logging_at(level: str) -> dict[str, Any]:
    """Return the configuration of the log, for uvicorn to apply in each worker."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s: %(message)s"}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
        "root": {"handlers": ["stderr"]},
        # Not the root's level: SQLAlchemy would log every statement.
        "loggers": {"contacts_api": {"level": level}, "uvicorn": {"level": level}},
    }
