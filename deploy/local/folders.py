"""Data folders and ports of the embedded servers: who owns a folder, what becomes of a temporary one, free ports.

Must never delete a folder that was given by the user, nor one that another living process still uses.
"""

import contextlib
import fcntl
import os
import random
import re
import shutil
import socket
import tempfile
from collections.abc import Iterable
from pathlib import Path

from deploy.local.errors import LocalStackError

# Below the range from which the kernel takes the local ports of outgoing connections (32768 and up): one of those could
# be taken by any client while its server is down for a moment, in a restart.
_PORTS = range(20_000, 32_000)
PORTS_VARIABLE = "CLV_LOCAL_PORTS"
"""Environment variable with other ports to take from: "20000-20999"."""
_TEMPORARY_PREFIX = "clv-local-"
_LOCK_NAME = ".in-use"


class DataFolder:
    """A folder that one process at a time uses. Given: kept. Temporary (path is None): deleted by `release`.

    Raises LocalStackError if another process, or another server in this one, uses the given folder.
    """

    def __init__(self, path: Path | str | None, what: str) -> None:
        self.temporary = path is None
        if path is None:
            _delete_abandoned()
            self.path = Path(tempfile.mkdtemp(prefix=f"{_TEMPORARY_PREFIX}{what}-"))
        else:
            self.path = Path(path).resolve()
            self._make(what)
        # A temporary folder's lock gets its name only once it is held: nobody can find it abandoned before.
        lock = self.path / (f"{_LOCK_NAME}.new" if self.temporary else _LOCK_NAME)
        self._lock_fd = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock_fd)
            raise LocalStackError(
                f"the {what} folder {self.path} is in use: stop the process that uses it, or give another folder"
            ) from None
        if self.temporary:
            lock.rename(self.path / _LOCK_NAME)

    def _make(self, what: str) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise LocalStackError(f"cannot make the {what} folder {self.path}: {error.strerror}") from None
        if not os.access(self.path, os.W_OK | os.X_OK):
            raise LocalStackError(f"cannot write to the {what} folder {self.path}: give another one")

    def release(self) -> None:
        """Let others use it; delete it if it is a temporary one. Safe to call twice."""
        if self._lock_fd < 0:
            return
        if self.temporary:
            shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock_fd)
        self._lock_fd = -1


def _delete_abandoned() -> None:
    """Delete temporary folders whose process was killed: the lock of a living one is held."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_TEMPORARY_PREFIX}*"):
        with contextlib.suppress(OSError):  # another user's folder, or one that has just been deleted
            lock_fd = os.open(folder / _LOCK_NAME, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock_fd)


def is_free(port: int) -> bool:
    """Whether a server could listen on this TCP port of 127.0.0.1 now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the servers do: TIME_WAIT does not matter
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def free_ports(count: int, avoid: Iterable[int] = ()) -> list[int]:
    """`count` different TCP ports of 127.0.0.1 that are free now. Another process may still take them first.

    Raises LocalStackError if there are none, or $CLV_LOCAL_PORTS is not a range of ports.
    """
    taken, candidates = set(avoid), _candidates()
    ports: list[int] = []
    for port in random.sample(candidates, len(candidates)):
        if len(ports) == count:
            break
        if port not in taken and is_free(port):
            ports.append(port)
    if len(ports) < count:
        raise LocalStackError(f"no free TCP port between {candidates.start} and {candidates.stop - 1} on 127.0.0.1")
    return ports


def _candidates() -> range:
    given = os.environ.get(PORTS_VARIABLE)
    if not given:
        return _PORTS
    found = re.fullmatch(r"(\d{1,5})-(\d{1,5})", given)
    if not found or not 0 < int(found[1]) <= int(found[2]) < 1 << 16:
        raise LocalStackError(f"{PORTS_VARIABLE}={given} is not a range of ports such as 20000-20999: mend or unset it")
    return range(int(found[1]), int(found[2]) + 1)
