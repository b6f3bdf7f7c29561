"""The doctor never raises, and names a remedy for each thing that is missing."""

import os
from pathlib import Path

import pytest

from deploy.local import doctor
from deploy.local.folders import free_ports
from deploy.local.stack import LocalStack, LocalStackError, check_kafka


@pytest.fixture
def bare_machine(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CLV_HOME", str(tmp_path / "not" / "yet" / "there"))
    for name in ("JAVA_HOME", "CLV_MONGOD", "CLV_KAFKA_BOOTSTRAP_SERVERS", "CLV_MONGO_URI"):
        monkeypatch.delenv(name, raising=False)


def by_name(home: Path | None = None) -> dict[str, doctor.Check]:
    return {check.name: check for check in doctor.checks(home)}


def test_a_bare_machine_is_told_all_that_it_lacks_at_once(bare_machine: None, tmp_path: Path) -> None:
    found = by_name()
    assert not found["Java"].ok
    assert "openjdk" in found["Java"].remedy
    assert not found["Maven"].ok
    assert "apt install maven" in found["Maven"].remedy
    assert found["Python"].ok
    assert found["MongoDB"].ok  # it would be fetched
    assert list(tmp_path.iterdir()) == []  # looking changes nothing


def test_every_failed_check_has_a_remedy_and_every_good_one_has_none(bare_machine: None, monkeypatch) -> None:
    monkeypatch.setattr(doctor, "MEMORY_AVAILABLE_GIB_MIN", 1e9)
    monkeypatch.setattr(doctor, "DISK_FREE_GIB_MIN", 1e9)
    monkeypatch.setattr(doctor, "CORES_MIN", 10_000)
    monkeypatch.setattr(doctor, "OPEN_FILES_MIN", 2**62)
    monkeypatch.setenv("CLV_MONGOD", "/nowhere")
    found = by_name()
    for name in ("Memory", "Disk", "Cores", "Java", "Maven", "MongoDB"):
        assert not found[name].ok, name
    for check in found.values():
        assert check.detail
        assert bool(check.remedy) is not check.ok, check


def test_named_servers_are_asked_instead_of_looking_for_java(bare_machine: None, monkeypatch) -> None:
    kafka, mongo = free_ports(2)
    monkeypatch.setenv("CLV_KAFKA_BOOTSTRAP_SERVERS", f"127.0.0.1:{kafka}")
    monkeypatch.setenv("CLV_MONGO_URI", f"mongodb://someone:secret@127.0.0.1:{mongo}/?connectTimeoutMS=100")
    monkeypatch.setattr("deploy.local.stack._ANSWER_TIMEOUT_S", 0.3)
    found = by_name()
    assert not {"Java", "Maven", "MongoDB"} & found.keys()
    unreachable = [found["Kafka (CLV_KAFKA_BOOTSTRAP_SERVERS)"], found["MongoDB (CLV_MONGO_URI)"]]
    assert all(not check.ok and "unset" in check.remedy for check in unreachable)
    assert "secret" not in str(found)


@pytest.mark.parametrize("variable", ["CLV_KAFKA_BOOTSTRAP_SERVERS", "CLV_MONGO_URI"])
def test_a_stack_with_a_named_server_that_does_not_answer_starts_nothing(
    bare_machine: None, monkeypatch, variable: str
) -> None:
    address = f"127.0.0.1:{free_ports(1)[0]}"
    monkeypatch.setenv(variable, address if "KAFKA" in variable else f"mongodb://{address}")
    monkeypatch.setattr("deploy.local.stack._ANSWER_TIMEOUT_S", 0.3)
    with pytest.raises(LocalStackError, match=variable) as error:
        LocalStack().start()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["localhost", "localhost:", ":9092", "localhost:http", "a:1,,"])
def test_bootstrap_servers_that_are_no_addresses_are_told(text: str) -> None:
    with pytest.raises(LocalStackError):
        check_kafka(text)


def test_the_doctor_of_this_machine_finds_python_and_cores() -> None:
    found = by_name()
    assert found["Python"].ok
    assert found["Cores"].detail == str(len(os.sched_getaffinity(0)))
