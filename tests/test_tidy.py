"""Style as a test: what every module, setting, metric and document must have, and what must appear nowhere."""

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.docs import environment_name, service_settings
from services.runtime.http.settings import HttpSettings
from services.runtime.settings import CommonSettings
from services.runtime.telemetry import METRICS

ROOT = Path(__file__).parent.parent
PACKAGES = ("domain", "schemas", "services", "cli", "deploy")
LINES_MAX = 500
DOCUMENTS = ("README.md", "ARCHITECTURE.md", "CHANGELOG.md")
FORBIDDEN = {
    # Written in pieces, so that this file does not contain them.
    "a machine's folder": re.compile(r"(?<![\w.])((/wo" r"rk|/ro" r"ot)(?![\w-])|/tm" r"p/)"),
    "a package registry's host": re.compile(
        r"(py" r"pi\.org|pythonhosted\." r"org|npm" r"js\.|repo1\.maven\." r"org|proxy\." r"golang)", re.IGNORECASE
    ),
}
VENDORED = ("tests/contract/asyncapi/",)
"""Files of others, unchanged."""


def tracked() -> list[Path]:
    """Files that git has or would take."""
    done = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return sorted(path for name in done.stdout.split("\0") if name and (path := ROOT / name).is_file())


TRACKED = tracked()
PYTHON = [path for path in TRACKED if path.suffix == ".py"]
MODULES = [path for path in PYTHON if path.relative_to(ROOT).parts[0] in PACKAGES]


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_every_module_begins_with_what_it_is_for():
    without = []
    for path in MODULES:
        text = path.read_text()
        if path.name == "__init__.py" and not text.strip():
            continue
        docstring = ast.get_docstring(ast.parse(text))
        if docstring is None or len(docstring.split()) < 3:
            without.append(name(path))
    assert without == []


def test_every_public_function_and_class_of_a_module_is_documented():
    without = [
        f"{name(path)}:{node.lineno} {node.name}"
        for path in MODULES
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        and not node.name.startswith("_")
        and ast.get_docstring(node) is None
        and not is_plain_struct(node)
    ]
    assert without == []


def is_plain_struct(node: ast.AST) -> bool:
    """A class of fields alone: the fields say what it is."""
    return isinstance(node, ast.ClassDef) and all(
        isinstance(part, ast.AnnAssign) or (isinstance(part, ast.Expr) and isinstance(part.value, ast.Constant))
        for part in node.body
    )


def test_no_file_of_code_is_too_long():
    long = {name(path): count for path in PYTHON if (count := len(path.read_text().splitlines())) > LINES_MAX}
    assert long == {}


def test_modules_are_named_for_their_purpose():
    vague = {"utils.py", "util.py", "helpers.py", "misc.py", "common.py"}
    assert [name(path) for path in TRACKED if path.name in vague] == []


def test_no_file_names_a_machine_or_a_package_registry():
    found = []
    for path in TRACKED:
        if name(path).startswith(VENDORED):
            continue
        try:
            lines = path.read_text().splitlines()
        except UnicodeDecodeError:
            continue
        for number, line in enumerate(lines, 1):
            found += [f"{name(path)}:{number}: {what}" for what, seen in FORBIDDEN.items() if seen.search(line)]
    assert found == []


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("cd /wo" + "rk/main", True),
        ('Path("/tm' + 'p/x")', True),
        ("/ro" + "ot/.cache", True),
        ("https://files.pythonhosted." + "org/x", True),
        ("tmpfs: [/tmp]", False),
        ("{ name: tmp, mountPath: /tmp }", False),
        ("a framework/worker", False),
        ("deploy/k8s/topics", False),
    ],
)
def test_what_counts_as_a_machines_name(line: str, wrong: bool):
    assert any(seen.search(line) for seen in FORBIDDEN.values()) is wrong


def settings_fields() -> Iterator[tuple[str, str | None]]:
    for settings in (CommonSettings, *service_settings().values()):
        for field, info in settings.model_fields.items():
            yield environment_name(field), info.description


def test_every_setting_is_described():
    assert [variable for variable, description in settings_fields() if not description or len(description) < 5] == []


def test_a_services_settings_carry_its_name():
    """Except those that mean the same to several services, which must then be described alike in type."""
    shared: dict[str, object] = {}
    for service, settings in service_settings().items():
        own = settings.model_fields.keys() - CommonSettings.model_fields.keys()
        for field in own:
            if not field.startswith(f"{service}_"):
                info = settings.model_fields[field]
                meaning = (info.annotation, info.default)
                assert shared.setdefault(field, meaning) == meaning, f"{field} differs between services"
    of_http = set(HttpSettings.model_fields) - set(CommonSettings.model_fields)
    assert set(shared) <= {"models_dir", "mongo_uri", "mongo_database"} | of_http


@pytest.mark.parametrize("metric", METRICS, ids=[metric.name for metric in METRICS])
def test_a_metric_is_named_and_explained(metric):
    assert re.fullmatch(r"clv_[a-z0-9]+(_[a-z0-9]+)*", metric.name)
    assert metric.unit
    assert len(metric.meaning) > 10
    assert metric.meaning.endswith(".")
    assert (metric.kind == "counter") == metric.name.endswith("_total")
    if metric.unit in ("seconds", "bytes"):
        assert f"_{metric.unit}" in metric.name, "the unit is part of the name"
    assert all(re.fullmatch(r"[a-z][a-z0-9_]*", label) for label in metric.labels)


def test_every_service_that_a_metric_is_counted_in_exists():
    services = {path.parent.name for path in MODULES if path.relative_to(ROOT).parts[0] == "services"}
    assert {metric.service for metric in METRICS} <= services | {"all"}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_the_document_exists(document: str):
    assert len((ROOT / document).read_text()) > 100


MARKDOWN = [path for path in TRACKED if path.suffix == ".md" and not name(path).startswith(VENDORED)]


def links(text: str) -> Iterator[str]:
    """Targets of links within the repository; code blocks are not read."""
    prose = re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        if not re.match(r"[a-z]+:", target):
            yield target


def fragments(text: str) -> set[str]:
    """Anchors of a document's headings."""
    headings = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", MARKDOWN, ids=[name(path) for path in MARKDOWN])
def test_every_link_within_the_repository_leads_somewhere(path: Path):
    broken = []
    for target in links(path.read_text()):
        file, _, fragment = target.partition("#")
        where = (path.parent / file).resolve() if file else path
        exists = where.exists()
        if exists and fragment and where.suffix == ".md":
            exists = fragment in fragments(where.read_text())
        if not exists:
            broken.append(target)
    assert broken == []
