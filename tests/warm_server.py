"""What the server of tests/warm.py loads before it forks. Dies with the process that started it, even by `kill -9`."""

import contextlib
import importlib

from deploy.local.die_with_parent import ask_to_die_with_parent
from tests.warm import LIBRARIES

ask_to_die_with_parent()
for library in LIBRARIES:
    with contextlib.suppress(ImportError):
        importlib.import_module(library)
