"""What the server of tests/warm.py loads before it forks. Dies with the process that started it, even by `kill -9`."""

import contextlib
import ctypes
import importlib
import signal

from deploy.local.die_with_parent import PR_SET_PDEATHSIG
from tests.warm import LIBRARIES

ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
for library in LIBRARIES:
    with contextlib.suppress(ImportError):
        importlib.import_module(library)
