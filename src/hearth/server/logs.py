"""The one place that says how the daemon logs: one event a line on stderr, for people or as JSON, never a raw control
character from outside.
"""

from __future__ import annotations

import argparse
import logging
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

LogFormat = Literal["console", "json"]
LogLevel = Literal["debug", "info", "warning", "error"]
LEVELS: tuple[LogLevel, ...] = ("debug", "info", "warning", "error")
_LOGGER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*")


@dataclass(frozen=True, kw_only=True)
class Levels:
    """How much is told: by all, and by loggers that have a level of their own, with those below them."""

    everybody: LogLevel = "info"
    of: Mapping[str, LogLevel] = field(default_factory=dict)

    @property
    def lowest(self) -> int:
        """The most talkative of them, as the standard library numbers it."""
        return min(map(_number, (self.everybody, *self.of.values())))


def read_level(text: str) -> tuple[str, LogLevel]:
    """Read ``LEVEL`` or ``NAME=LEVEL``: the logger's name, empty for all, and the level."""
    name, equals, level = text.rpartition("=")
    if level not in LEVELS or (equals and not _LOGGER.fullmatch(name)):
        raise argparse.ArgumentTypeError(
            f"{text[:80]!r} is none of {', '.join(LEVELS)}, nor a logger with one of them, such as hearth.guest=debug"
        )
    return name, level


def levels_of(said: Sequence[tuple[str, LogLevel]]) -> Levels:
    """Give the levels that were said; the last of a name counts."""
    chosen = dict(said)
    return Levels(everybody=chosen.pop("", Levels().everybody), of=chosen)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare how the log is to be."""
    parser.add_argument("--log-format", choices=("console", "json"), default="console", help="for people, or programs")
    parser.add_argument(
        "--log-level",
        metavar="LEVEL",
        action="append",
        default=[],
        type=read_level,
        help="debug, info (default), warning or error; NAME=LEVEL for one logger, such as hearth.guest; repeatable",
    )


def configure(log_format: LogFormat, levels: Levels | LogLevel) -> None:
    """Send structlog's events and the standard library's records (uvicorn's, asyncio's) the same way."""
    levels = levels if isinstance(levels, Levels) else Levels(everybody=levels)
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        escape_controls,
    ]
    # Where all are told the same, the bound logger knows by itself what is not to be told, which costs nothing.
    by_name: list[Processor] = [structlog.stdlib.filter_by_level] if levels.of else []
    structlog.configure(
        processors=[*by_name, *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(levels.lowest),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    # A traceback never shows the values of variables: there are tokens and environments among them.
    renderers: list[Processor] = (
        [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(ensure_ascii=True)]
        if log_format == "json"
        else [
            structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback)
        ]
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderers],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(_number(levels.everybody))
    logging.getLogger("uvicorn.error").setLevel(max(logging.WARNING, root.level))
    for name, level in levels.of.items():
        logging.getLogger(name).setLevel(_number(level))


def escape_controls(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Escape strings that hold control characters, so that nobody outside writes a log line of his own."""
    for key, value in event.items():
        if isinstance(value, str) and not value.isprintable():
            event[key] = ascii(value)[1:-1]
    return event


def _number(level: LogLevel) -> int:
    return logging.getLevelNamesMapping()[level.upper()]
