"""The AsyncAPI 3.0 document of all public topics: what is on them, how they are set up, which service reads and writes.

Operations are seen from this product's services: `send` is what a service publishes. Topics without a public format
(the state changelog) are left out, and must never appear here.
"""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from schemas import dead_letters
from schemas.examples import examples, kind_of
from schemas.json_schemas import REF, JsonSchema, json_schemas, messages
from schemas.topics import DEAD_LETTERS, Topic, topics

BINDING_VERSION = "0.5.0"
API_VERSION = "1.0.0"
SERVICES = ("ingest", "ingest-http", "features", "scorer", "sink", "trainer")
"""Those of the producers and consumers in schemas/topics/ that are this product's own."""

Document = dict[str, Any]


def public_topics() -> Mapping[str, Topic]:
    """Topics that others may read or write: those with a schema, and the dead letters, whose values are others'."""
    return {name: found for name, found in topics().items() if found.schema is not None or found.name == DEAD_LETTERS}


def asyncapi_document() -> Document:
    """The whole document, self-contained."""
    schemas = json_schemas()
    document: Document = {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Customer lifetime value",
            "version": API_VERSION,
            "description": (
                "Publish customer events to clv.customer-events.v1; subscribe to clv.predictions.v1. Every topic name "
                "carries the major version of its contract. Consumers must ignore fields that they do not know."
            ),
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": _servers(),
        "channels": {},
        "operations": {},
        "components": {"messages": {}, "schemas": {}},
    }
    for name, topic in public_topics().items():
        kinds = _messages(name, topic, schemas)
        document["components"]["messages"] |= kinds
        document["channels"][name] = _channel(topic, list(kinds))
        document["operations"] |= _operations(name, topic, list(kinds))
        if topic.schema is not None:
            document["components"]["schemas"] |= _schemas(name, schemas[topic.schema])
    return document


def _servers() -> Document:
    return {
        "kafka": {
            "host": "{bootstrapServer}",
            "protocol": "kafka",
            "description": "Any broker of the Kafka cluster; CLV_KAFKA_BOOTSTRAP_SERVERS names it to the services.",
            "variables": {
                "bootstrapServer": {
                    "default": "localhost:9092",
                    "description": "host:port; the default is a local stack",
                }
            },
        }
    }


def _channel(topic: Topic, message_ids: list[str]) -> Document:
    return {
        "address": topic.name,
        "description": topic.purpose,
        "servers": [{"$ref": "#/servers/kafka"}],
        "messages": {_local(message): {"$ref": f"#/components/messages/{message}"} for message in message_ids},
        "bindings": {
            "kafka": {
                "topic": topic.name,
                "partitions": topic.partitions,
                "topicConfiguration": topic_configuration(topic),
                "bindingVersion": BINDING_VERSION,
            }
        },
    }


def topic_configuration(topic: Topic) -> Document:
    """Topic settings as the AsyncAPI Kafka binding writes them: cleanup.policy is a list."""
    return {key: str(value).split(",") if key == "cleanup.policy" else value for key, value in topic.config.items()}


def _operations(name: str, topic: Topic, message_ids: list[str]) -> Document:
    found = {}
    for action, services in (("send", topic.producers), ("receive", topic.consumers)):
        for service in services:
            if service in SERVICES:
                found[f"{service}.{action}.{name}"] = {
                    "action": action,
                    "channel": {"$ref": f"#/channels/{name}"},
                    "summary": f"{service} {'publishes to' if action == 'send' else 'reads'} {topic.name}",
                    "messages": [{"$ref": f"#/channels/{name}/messages/{_local(message)}"} for message in message_ids],
                }
    return found


def _messages(name: str, topic: Topic, schemas: Mapping[str, JsonSchema]) -> Document:
    """The topic's messages by id, `<topic>.<kind>`."""
    if topic.schema is None:
        return {f"{name}.any": _dead_letter(topic)}
    kinds = messages(schemas[topic.schema])
    found: Document = {}
    for kind, schema in kinds.items():
        found[f"{name}.{kind}"] = {
            "name": kind,
            "title": kind,
            "summary": schema.get("description", topic.purpose),
            "contentType": "application/json",
            "payload": {"$ref": f"#/components/schemas/{name}.{schema['title']}"},
            "bindings": _message_bindings(topic),
            "examples": [],
        }
    for example in examples(name):
        shown = {"name": example.name, "payload": example.value}
        found[f"{name}.{kind_of(example, set(kinds))}"]["examples"].append(shown)
    return found


def _message_bindings(topic: Topic) -> Document:
    return {"kafka": {"key": {"type": "string", "description": topic.key}, "bindingVersion": BINDING_VERSION}}


def _dead_letter(topic: Topic) -> Document:
    headers = {
        name: {"type": "string", "description": meaning} | extra
        for name, (meaning, extra) in dead_letter_headers().items()
    }
    return {
        "name": "any",
        "title": "dead letter",
        "summary": topic.purpose,
        "description": "The value is the original's, byte for byte: it may be no JSON at all, or empty.",
        "contentType": "application/octet-stream",
        "headers": {
            "type": "object",
            "description": "Kafka headers, all text in UTF-8. The original's own headers stand before these.",
            "properties": headers,
            "required": [name for name in headers if name not in _OPTIONAL_HEADERS],
        },
        "payload": {"description": "Any bytes"},
        "bindings": _message_bindings(topic),
    }


_OPTIONAL_HEADERS = (
    dead_letters.HEADER_PARTITION,
    dead_letters.HEADER_OFFSET,
    dead_letters.HEADER_REPLAYED,
    dead_letters.HEADER_ARRIVED_AT_MS,
    dead_letters.HEADER_KEY,
    dead_letters.HEADER_NO_VALUE,
)


def dead_letter_headers() -> Mapping[str, tuple[str, JsonSchema]]:
    """Meaning of each header of a dead letter, and what else its schema says."""
    number: JsonSchema = {"pattern": "^[0-9]+$"}
    return {
        dead_letters.HEADER_REASON: (
            "Why it could not be used; a closed list",
            {"enum": [reason.value for reason in dead_letters.Reason]},
        ),
        dead_letters.HEADER_MESSAGE: ("One sentence for a person: what was wrong and where in the message", {}),
        dead_letters.HEADER_SERVICE: ("The service that refused it", {}),
        dead_letters.HEADER_REJECTED_AT_MS: ("When, milliseconds since 1970 (UTC), decimal", number),
        dead_letters.HEADER_TOPIC: ("Topic it came from; 'http' for a request", {}),
        dead_letters.HEADER_PARTITION: ("Partition it came from, decimal; absent for HTTP", number),
        dead_letters.HEADER_OFFSET: ("Offset it came from, decimal; absent for HTTP", number),
        dead_letters.HEADER_ARRIVED_AT_MS: (
            "When the customer event behind it arrived, milliseconds since 1970 (UTC), decimal",
            number,
        ),
        dead_letters.HEADER_KEY: ("The original's key, byte for byte; absent if it had none", {}),
        dead_letters.HEADER_NO_VALUE: ("Present, and empty, if the original had no value", {"const": ""}),
        dead_letters.HEADER_STAGE: ("Stage, as Kafka Connect names it", {}),
        dead_letters.HEADER_REPLAYED: (
            "On a record without value that marks a letter as replayed, and on the message sent again: partition and "
            "offset of the dead letter, decimal",
            {"pattern": "^[0-9]+:[0-9]+$"},
        ),
    }


def _schemas(name: str, schema: JsonSchema) -> Document:
    """The schemas of a topic's messages, under names that are unique in the document."""
    found = {}
    for member in messages(schema).values():
        plain = {key: value for key, value in member.items() if key not in ("$schema", "$id", "$defs")}
        found[f"{name}.{member['title']}"] = _moved(deepcopy(plain), f"#/components/schemas/{name}.")
    return found


def _moved(schema: Any, prefix: str) -> Any:
    if isinstance(schema, list):
        return [_moved(item, prefix) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: prefix + value.removeprefix(REF) if key == "$ref" and isinstance(value, str) else _moved(value, prefix)
        for key, value in schema.items()
    }


def _local(message_id: str) -> str:
    """Id of a message within its channel: without the topic."""
    return message_id.split(".", 1)[1]
