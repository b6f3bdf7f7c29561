"""Whether Kafka answers, and how far each service is behind: asked again and again, and remembered in between.

Must never keep lags that it can no longer ask for.
"""

import asyncio

from aiokafka.errors import KafkaError

from schemas.http_api.live import GroupLag
from schemas.topics import topic
from services.runtime.kafka import create_topics
from services.runtime.lag import GROUPS, LagReader
from services.runtime.logs import logger
from services.runtime.shutdown import KnownProblem

_TOPICS = ("customer-events", "orders", "customer-features", "predictions")
_PAUSE_SECONDS = 1.0
_ANSWER_SECONDS = 4.0
log = logger(__name__)


class Pipeline:
    """The state of the line, as Kafka tells it."""

    def __init__(self, bootstrap_servers: str) -> None:
        self._bootstrap_servers = bootstrap_servers
        self.lags: list[GroupLag] = []
        self.problem: str | None = "Kafka has not answered yet"
        """What readiness says: None when well."""

    async def watch(self) -> None:
        """Ask for ever."""
        while True:
            try:
                async with asyncio.timeout(_ANSWER_SECONDS):
                    await create_topics(self._bootstrap_servers, [topic(name) for name in _TOPICS])
                async with LagReader(self._bootstrap_servers) as reader:
                    while True:
                        async with asyncio.timeout(_ANSWER_SECONDS):
                            found = await reader.lags()
                        self._heard(found)
                        await asyncio.sleep(_PAUSE_SECONDS)
            except KnownProblem as problem:
                self._lost(str(problem))
            except (KafkaError, OSError, TimeoutError) as error:
                self._lost(f"Kafka at {self._bootstrap_servers} does not answer: {type(error).__name__}")
            await asyncio.sleep(_PAUSE_SECONDS)

    def _heard(self, found: dict[str, int]) -> None:
        if self.problem is not None:
            log.info("kafka_answers")
        self.problem = None
        self.lags = [
            GroupLag(service=service, topic=GROUPS[service][1], records=records) for service, records in found.items()
        ]

    def _lost(self, problem: str) -> None:
        if self.problem != problem:
            log.warning("kafka_away", problem=problem)
        self.problem, self.lags = problem, []
