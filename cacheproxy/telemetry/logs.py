"""Sets up the log: its destination, and lines for people or JSON lines for programs.

A record may carry `fields`, a mapping: lines for people show it behind the message, JSON lines as
members of the object. A traceback shows the place and the type of an exception, but not its
message, which may quote a request.
"""

import logging
import sys
import traceback
from collections.abc import Iterator
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

import orjson

from cacheproxy.settings.sections import LogFormat

_ExceptionInfo = tuple[type[BaseException], BaseException, TracebackType | None]


def start_logging(level: str, form: LogFormat, *, process_id: bool) -> None:
    """Log to standard error from a level upwards, with the process id in each line if asked to."""
    handler = logging.StreamHandler(sys.stderr)
    who = "[%(process)d] " if process_id else ""
    handler.setFormatter(
        _JsonFormatter()
        if form == "json"
        else _HumanFormatter(f"%(asctime)s %(levelname)-7s {who}%(name)s: %(message)s")
    )
    logging.basicConfig(level=level.upper(), handlers=[handler])
    logging.getLogger("uvicorn").setLevel(logging.WARNING)


def set_level(level: str) -> None:
    """Log from this level upwards from now on."""
    logging.getLogger().setLevel(level.upper())


class _HumanFormatter(logging.Formatter):
    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        fields = getattr(record, "fields", {})
        return " ".join([super().formatMessage(record), *_pairs(fields)])

    def formatException(self, ei: Any) -> str:  # noqa: N802
        return _tell_exception(ei)


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "process": record.process,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info and record.exc_info[0] is not None:
            line["traceback"] = _tell_exception(record.exc_info)
        return orjson.dumps(line).decode()


def _pairs(fields: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in fields.items():
        if isinstance(value, dict):
            yield from _pairs(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}={value}"


def _tell_exception(info: _ExceptionInfo) -> str:
    kind, error, trace = info
    names = [kind.__qualname__]
    while (cause := error.__cause__ or error.__context__) is not None:
        names.append(type(cause).__qualname__)
        error = cause
    return "".join(traceback.format_tb(trace)) + " because of ".join(names)
