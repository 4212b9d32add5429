"""Process setup (garbage collection, open files, logging), and file writes that survive a power failure."""

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
    """A command failed. The message is one line for the user."""


def prepare_start() -> None:
    """Make garbage collection rare during imports. It would take a tenth of the time, and finds nothing."""
    gc.set_threshold(200_000)


def prepare_worker() -> None:
    """Set up a process that serves requests. Call it after all imports."""
    # Exclude imported objects from collections. Otherwise a full collection stops the worker for 40 ms.
    gc.collect()
    gc.freeze()
    # A collection of the remaining objects takes at most a millisecond.
    gc.set_threshold(10_000)
    # The log formats contain no threads or processes, so do not look them up.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False


def allow_many_files() -> None:
    """Raise the limit on open files to the maximum, because each connection needs one."""
    if os.name == "posix":
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        # macOS reports a maximum that it does not grant.
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def write_whole_file(path: Path, content: bytes) -> None:
    """Write a file that only its owner can read. After a power failure, it is either complete or absent."""
    unfinished = path.with_name(f"{path.name}.part")
    with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)
    sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    """Flush the entries of a directory to the disk."""
    if os.name == "posix":
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


class JsonFormatter(logging.Formatter):
    """Formats each record as one line of JSON: `time` (RFC 3339), `level`, `logger`, `message` and `exception`.

    Members from `extra={"members": …}` are added.
    """

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line = {"time": moment, "level": record.levelname, "logger": record.name, "message": record.getMessage()}
        line |= getattr(record, "members", {})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def logging_at(level: str, format_: str) -> dict[str, Any]:
    """Return a logging configuration with the format `text` or `json`. uvicorn applies it in each worker."""
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
        # Do not set the root's level, because SQLAlchemy would log every statement.
        "loggers": {"contacts_api": {"level": level}, "uvicorn": {"level": level}},
    }
