"""Publishing customer.erased: the same for the command and the API.

Must never return before all in-sync replicas have the event.
"""

from datetime import UTC, datetime

from aiokafka import AIOKafkaProducer

from schemas.customer_events import CustomerErasedEvent
from schemas.topics import CUSTOMER_EVENTS


async def publish_erased(producer: AIOKafkaProducer, event: CustomerErasedEvent) -> datetime:
    """Publish the event with a started producer; when the broker took it. Raises KafkaError if it did not."""
    sent = await producer.send_and_wait(
        CUSTOMER_EVENTS, key=event.customer_id.encode(), value=event.model_dump_json().encode()
    )
    return datetime.fromtimestamp(sent.timestamp / 1000, UTC)
