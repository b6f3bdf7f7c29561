"""./clv: quiet and quick when all is installed, one line when it cannot work; a half-made .venv is not taken for whole.

The `integration` tests here really install, from the index that pip's own configuration names.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
CLI = """
import json, os, sys
try:
    import iniconfig
except ImportError:
    iniconfig = None
print(json.dumps([sys.argv[1:], os.getcwd(), sys.prefix, iniconfig is not None]))
sys.exit(int(sys.argv[2]) if len(sys.argv) > 2 else 0)
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A repository with the real script, small real locks, and a cli that tells what it sees."""
    root = tmp_path / "a repository"  # the blank is meant
    (root / "cli").mkdir(parents=True)
    (root / "cli" / "__main__.py").write_text(CLI)
    (root / "locks").mkdir()
    shutil.copy2(ROOT / "clv", root / "clv")
    shutil.copy2(ROOT / "locks" / "bootstrap.txt", root / "locks")
    dev = (ROOT / "locks" / "dev.txt").read_text()
    pins = {name: _pin(dev, name) for name in ("idna", "iniconfig")}
    (root / "locks" / "cli.txt").write_text(pins["idna"])
    (root / "locks" / "dev.txt").write_text(pins["idna"] + pins["iniconfig"])
    return root


def _pin(lock: str, package: str) -> str:
    match = re.search(rf"^{package}==(?:.*\\\n)*.*\n", lock, re.MULTILINE)
    assert match is not None
    return match[0]


def run(root: Path, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    env = {**os.environ, **environment}
    env.pop("PYTHONPATH", None)
    return subprocess.run(
        [root / "clv", *arguments], cwd=root.parent, env=env, capture_output=True, text=True, check=False, timeout=240
    )


def seen(done: "subprocess.CompletedProcess[str]") -> tuple[list[str], str, str, bool]:
    """What the cli saw: arguments, working folder, environment prefix, whether dev's package is there."""
    assert done.stdout, done.stderr
    arguments, folder, prefix, has_dev = json.loads(done.stdout)
    return arguments, folder, prefix, has_dev


@pytest.fixture
def installed(tree: Path) -> Path:
    """The tree with a .venv that counts as installed."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tree / ".venv"], check=True)
    digest = hashlib.sha256((tree / "locks" / "cli.txt").read_bytes()).hexdigest()
    (tree / ".venv" / ".clv-installed").write_text(f"cli {digest}\n")
    return tree


def test_when_installed_it_only_hands_over_arguments_folder_and_exit_code(installed: Path) -> None:
    done = run(installed, "do", "3", "a b", "*")
    arguments, folder, prefix, _ = seen(done)
    assert (done.returncode, done.stderr) == (3, "")
    assert arguments == ["do", "3", "a b", "*"]
    assert folder == str(installed.parent)  # relative file names mean what they mean to the user
    assert prefix == str(installed / ".venv")


def test_it_works_through_a_link_and_without_arguments(installed: Path) -> None:
    link = installed.parent / "elsewhere"
    link.symlink_to(installed / "clv")
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([link], cwd="/", env=env, capture_output=True, text=True, check=False, timeout=60)
    assert seen(done)[:2] == ([], "/")


def test_a_file_in_the_users_folder_does_not_pass_for_a_module(installed: Path) -> None:
    (installed.parent / "json.py").write_text("raise SystemExit('the wrong json')")
    (installed.parent / "cli.py").write_text("raise SystemExit('the wrong cli')")
    assert seen(run(installed, "x"))[0] == ["x"]


def test_without_python_3_11_it_says_in_one_line_what_to_install(tree: Path) -> None:
    programs = tree.parent / "programs"
    programs.mkdir()
    for name in ("bash", "env", "readlink", "dirname", "sha256sum", "cut", "mkdir", "flock"):
        (programs / name).symlink_to(shutil.which(name) or name)
    (programs / "python3").write_text("#!/bin/sh\nexit 1\n")  # another version
    (programs / "python3").chmod(0o755)
    done = run(tree, "x", PATH=str(programs))
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "apt install python3.11" in done.stderr
    assert not (tree / ".venv").exists()


@pytest.fixture
def cache(tmp_path: Path) -> dict[str, str]:
    return {"UV_CACHE_DIR": str(tmp_path / "uv-cache")}


@pytest.mark.integration
@pytest.mark.long
def test_it_installs_once_then_again_only_for_another_lock(tree: Path, cache: dict[str, str]) -> None:
    first = run(tree, "x", **cache)
    assert seen(first)[3] is False
    assert first.stderr.count("\n") == 1
    assert run(tree, "x", **cache).stderr == ""
    dev = run(tree, "test", **cache)
    assert "dev.txt" in dev.stderr
    assert seen(dev)[3] is True
    again = run(tree, "x", **cache)  # dev holds all of cli
    assert (again.stderr, seen(again)[3]) == ("", True)
    with (tree / "locks" / "dev.txt").open("a") as lock:
        lock.write("# changed\n")
    changed = run(tree, "x", **cache)
    assert "dev.txt" in changed.stderr  # not cli.txt: that would take the developer's tools away
    assert seen(changed)[3] is True


@pytest.mark.integration
@pytest.mark.long
def test_what_an_interrupt_left_is_made_anew(tree: Path, cache: dict[str, str]) -> None:
    (tree / ".venv" / "bin").mkdir(parents=True)
    (tree / ".venv" / ".clv-unfinished").touch()
    (tree / ".venv" / "bin" / "python").write_text("half")
    assert seen(run(tree, "x", **cache))[0] == ["x"]
    assert not (tree / ".venv" / ".clv-unfinished").exists()


@pytest.mark.integration
@pytest.mark.long
def test_two_at_once_install_once(tree: Path, cache: dict[str, str]) -> None:
    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(lambda word: run(tree, word, **cache), ["a", "b"]))
    assert [seen(each)[0] for each in done] == [["a"], ["b"]]
    assert sorted(each.stderr.count("\n") for each in done) == [0, 1]


@pytest.mark.integration
@pytest.mark.long
def test_without_uv_pip_installs_the_same(tree: Path, cache: dict[str, str]) -> None:
    (tree / "locks" / "bootstrap.txt").write_text("uv==0.0.0 --hash=sha256:" + "0" * 64 + "\n")
    assert seen(run(tree, "test", **cache))[3] is True


@pytest.mark.integration
@pytest.mark.long
def test_a_package_that_does_not_match_its_hash_is_refused(tree: Path, cache: dict[str, str]) -> None:
    lock = tree / "locks" / "cli.txt"
    lock.write_text(re.sub(r"sha256:\w{64}", "sha256:" + "0" * 64, lock.read_text()))
    done = run(tree, "x", **cache)
    assert done.returncode == 1
    assert done.stdout == ""
    assert "clv: pip could not install locks/cli.txt" in done.stderr
    assert (tree / ".venv" / ".clv-unfinished").exists()
