"""Settings of a process: open files, garbage collection, logging; and files that survive a power cut."""

import gc
import json
import logging
import os
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

if os.name == "posix":
    import resource


class CommandError(Exception):
    """Why a command cannot do what it should, in one line."""


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


def write_whole_file(path: Path, content: bytes) -> None:
    """Write a file that only its owner may read. After a power cut it is complete, or it is not there."""
    unfinished = path.with_name(f"{path.name}.part")
    with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)
    sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    """Write the names in a directory through to the disk."""
    if os.name == "posix":
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


class JsonFormatter(logging.Formatter):
    """Writes each record as one line of JSON: `time` (RFC 3339), `level`, `logger`, `message` and `exception`.

    A record that was logged with `extra={"members": …}` has these members as well.
    """

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line = {"time": moment, "level": record.levelname, "logger": record.name, "message": record.getMessage()}
        line |= getattr(record, "members", {})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def logging_at(level: str, format_: str) -> dict[str, Any]:
    """Return the configuration of the log, as `text` or `json`, for uvicorn to apply in each worker."""
    formatters = {
        "text": {"format": "%(asctime)s %(levelname)s %(name)s: %(message)s"},
        "json": {"()": JsonFormatter},
    }
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": formatters,
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": format_}},
        "root": {"handlers": ["stderr"]},
        # Not the root's level: SQLAlchemy would log every statement.
        "loggers": {"contacts_api": {"level": level}, "uvicorn": {"level": level}},
    }
