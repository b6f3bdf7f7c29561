"""docs/topics.md: what a team needs to publish events and read predictions with any Kafka client, and nothing else.

Made from the topic declarations, JSON Schemas and examples. Must never state what those do not.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from schemas.asyncapi import dead_letter_headers, public_topics
from schemas.examples import Example, examples, kind_of
from schemas.json_schemas import JsonSchema, json_schemas, messages
from schemas.topics import CUSTOMER_EVENTS, DEAD_LETTERS, PREDICTIONS, Topic, topics

_DAY_MS = 86_400_000
_PREDICTIONS_WITHIN = "within a second, once the services are up and a model is trained"

_CLOUD_EVENTS = """\
- **CloudEvents** 1.0 are accepted too: binary mode (headers `ce_specversion`, `ce_id`, …; the value is the data) and
  structured mode (content type `application/cloudevents+json`). `id` is the event_id, `type` the event_type, `source`
  the source, `time` the occurred_at, `subject` the customer_id where the data has none. The data holds the other
  fields.
"""


def topics_page() -> str:
    """The whole page as Markdown."""
    schemas = json_schemas()
    parts = [_head(), _start_here(), _table(topics())]
    for name, topic in public_topics().items():
        parts.append(_topic_section(name, topic, schemas))
    private = [topic for name, topic in topics().items() if name not in public_topics()]
    parts += [f"## `{topic.name}`\n\n{topic.purpose}\n" for topic in private]
    return "\n".join(parts)


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; bars within cells are escaped."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines) + "\n"


def _head() -> str:
    return (
        "# Topics\n\n<!-- Made by `python -m schemas.generate`. Do not edit. -->\n\n"
        "Every topic, its messages and how to read or write them with any Kafka client. The same as an AsyncAPI "
        "document: [`schemas/asyncapi.yaml`](../schemas/asyncapi.yaml); as JSON Schemas: "
        "[`schemas/json/`](../schemas/json/).\n\n"
        "Rules for all topics: values are JSON in UTF-8; ignore fields that you do not know; the number in a topic's "
        "name is the major version of its format, and within it fields are only ever added. A message may come twice: "
        "each has an id or a version by which the second one changes nothing.\n"
    )


def _start_here() -> str:
    order = next((found for found in examples("customer-events") if found.name == "order-placed"), None)
    if order is None:
        raise ValueError("schemas/examples/customer-events/1/order-placed.json is missing: the page begins with it")
    customer, line = order.value["customer_id"], json.dumps(order.value)
    return (
        "## Publish an order, read its prediction\n\n"
        f"1. Write one JSON object to `{CUSTOMER_EVENTS}`. Any key will do, or none.\n"
        f"2. Read `{PREDICTIONS}`; the key is the customer. The prediction arrives {_PREDICTIONS_WITHIN}.\n"
        f"3. If it does not, read `{DEAD_LETTERS}`: header `clv.reason` says why the event was refused.\n\n"
        "With the tools that come with Kafka:\n\n"
        f"```sh\necho '{line}' |\n"
        f"  kafka-console-producer.sh --bootstrap-server localhost:9092 --topic {CUSTOMER_EVENTS}\n"
        f"kafka-console-consumer.sh --bootstrap-server localhost:9092 --topic {PREDICTIONS} --from-beginning \\\n"
        "  --property print.key=true\n```\n\n"
        "In Python, with confluent-kafka:\n\n"
        f"```python\n{_python_example(order.value, customer)}```\n"
    )


def _python_example(event: Mapping[str, Any], customer: str) -> str:
    fields = "".join(f"    {key!r}: {value!r},\n" for key, value in event.items()).replace("'", '"')
    return (
        "import json\n\nfrom confluent_kafka import Consumer, Producer\n\n"
        'BROKERS = "localhost:9092"\n\n'
        f"event = {{\n{fields}}}\n"
        'producer = Producer({"bootstrap.servers": BROKERS, "acks": "all", "enable.idempotence": True})\n'
        f'producer.produce("{CUSTOMER_EVENTS}", json.dumps(event))\n'
        "producer.flush()\n\n"
        'consumer = Consumer({"bootstrap.servers": BROKERS, "group.id": "my-team", "auto.offset.reset": "earliest"})\n'
        f'consumer.subscribe(["{PREDICTIONS}"])\n'
        "while True:\n"
        "    message = consumer.poll(1.0)\n"
        "    if message is None or message.error() or message.value() is None:\n"
        "        continue\n"
        "    prediction = json.loads(message.value())\n"
        f'    if prediction["customer_id"] == "{customer}":\n'
        '        print(prediction["expected_value"], prediction["segment"], prediction["strategy"])\n'
        "        break\n"
    )


def _table(declared: Mapping[str, Topic]) -> str:
    rows = [
        [
            f"[`{topic.name}`](#{_anchor(topic.name)})",
            topic.key,
            str(topic.partitions),
            _kept(topic),
            ", ".join(topic.producers),
            ", ".join(topic.consumers),
            topic.owner,
        ]
        for topic in declared.values()
    ]
    head = ["topic", "key", "partitions", "kept", "written by", "read by", "owner"]
    return "## All topics\n\n" + markdown_table(head, rows)


def _kept(topic: Topic) -> str:
    if topic.config.get("cleanup.policy") == "compact":
        return "latest of each key"
    latest = "latest of each key, " if topic.is_compacted else ""
    retention_ms = int(topic.config.get("retention.ms", 7 * _DAY_MS))
    return latest + ("for ever" if retention_ms == -1 else f"{retention_ms / _DAY_MS:g} days")


def _topic_section(name: str, topic: Topic, schemas: Mapping[str, JsonSchema]) -> str:
    parts = [f"## `{topic.name}`\n", f"{topic.purpose}\n", _how_to_consume(topic)]
    if topic.schema is None:
        return "\n".join([*parts, _header_table()])
    parts.append(f"JSON Schema: [`{topic.schema}.schema.json`](../schemas/json/{topic.schema}.schema.json).\n")
    kinds = messages(schemas[topic.schema])
    shown = [(kind_of(example, set(kinds)), example) for example in examples(name)]
    for kind, schema in kinds.items():
        parts.append(_kind_section(kind, schema, [example for of, example in shown if of == kind]))
    return "\n".join(parts)


def _how_to_consume(topic: Topic) -> str:
    lines = [
        f"- **Key**: {topic.key}.",
        f"- **Partitions**: {topic.partitions}. **Kept**: {_kept(topic)}.",
    ]
    if "max.message.bytes" in topic.config:
        lines.append(f"- **Largest message**: {int(topic.config['max.message.bytes']):,} bytes.")
    if topic.name == CUSTOMER_EVENTS:
        lines.append(
            "- **To publish**: produce with `acks=all` and idempotence; repeat after a failure: ids make it safe."
        )
        lines.append(
            "- Times may be at most a few minutes ahead of the clock; `currency` is an ISO 4217 code in capitals."
        )
        lines.append(
            "- An event larger than ingest's `CLV_INGEST_MAX_EVENT_BYTES` is refused, see [settings](settings.md)."
        )
        lines.append(_CLOUD_EVENTS.rstrip())
    elif topic.is_compacted:
        lines.append(
            "- **To consume**: start at the earliest offset to get the latest message of every key, then follow."
        )
        lines.append("- A message without a value (a tombstone) takes its key back: delete what you hold of it.")
    else:
        lines.append("- **To consume**: use a consumer group of your own and commit after your effects are stored.")
    return "\n".join(lines) + "\n"


def _kind_section(kind: str, schema: JsonSchema, shown: Sequence[Example]) -> str:
    parts = [f"### {kind}\n", f"{schema.get('description', '')}\n"]
    parts.append(_field_table(schema))
    for field, prop in schema["properties"].items():
        if "properties" in prop:
            parts += [f"Fields of `{field}`:\n", _unit_table(prop)]
    for example in shown:
        parts.append(f"Example `{example.name}`:\n\n```json\n{example.text.rstrip()}\n```\n")
    return "\n".join(parts)


def _field_table(schema: JsonSchema) -> str:
    required = set(schema.get("required", ()))
    rows = [
        [f"`{name}`", _type(prop), "yes" if name in required else "no", _meaning(prop)]
        for name, prop in schema["properties"].items()
    ]
    return markdown_table(["field", "type", "required", "meaning"], rows)


def _unit_table(schema: JsonSchema) -> str:
    rows = [
        [f"`{name}`", _type(prop), prop.get("x-unit", ""), prop.get("description", "")]
        for name, prop in schema["properties"].items()
    ]
    return markdown_table(["field", "type", "unit", "meaning"], rows)


def _type(prop: JsonSchema) -> str:
    if "const" in prop:
        return f"`{json.dumps(prop['const'])}`"
    if "enum" in prop:
        return " or ".join(f"`{json.dumps(value)}`" for value in prop["enum"])
    kinds = prop.get("type", "any")
    if kinds == "array":
        return f"array of {prop.get('minItems', '')} {prop['items']['type']}s".replace("  ", " ")
    return kinds if isinstance(kinds, str) else " or ".join(kinds)


def _meaning(prop: JsonSchema) -> str:
    limits = []
    if "maxLength" in prop:
        limits.append(f"at most {prop['maxLength']} characters")
    if "pattern" in prop and prop["pattern"] != r"\S" and "format" not in prop:
        limits.append(f"pattern `{prop['pattern']}`")
    if prop.get("default") not in (None, ""):
        limits.append(f"default `{json.dumps(prop['default'])}`")
    meaning = prop.get("description", "Kind of message" if "const" in prop else "")
    return "; ".join(text for text in [meaning, *limits] if text)


def _header_table() -> str:
    rows = [
        [f"`{name}`", meaning + (": " + ", ".join(f"`{value}`" for value in extra["enum"]) if "enum" in extra else "")]
        for name, (meaning, extra) in dead_letter_headers().items()
    ]
    return "Headers, text in UTF-8, after the original's own:\n\n" + markdown_table(["header", "meaning"], rows)


def _anchor(text: str) -> str:
    """The fragment that a heading `text` gets: lower case, punctuation but hyphens dropped."""
    return "".join(char for char in text.lower() if char.isalnum() or char == "-")
