"""What the tests of scorer and sink share: services that must end cleanly, messages as producers send them."""

from collections.abc import Iterable, Iterator
from typing import Any

from deploy.local.processes import ServiceProcess
from schemas.customer_features import CustomerFeatures, encode_features
from schemas.predictions import Prediction, encode_prediction
from schemas.topics import CUSTOMER_FEATURES, PREDICTIONS
from tests.conftest import Service
from tests.support import produce


def ending_cleanly(service: Service) -> Iterator[Service]:
    """The body of a fixture: each service that still runs at the end of its test must end with exit code 0."""
    started: list[ServiceProcess] = []

    def start(name: str, env: dict[str, str], *, wait: bool = True) -> ServiceProcess:
        started.append(service(name, env, wait=wait))
        return started[-1]

    yield start
    ended = [each.stop() for each in started if each.alive]
    assert ended == [0] * len(ended), [each.log_tail(20) for each in started]


def publish_features(servers: str, messages: Iterable[CustomerFeatures], **extra: Any) -> None:
    pairs = [(each.customer_id.encode(), encode_features(each)) for each in messages]
    produce(servers, CUSTOMER_FEATURES, pairs, **extra)


def publish_predictions(servers: str, messages: Iterable[Prediction], topic: str = PREDICTIONS, **extra: Any) -> None:
    produce(servers, topic, [(each.customer_id.encode(), encode_prediction(each)) for each in messages], **extra)
