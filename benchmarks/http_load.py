"""Clients that post orders over HTTP the way that the documentation asks for: after a 503 the same event again."""

import http.client
import json
import threading
import time
from http import HTTPStatus
from typing import Any, NamedTuple, Self
from urllib.parse import urlsplit

_ANSWER_SECONDS_MAX = 60.0


class Answer(NamedTuple):
    """What one request came to."""

    status: int
    began: float
    """time.monotonic() when it was sent."""
    seconds: float
    retry_after: str | None


class HttpLoad:
    """Some clients, each posting one order after the other. A context manager; its end waits for every event's 202.

    url: of ingest. pause_seconds: between two events of one client. retry_seconds_max: bound of the wait before an
    event is sent again. An event is of a customer out of `customers`; its ids are its own, and begin with `name`.
    """

    def __init__(
        self,
        url: str,
        *,
        clients: int = 8,
        pause_seconds: float = 0.02,
        retry_seconds_max: float = 2.0,
        customers: int = 500,
        name: str = "load",
    ) -> None:
        self._address = urlsplit(url).netloc
        self._pause_seconds, self._retry_seconds_max = pause_seconds, retry_seconds_max
        self._customers, self._name = customers, name
        self.answers: list[Answer] = []
        self.accepted: list[dict[str, Any]] = []
        """Events that were answered 202."""
        self.failures: list[BaseException] = []
        """What ended a client: a connection that was refused or hung is a failure of the service."""
        self._over = threading.Event()
        self._threads = [
            threading.Thread(target=self._client, args=(number,), daemon=True) for number in range(clients)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(_ANSWER_SECONDS_MAX)

    def status_count(self, status: int) -> int:
        """Answers with the status so far."""
        return sum(answer.status == status for answer in list(self.answers))

    def _client(self, client: int) -> None:
        connection = http.client.HTTPConnection(self._address, timeout=_ANSWER_SECONDS_MAX)
        number = 0
        try:
            while not self._over.is_set():
                number += 1
                self._until_accepted(connection, self._event(client, number))
                self._over.wait(self._pause_seconds)
        except BaseException as error:  # noqa: BLE001 (told by whoever reads `failures`)
            self.failures.append(error)
        finally:
            connection.close()

    def _event(self, client: int, number: int) -> dict[str, Any]:
        return {
            "event_id": f"{self._name}-{client}-{number}",
            "event_type": "order.placed",
            "occurred_at": "2024-01-31T12:00:00Z",
            "customer_id": f"customer-{(client * 7919 + number) % self._customers}",
            "order_id": f"{self._name}-order-{client}-{number}",
            "amount": f"{1 + number % 90}.50",
            "currency": "USD",
        }

    def _until_accepted(self, connection: http.client.HTTPConnection, event: dict[str, Any]) -> None:
        body = json.dumps(event)
        while True:
            began = time.monotonic()
            connection.request("POST", "/v1/events", body, {"content-type": "application/json"})
            response = connection.getresponse()
            response.read()
            retry_after = response.getheader("retry-after")
            self.answers.append(Answer(response.status, began, time.monotonic() - began, retry_after))
            if response.status == HTTPStatus.ACCEPTED:
                self.accepted.append(event)
                return
            if response.status != HTTPStatus.SERVICE_UNAVAILABLE:
                raise RuntimeError(f"answered {response.status}")
            time.sleep(min(float(retry_after or 1), self._retry_seconds_max))
