"""The one place that says how the daemon logs: one event a line on stderr, for people or as JSON, never a raw control
character from outside.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from hearth.settings.kinds import LogLevel

LogFormat = Literal["auto", "console", "json"]
"""``auto`` is JSON where the journal reads it, which keeps each field apart, and for people elsewhere."""


@dataclass(frozen=True, kw_only=True)
class Levels:
    """How much is told: by all, and by loggers that have a level of their own, with those below them."""

    everybody: LogLevel = "info"
    of: Mapping[str, LogLevel] = field(default_factory=dict)

    @property
    def lowest(self) -> int:
        """The most talkative of them, as the standard library numbers it."""
        return min(map(_number, (self.everybody, *self.of.values())))


@dataclass
class _Configured:
    """What loggers that are in use hold on to: their class and the list of their processors."""

    wrapper: type = object
    processors: list[Processor] = field(default_factory=list)
    named: set[str] = field(default_factory=set)


_configured = _Configured()


def levels_of(said: Sequence[tuple[str, LogLevel]]) -> Levels:
    """Give the levels that were said; the last of a name counts."""
    chosen = dict(said)
    return Levels(everybody=chosen.pop("", Levels().everybody), of=chosen)


def is_journal(environment: Mapping[str, str], stream: int = 2) -> bool:
    """Tell whether the journal reads what we write there (systemd.exec(5), JOURNAL_STREAM)."""
    try:
        status = os.fstat(stream)
    except OSError:
        return False
    return environment.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def configure(log_format: LogFormat, levels: Levels | LogLevel) -> None:
    """Send structlog's events and the standard library's records (uvicorn's, asyncio's) the same way."""
    levels = levels if isinstance(levels, Levels) else Levels(everybody=levels)
    as_json = log_format == "json" or (log_format == "auto" and is_journal(os.environ))
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        escape_controls,
    ]
    _configured.wrapper = type("Logger", (structlog.make_filtering_bound_logger(levels.lowest),), {})
    _configured.processors = [*_by_name(levels), *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter]
    structlog.configure(
        processors=_configured.processors,
        wrapper_class=_configured.wrapper,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    # A traceback never shows the values of variables: there are tokens and environments among them.
    renderers: list[Processor] = (
        [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(ensure_ascii=True)]
        if as_json
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
    _set_levels(levels)


def change_levels(levels: Levels) -> None:
    """Let other levels hold, for loggers that are in use already, too."""
    _configured.wrapper.__bases__ = (structlog.make_filtering_bound_logger(levels.lowest),)
    rest = [each for each in _configured.processors if each is not structlog.stdlib.filter_by_level]
    _configured.processors[:] = [*_by_name(levels), *rest]
    _set_levels(levels)


def _by_name(levels: Levels) -> list[Processor]:
    """Where all are told the same, the bound logger knows by itself what is not to be told, which costs nothing."""
    return [structlog.stdlib.filter_by_level] if levels.of else []


def _set_levels(levels: Levels) -> None:
    root = logging.getLogger()
    root.setLevel(_number(levels.everybody))
    logging.getLogger("uvicorn.error").setLevel(max(logging.WARNING, root.level))
    for name in _configured.named - levels.of.keys():
        logging.getLogger(name).setLevel(logging.NOTSET)
    for name, level in levels.of.items():
        logging.getLogger(name).setLevel(_number(level))
    _configured.named = set(levels.of)


def escape_controls(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Escape strings that hold control characters, so that nobody outside writes a log line of his own."""
    for key, value in event.items():
        if isinstance(value, str) and not value.isprintable():
            event[key] = ascii(value)[1:-1]
    return event


def _number(level: LogLevel) -> int:
    return logging.getLevelNamesMapping()[level.upper()]
