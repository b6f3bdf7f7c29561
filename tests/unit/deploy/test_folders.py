"""Data folders belong to one process at a time; temporary ones do not pile up; ports are free and different."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.local import folders
from deploy.local.errors import LocalStackError
from deploy.local.folders import DataFolder, free_ports, is_free

ROOT = Path(__file__).parents[3]


def test_a_folder_in_use_is_refused_until_it_is_released(tmp_path: Path) -> None:
    first = DataFolder(tmp_path / "data", "kafka")
    with pytest.raises(LocalStackError, match="in use"):
        DataFolder(tmp_path / "data", "kafka")
    first.release()
    DataFolder(tmp_path / "data", "kafka").release()


def test_a_given_folder_is_kept_and_a_temporary_one_deleted(tmp_path: Path) -> None:
    given, temporary = DataFolder(tmp_path / "data", "kafka"), DataFolder(None, "kafka")
    for folder in (given, temporary):
        (folder.path / "file").write_text("x")
        folder.release()
        folder.release()
    assert (given.path / "file").exists()
    assert not temporary.path.exists()


def test_a_path_that_cannot_be_a_folder_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LocalStackError, match="cannot make the kafka folder") as error:
        DataFolder(tmp_path / "file" / "data", "kafka")
    assert "\n" not in str(error.value)


def test_a_killed_process_s_temporary_folder_is_deleted_by_the_next_and_a_living_one_s_is_not(
    tmp_path: Path, monkeypatch
) -> None:
    code = (
        "import sys; from deploy.local.folders import DataFolder;"
        "folder = DataFolder(None, 'kafka'); print(folder.path, flush=True); sys.stdin.read()"
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    holders = [
        subprocess.Popen(
            [sys.executable, "-c", code], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    try:
        dead, living = (Path(holder.stdout.readline().strip()) for holder in holders)
        holders[0].send_signal(signal.SIGKILL)
        holders[0].wait()
        assert dead.exists()
        monkeypatch.setattr(folders.tempfile, "tempdir", str(tmp_path))
        DataFolder(None, "mongodb").release()
        assert not dead.exists()
        assert living.exists()
    finally:
        for holder in holders:
            holder.kill()
            holder.communicate()


def test_free_ports_are_different_free_and_not_the_avoided_ones() -> None:
    ports = free_ports(20)
    assert len(set(ports)) == 20
    assert all(map(is_free, ports))
    assert not set(ports) & set(free_ports(20, avoid=ports))


def test_a_port_on_which_somebody_listens_is_not_free() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert not is_free(server.getsockname()[1])


def test_running_out_of_ports_is_said(monkeypatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        monkeypatch.setenv("CLV_LOCAL_PORTS", f"{port}-{port}")
        with pytest.raises(LocalStackError, match=f"no free TCP port between {port} and {port} "):
            free_ports(1)


def test_ports_are_taken_from_where_it_is_told(monkeypatch) -> None:
    monkeypatch.setenv("CLV_LOCAL_PORTS", "19000-19999")
    assert all(19_000 <= port < 20_000 for port in free_ports(30))
    monkeypatch.delenv("CLV_LOCAL_PORTS")
    assert all(20_000 <= port < 32_000 for port in free_ports(30))


@pytest.mark.parametrize("given", ["20000", "20999-20000", "0-10", "1-70000", "a-b", "20000-20999-"])
def test_what_is_no_range_of_ports_is_said(monkeypatch, given: str) -> None:
    monkeypatch.setenv("CLV_LOCAL_PORTS", given)
    with pytest.raises(LocalStackError, match=f"CLV_LOCAL_PORTS={given} is not a range of ports"):
        free_ports(1)
