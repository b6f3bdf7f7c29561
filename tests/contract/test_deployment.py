"""Compose, Docker and Kubernetes files name only things that exist, and agree with each other and with the settings."""

import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml

from cli.docs import environment_name, service_settings
from deploy.topic_manifests import MIN_INSYNC_REPLICAS, REPLICAS
from schemas.topics import topics

ROOT = Path(__file__).parents[2]
K8S = ROOT / "deploy/k8s"
BIN = Path(sys.executable).parent
SERVICES = ("ingest", "features", "scorer", "sink", "api", "dashboard")
WITHOUT_METRICS = ("dashboard",)
KNOWS_THE_API_ALONE = ("dashboard",)
RUNS_MODELS = ("scorer", "api")
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
DOCKERFILE = (ROOT / "Dockerfile").read_text()
MANIFESTS = [
    (path.relative_to(K8S), document)
    for path in sorted(K8S.rglob("*.yaml"))
    for document in yaml.safe_load_all(path.read_text())
]
GRACE_SECONDS = 15


def known_settings(service: str) -> set[str]:
    """Environment variables that the service (or, for the command line, any service) knows."""
    found = service_settings()
    chosen = [found[service]] if service in SERVICES else list(found.values())
    return {environment_name(field) for settings in chosen for field in settings.model_fields}


def of_kind(*kinds: str) -> Iterator[dict[str, Any]]:
    return (document for _, document in MANIFESTS if document["kind"] in kinds)


def workloads() -> dict[str, dict[str, Any]]:
    """Pod specs by the name of what runs them."""
    return {
        document["metadata"]["name"]: document["spec"]["template"]["spec"]
        for document in of_kind("Deployment", "StatefulSet", "Job")
    }


def container_of(name: str) -> dict[str, Any]:
    (container,) = workloads()[name]["containers"]
    return container


def configuration(container: dict[str, Any]) -> dict[str, Any]:
    """The environment of a container: what is set, or where it comes from."""
    maps = {document["metadata"]["name"]: document["data"] for document in of_kind("ConfigMap")}
    found: dict[str, Any] = {}
    for source in container.get("envFrom", ()):
        found |= maps[source["configMapRef"]["name"]]
    for variable in container.get("env", ()):
        found[variable["name"]] = variable.get("value", variable.get("valueFrom"))
        reference = variable.get("valueFrom", {}).get("configMapKeyRef")
        assert reference is None or reference["key"] in maps[reference["name"]]
    return found


def targets() -> dict[str, str]:
    """Each stage of the Dockerfile with its own instructions."""
    parts = re.split(r"^FROM (\S+) AS (\S+)\n", DOCKERFILE, flags=re.MULTILINE)
    return dict(zip(parts[2::3], parts[3::3], strict=True))


def module_of(command: list[str]) -> str:
    assert command[:2] == ["python", "-m"], command
    return command[2]


def test_the_compose_file_is_valid_by_the_compose_specification():
    done = subprocess.run(  # noqa: PLW1510
        [BIN / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", ROOT / "docker-compose.yml"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_manifest_is_valid_to_kubernetes():
    files = [path for path in K8S.rglob("*.yaml") if path.name != "kustomization.yaml"]
    files = [path for path in files if path.parent.name != "topics"]  # custom resources: checked below
    done = subprocess.run(  # noqa: PLW1510
        [BIN / "kubernetes-validate", "--strict", *files], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARN" not in done.stdout + done.stderr, "a kind that kubernetes-validate does not know was not checked"


@pytest.mark.parametrize("folder", [K8S, K8S / "topics"], ids=["base", "topics"])
def test_the_kustomization_lists_every_file(folder: Path):
    listed = yaml.safe_load((folder / "kustomization.yaml").read_text())["resources"]
    there = [path.name for path in folder.iterdir() if path.name != "kustomization.yaml"]
    assert sorted(listed) == sorted(there)


def test_every_image_is_made_by_the_dockerfile_and_is_the_same_in_both_deployments():
    stages = targets()
    made = {}
    for name, service in COMPOSE["services"].items():
        if "build" in service:
            assert service["build"]["target"] in stages, name
            made[service["image"]] = service["build"]["target"]
    assert set(made.values()) == {*SERVICES, "cli"}
    for name in workloads():
        assert container_of(name)["image"] in made
    foreign = {service["image"] for service in COMPOSE["services"].values() if "build" not in service}
    assert foreign == {"apache/kafka:4.3.1", "mongo:8.0"}


@pytest.mark.parametrize("target", [*SERVICES, "cli"])
def test_an_image_gets_the_locked_dependencies_of_its_group(target: str):
    stages = targets()
    assert f"COPY --from={target}-dependencies /venv /venv" in stages[target]
    assert f"COPY locks/{target}.txt" in stages[f"{target}-dependencies"]
    assert f"$INSTALL /locks/{target}.txt" in stages[f"{target}-dependencies"]
    lock = (ROOT / f"locks/{target}.txt").read_text()
    pinned = [line for line in lock.splitlines() if re.match(r"^[a-zA-Z0-9]", line)]
    assert pinned
    assert all("==" in line for line in pinned)
    assert lock.count("--hash=sha256:") >= len(pinned)


def test_an_image_is_built_from_a_pinned_base_and_does_not_run_as_root():
    assert re.findall(r"^FROM (\S+) AS base", DOCKERFILE, flags=re.MULTILINE) == ["python:3.11-slim-bookworm"]
    assert "--require-hashes" in DOCKERFILE
    assert "USER 10001:10001" in targets()["code"]
    for target in (*SERVICES, "cli"):
        assert re.search(rf"^FROM code AS {target}$", DOCKERFILE, flags=re.MULTILINE)
        assert "USER" not in targets()[target]


def test_only_who_runs_models_carries_the_model_runtime():
    carries = {path.stem for path in (ROOT / "locks").glob("*.txt") if "\nonnxruntime==" in path.read_text()}
    assert carries & {*SERVICES, "cli"} == {*RUNS_MODELS, "cli"}


@pytest.mark.parametrize("service", SERVICES)
def test_what_an_image_copies_exists_and_no_other_services_code_is_in_it(service: str):
    copied = re.findall(r"^COPY ((?!--from|locks/)\S+) \S+$", targets()["code"] + targets()[service], re.MULTILINE)
    assert all((ROOT / path).exists() for path in copied), copied
    code = [path for path in copied if path.startswith("services/")]
    shared = {"features": ["services/folding"]} | {name: ["services/inference"] for name in RUNS_MODELS}
    own = f"services/{service}"
    assert sorted(code) == sorted(["services/__init__.py", "services/runtime", own, *shared.get(service, [])])


def test_the_build_context_holds_what_is_copied_and_nothing_else():
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    allowed = {line[1:] for line in lines if line.startswith("!")}
    copied = {path.split("/")[0] for path in re.findall(r"^COPY ((?!--from)\S+)", DOCKERFILE, re.MULTILINE)}
    assert "*" in lines
    assert allowed == copied


@pytest.mark.slow
@pytest.mark.parametrize("service", SERVICES)
def test_a_service_runs_with_the_libraries_of_its_lock_alone(service: str):
    """Imports the service while hiding every installed distribution that its lock does not name."""
    lock = (ROOT / f"locks/{service}.txt").read_text()
    pinned = {normalised(name) for name in re.findall(r"^([A-Za-z0-9._-]+)==", lock, re.MULTILINE)}
    hidden = sorted(
        package
        for package, owners in metadata.packages_distributions().items()
        if not {normalised(owner) for owner in owners} & (pinned | {"pip", "setuptools"})
    )
    assert "pytest" in hidden
    done = subprocess.run(  # noqa: PLW1510
        [sys.executable, "-c", IMPORT_WITHOUT, service, json.dumps(hidden)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr[-2000:]


IMPORT_WITHOUT = """
import importlib, json, pkgutil, sys
service, hidden = sys.argv[1], set(json.loads(sys.argv[2]))
class Hide:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in hidden:
            raise ModuleNotFoundError(f"{name} is not in locks/{service}.txt", name=name)
sys.meta_path.insert(0, Hide())
package = importlib.import_module(f"services.{service}")
for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
    importlib.import_module(module.name)
"""


def normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_every_command_is_a_module_that_can_be_run():
    commands = [
        service["command"] for service in COMPOSE["services"].values() if "build" in service and "command" in service
    ]
    commands += [container_of(name)["command"] for name in workloads()]
    commands += [json.loads(found) for found in re.findall(r"^CMD (\[.*\])$", DOCKERFILE, re.MULTILINE)]
    assert len(commands) >= 12
    for module in {module_of(command) for command in commands}:
        assert importlib.util.find_spec(module) is not None, module
        assert importlib.util.find_spec(f"{module}.__main__") is not None, module


@pytest.mark.parametrize("service", SERVICES)
def test_each_service_runs_as_itself_everywhere(service: str):
    assert f'CMD ["python", "-m", "services.{service}"]' in targets()[service]
    assert module_of(container_of(service)["command"]) == f"services.{service}"
    assert COMPOSE["services"][service]["build"]["target"] == service


@pytest.mark.parametrize("name", [name for name, service in COMPOSE["services"].items() if "build" in service])
def test_compose_sets_only_settings_that_the_service_knows(name: str):
    given = {variable for variable in COMPOSE["services"][name]["environment"] if variable.startswith("CLV_")}
    assert given
    assert given <= known_settings(name), given - known_settings(name)


@pytest.mark.parametrize("name", sorted(workloads()))
def test_kubernetes_sets_only_settings_that_the_service_knows(name: str):
    given = configuration(container_of(name))
    assert given
    assert set(given) <= known_settings(name), set(given) - known_settings(name)


@pytest.mark.parametrize("service", SERVICES)
def test_every_setting_in_a_deployment_is_one_that_the_service_accepts(service: str, monkeypatch: pytest.MonkeyPatch):
    settings = service_settings()[service]
    for given in (COMPOSE["services"][service]["environment"], configuration(container_of(service))):
        with monkeypatch.context() as environment:
            for name, value in given.items():
                if isinstance(value, str):  # the others come from secrets
                    environment.setenv(name, re.sub(r"\$\{\w+:-(.*)\}", r"\1", value))
            assert settings().http_host == "0.0.0.0", "a probe from outside the container could not reach it"


@pytest.mark.parametrize("service", SERVICES)
def test_ports_are_the_settings_defaults_everywhere(service: str):
    port = service_settings()[service].model_fields[f"{service}_http_port"].default
    assert f"EXPOSE {port}\n" in targets()[service]
    assert f"http://127.0.0.1:{port}/healthz" in targets()[service]
    assert COMPOSE["services"][service]["ports"] == [f"127.0.0.1:{port}:{port}"]
    assert [found["containerPort"] for found in container_of(service)["ports"]] == [port]
    (published,) = [found for found in of_kind("Service") if found["metadata"]["name"] == service]
    assert [found["port"] for found in published["spec"]["ports"]] == [port]
    (template,) = [
        found["spec"]["template"]
        for found in of_kind("Deployment", "StatefulSet")
        if found["metadata"]["name"] == service
    ]
    if service in WITHOUT_METRICS:
        assert "annotations" not in template["metadata"]
        return
    scrape = template["metadata"]["annotations"]
    assert scrape["prometheus.io/scrape"] == "true"
    assert scrape["prometheus.io/port"] == str(port)
    assert scrape["prometheus.io/path"] == "/metrics"


def test_nothing_is_published_beyond_this_machine():
    for service in COMPOSE["services"].values():
        for port in service.get("ports", ()):
            assert port.startswith("127.0.0.1:")


def test_compose_keeps_data_in_named_volumes_and_waits_for_what_a_service_needs():
    services = COMPOSE["services"]
    assert set(COMPOSE["volumes"]) == {"kafka", "mongo", "features", "models"}
    mounts = {volume.split(":")[0] for service in services.values() for volume in service.get("volumes", ())}
    assert set(COMPOSE["volumes"]) <= mounts
    for name in SERVICES:
        waits = services[name]["depends_on"]
        assert services[name]["stop_grace_period"] == f"{GRACE_SECONDS}s"
        if name in KNOWS_THE_API_ALONE:
            assert set(waits) == {"api"}
            continue
        assert waits["kafka"]["condition"] == "service_healthy"
        assert waits["setup"]["condition"] == "service_completed_successfully"
    for name in ("scorer", "sink", "api"):
        assert services[name]["depends_on"]["mongo"]["condition"] == "service_healthy"
    for name in ("kafka", "mongo"):
        assert services[name]["healthcheck"]["test"]


def test_folders_that_settings_name_are_mounted():
    for name, service in COMPOSE["services"].items():
        if "build" in service:
            where = [volume.split(":")[1] for volume in service.get("volumes", ())]
            for variable, value in service["environment"].items():
                assert not variable.endswith("_DIR") or value in where, (name, variable)
    for name in workloads():
        where = [mount["mountPath"] for mount in container_of(name)["volumeMounts"]]
        for variable, value in configuration(container_of(name)).items():
            assert not variable.endswith("_DIR") or value in where, (name, variable)


@pytest.mark.parametrize("name", sorted(workloads()))
def test_a_pod_has_no_rights_that_it_does_not_need(name: str):
    pod, container = workloads()[name], container_of(name)
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == 10001
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod["terminationGracePeriodSeconds"] == GRACE_SECONDS
    assert {"cpu", "memory"} <= set(container["resources"]["requests"])
    assert "memory" in container["resources"]["limits"]
    volumes = {volume["name"] for volume in pod["volumes"]}
    claimed = {
        claim["metadata"]["name"]
        for found in of_kind("StatefulSet")
        if found["metadata"]["name"] == name
        for claim in found["spec"]["volumeClaimTemplates"]
    }
    assert {mount["name"] for mount in container["volumeMounts"]} == volumes | claimed


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_is_probed_found_and_protected_from_eviction(service: str):
    container = container_of(service)
    assert container["livenessProbe"]["httpGet"]["path"] == "/healthz"
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    label = {"app.kubernetes.io/name": service}
    (runs,) = [found for found in of_kind("Deployment", "StatefulSet") if found["metadata"]["name"] == service]
    labels = runs["spec"]["template"]["metadata"]["labels"]
    assert label.items() <= labels.items()
    assert runs["spec"]["selector"]["matchLabels"] == label
    for kind in ("Service", "PodDisruptionBudget"):
        (found,) = [found for found in of_kind(kind) if found["metadata"]["name"] == service]
        selector = found["spec"]["selector"]
        assert selector.get("matchLabels", selector) == label


def test_state_lives_on_volumes_of_its_own_and_starts_in_parallel():
    (features,) = of_kind("StatefulSet")
    assert features["metadata"]["name"] == "features"
    assert features["spec"]["podManagementPolicy"] == "Parallel"
    assert features["spec"]["volumeClaimTemplates"]
    assert features["spec"]["replicas"] <= topics()["orders"].partitions


def test_secrets_are_named_and_never_included():
    assert list(of_kind("Secret")) == []
    for name in ("scorer", "sink", "setup"):
        assert configuration(container_of(name))["CLV_MONGO_URI"] == {
            "secretKeyRef": {"name": "clv-mongo", "key": "uri"}
        }


def test_strimzi_makes_the_declared_topics():
    made = {found["spec"]["topicName"]: found["spec"] for found in of_kind("KafkaTopic")}
    assert set(made) == {topic.name for topic in topics().values()}
    for topic in topics().values():
        spec = made[topic.name]
        assert spec["partitions"] == topic.partitions
        assert (spec["replicas"], MIN_INSYNC_REPLICAS) == (REPLICAS, 2) == (3, 2)
        assert spec["config"] == {**topic.config, "min.insync.replicas": MIN_INSYNC_REPLICAS}
    for found in of_kind("KafkaTopic"):
        assert found["apiVersion"] == "kafka.strimzi.io/v1"
        assert re.fullmatch(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?", found["metadata"]["name"])
        assert found["metadata"]["labels"] == {"strimzi.io/cluster": "clv"}
