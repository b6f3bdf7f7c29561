"""Structured logs on standard error: one JSON object a line, or text for a person. An event name and its facts."""

import logging
import sys

import structlog
from structlog.stdlib import BoundLogger
from structlog.typing import Processor

_LIBRARIES = ("aiokafka", "kafka", "faust", "mode", "uvicorn", "pymongo", "asyncio")
_REPEAT_SECONDS = 10.0


class Repeats(logging.Filter):
    """Lets a library say the same thing once in a while only: an absent broker is worth a line, not ten a second."""

    def __init__(self, seconds: float = _REPEAT_SECONDS) -> None:
        super().__init__()
        self._seconds = seconds
        self._said: dict[tuple[str, str], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is to be shown: by its text before details are filled in."""
        if record.name.split(".")[0] not in _LIBRARIES:
            return True
        said, now = (record.name, str(record.msg)), record.created
        if now - self._said.get(said, -self._seconds) < self._seconds:
            return False
        self._said[said] = now
        return True


def configure_logs(service: str, level: str, fmt: str) -> None:
    """Send this process's logs, those of libraries included, to standard error as `fmt` ("json" or "console")."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    last: Processor = (
        structlog.processors.JSONRenderer() if fmt == "json" else structlog.dev.ConsoleRenderer(colors=False)
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.ExtraAdder(), *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, last],
        )
    )
    handler.addFilter(Repeats())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for noisy in _LIBRARIES:
        logging.getLogger(noisy).setLevel(max(logging.WARNING, root.level))
    structlog.contextvars.bind_contextvars(service=service)


def logger(name: str) -> BoundLogger:
    """A logger: `log.info("event_name", fact=value)`."""
    bound: BoundLogger = structlog.stdlib.get_logger(name)
    return bound
