"""deploy/packages/install.sh: asks apt-get for what is missing alone, and says in one line what it could not do."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[3] / "deploy" / "packages" / "install.sh"
NEEDED = ("bash", "env", "mktemp", "rm", "tail", "cat", "touch", "chmod")


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A folder of commands that is all a machine has: no chromium, no apt-get."""
    commands = tmp_path / "bin"
    commands.mkdir()
    for name in NEEDED:
        (commands / name).symlink_to(str(shutil.which(name)))
    return commands


def add(machine: Path, name: str, lines: str) -> None:
    (machine / name).write_text(f"#!{machine / 'bash'}\n{lines}\n")
    (machine / name).chmod(0o755)


def run(machine: Path) -> tuple[int, list[str]]:
    done = subprocess.run(
        [str(machine / "bash"), str(SCRIPT)],
        env={"PATH": str(machine)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.stdout == ""
    return done.returncode, done.stderr.splitlines()


def as_root(machine: Path) -> None:
    """Where tests run as somebody else, sudo that needs no password."""
    if os.geteuid() != 0:
        add(machine, "sudo", '[[ $1 == -n ]] && shift\nexec "$@"')


def test_nothing_happens_where_everything_is_there(machine):
    add(machine, "chromium", "exit 0")
    add(machine, "apt-get", "exit 1")
    assert run(machine) == (0, [])


def test_what_is_missing_is_installed_after_the_lists_of_a_fresh_image_are_fetched(machine):
    as_root(machine)
    lists, chromium = machine.parent / "lists", machine / "chromium"
    add(
        machine, "apt-get",
        f'for word; do case $word in update) touch {lists};; install) [[ -e {lists} ]] || exit 100\n'
        f"touch {chromium}; chmod +x {chromium};; esac; done",
    )  # fmt: skip
    assert run(machine) == (0, ["packages: installing chromium"])
    assert chromium.exists()
    assert run(machine) == (0, [])


def test_a_machine_without_apt_is_told_in_one_line(machine):
    code, lines = run(machine)
    assert code == 0
    assert len(lines) == 1
    assert "chromium missing" in lines[0]
    assert "tests in a browser cannot run" in lines[0]


def test_what_apt_says_at_last_is_told(machine):
    as_root(machine)
    add(machine, "apt-get", "echo 'E: Unable to locate package' >&2; exit 100")
    code, lines = run(machine)
    assert code == 0
    assert "E: Unable to locate package" in lines[-1]


@pytest.mark.skipif(os.geteuid() == 0, reason="root needs no sudo")
def test_without_root_nothing_asks_for_a_password(machine):
    add(machine, "apt-get", "exit 0")
    code, lines = run(machine)
    assert code == 0
    assert "needs root" in lines[0]
