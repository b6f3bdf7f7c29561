"""The AsyncAPI document is valid by AsyncAPI's own schema, points only at what is there, and says what is declared.

asyncapi/3.0.0.json is the AsyncAPI Initiative's schema for documents of version 3.0.0 (Apache-2.0; LICENSE and NOTICE
beside it), unchanged.
"""

import json
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft7Validator

from schemas.asyncapi import SERVICES, asyncapi_document, dead_letter_headers, public_topics
from schemas.dead_letters import DeadLetter, Origin, Reason, to_headers
from schemas.examples import examples
from schemas.generate import ROOT

METASCHEMA = json.loads((Path(__file__).parent / "asyncapi/3.0.0.json").read_text())
DOCUMENT = yaml.safe_load((ROOT / "schemas/asyncapi.yaml").read_text())


def problems(document: Any) -> list[str]:
    return [error.message for error in Draft7Validator(METASCHEMA).iter_errors(document)]


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "$ref":
                yield value
            else:
                yield from references(value)
    elif isinstance(node, list):
        for item in node:
            yield from references(item)


def resolve(reference: str) -> Any:
    assert reference.startswith("#/"), f"{reference}: a reader may have this document alone"
    node = DOCUMENT
    for part in reference[2:].split("/"):
        node = node[part.replace("~1", "/").replace("~0", "~")]
    return node


def payload(message: dict[str, Any]) -> Any:
    schema = message["payload"]
    return resolve(schema["$ref"]) if "$ref" in schema else schema


def test_the_document_is_valid_asyncapi():
    assert problems(DOCUMENT) == []


@pytest.mark.parametrize(
    "spoil",
    [
        lambda document: document.pop("info"),
        lambda document: document["operations"]["ingest.receive.customer-events"].update(action="subscribe"),
        lambda document: document["channels"]["orders"]["bindings"]["kafka"].update(partitions="four"),
        lambda document: document["channels"]["orders"].update(adress="x"),
        lambda document: document["servers"]["kafka"].pop("host"),
    ],
)
def test_a_broken_document_would_be_noticed(spoil):
    broken = deepcopy(DOCUMENT)
    spoil(broken)
    assert problems(broken) != []


def test_the_file_is_the_document():
    assert asyncapi_document() == DOCUMENT


def test_every_reference_resolves_within_the_document():
    found = list(references(DOCUMENT))
    assert len(found) > 20
    for reference in found:
        resolve(reference)


def test_every_public_topic_is_a_channel_with_its_declared_setup():
    assert set(DOCUMENT["channels"]) == set(public_topics())
    for name, topic in public_topics().items():
        channel = DOCUMENT["channels"][name]
        assert channel["address"] == topic.name
        binding = channel["bindings"]["kafka"]
        assert binding["partitions"] == topic.partitions
        written = {
            key: ",".join(value) if isinstance(value, list) else value
            for key, value in binding["topicConfiguration"].items()
        }
        assert written == dict(topic.config)


def test_the_private_changelog_is_not_shown():
    assert "state-changelog" not in json.dumps(DOCUMENT)


def test_every_operation_is_one_of_our_services_on_a_channel_it_is_declared_for():
    expected = {
        (service, action, name)
        for name, topic in public_topics().items()
        for action, services in (("send", topic.producers), ("receive", topic.consumers))
        for service in services
        if service in SERVICES
    }
    found = set()
    for key, operation in DOCUMENT["operations"].items():
        name = operation["channel"]["$ref"].removeprefix("#/channels/")
        found.add((key.split(".")[0], operation["action"], name))
        for message in operation["messages"]:
            assert message["$ref"].startswith(f"#/channels/{name}/messages/")
    assert found == expected


def test_every_payload_is_a_json_schema_that_any_draft_7_validator_reads():
    for schema in DOCUMENT["components"]["schemas"].values():
        Draft7Validator.check_schema(schema)
        assert not {"$defs", "prefixItems", "$schema", "$id"} & set(schema)


def test_every_example_is_shown_with_its_message_and_valid_there():
    shown = []
    for message_id, message in DOCUMENT["components"]["messages"].items():
        for example in message.get("examples", ()):
            shown.append((message_id.split(".")[0], example["name"]))
            assert list(Draft7Validator(payload(message)).iter_errors(example["payload"])) == []
    assert sorted(shown) == sorted((name, example.name) for name in public_topics() for example in examples(name))


def test_the_default_server_is_the_local_stack():
    server = DOCUMENT["servers"]["kafka"]
    assert server["variables"]["bootstrapServer"]["default"] == "localhost:9092"
    assert server["host"] == "{bootstrapServer}"


@pytest.mark.parametrize("origin", [Origin("clv.orders.v1", 3, 7), Origin("http")])
def test_the_headers_of_a_real_dead_letter_are_those_described(origin: Origin):
    letter = DeadLetter(
        reason=Reason.INVALID_JSON,
        detail="x",
        service="ingest",
        origin=origin,
        rejected_at_ms=1,
        key=b"k" if origin.offset else None,
        value=b"{" if origin.offset else None,
        arrived_at_ms=5,
    )
    headers = {name: value.decode() for name, value in to_headers(letter)}
    schema = DOCUMENT["components"]["messages"]["dead-letters.any"]["headers"]
    assert set(headers) <= set(dead_letter_headers())
    assert list(Draft7Validator(schema).iter_errors(headers)) == []
    assert list(Draft7Validator(schema).iter_errors(headers | {"clv.reason": "no_such_reason"})) != []
