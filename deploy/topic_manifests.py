"""Strimzi KafkaTopic manifests, deploy/k8s/topics/, made from schemas/topics/; written by `python -m cli.docs`.

For a cluster of at least three brokers: three replicas, of which two must have each record before it is acknowledged.
"""

from pathlib import Path
from typing import Any

from schemas.generate import Files, yaml_text
from schemas.topics import Topic, topics

FOLDER = Path("deploy/k8s/topics")
OWNED_GLOB = f"{FOLDER}/*"
REPLICAS = 3
MIN_INSYNC_REPLICAS = 2


def topic_manifest_files(command: str) -> Files:
    """One manifest a topic, and the kustomization that lists them, by path from the repository's root."""
    found = {FOLDER / f"{name}.yaml": yaml_text(manifest(topic), command) for name, topic in topics().items()}
    listing = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": sorted(path.name for path in found),
    }
    return {FOLDER / "kustomization.yaml": yaml_text(listing, command), **found}


def manifest(topic: Topic) -> dict[str, Any]:
    """The KafkaTopic of a declared topic. The label names the Strimzi cluster; an overlay may change it."""
    return {
        "apiVersion": "kafka.strimzi.io/v1",
        "kind": "KafkaTopic",
        "metadata": {"name": topic.name, "labels": {"strimzi.io/cluster": "clv"}},
        "spec": {
            "topicName": topic.name,
            "partitions": topic.partitions,
            "replicas": REPLICAS,
            "config": {**topic.config, "min.insync.replicas": MIN_INSYNC_REPLICAS},
        },
    }
