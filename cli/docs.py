"""Writes what is made from declarations: docs/metrics.md, settings.md and personal-data.md, and the Strimzi topics.

`python -m cli.docs` writes; with --check it writes nothing, lists what is stale and exits 1.
"""

import importlib
import importlib.util
import pkgutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic.fields import FieldInfo

import services
from deploy.topic_manifests import OWNED_GLOB, topic_manifest_files
from schemas.generate import Files, run, yaml_text
from schemas.personal_data import personal_data_page
from schemas.topic_pages import markdown_table
from services.api.document import openapi_document
from services.runtime.settings import PREFIX, CommonSettings
from services.runtime.telemetry import METRICS

COMMAND = "python -m cli.docs"


def generated_files() -> Files:
    """All files that this module writes."""
    return {
        Path("docs/metrics.md"): metrics_page(),
        Path("docs/settings.md"): settings_page(),
        Path("docs/personal-data.md"): personal_data_page(COMMAND),
        Path("schemas/openapi.yaml"): yaml_text(openapi_document(), COMMAND),
        **topic_manifest_files(COMMAND),
    }


def service_settings() -> Mapping[str, type[CommonSettings]]:
    """The settings class of each service that has one, by the service's name, found in services/<name>/settings.py."""
    found = {}
    for module in sorted(pkgutil.iter_modules(services.__path__), key=lambda module: module.name):
        name = f"services.{module.name}.settings"
        if not module.ispkg or module.name == "runtime" or importlib.util.find_spec(name) is None:
            continue
        classes = [
            value
            for value in vars(importlib.import_module(name)).values()
            if isinstance(value, type) and issubclass(value, CommonSettings) and value.__module__ == name
        ]
        if len(classes) != 1:
            raise ValueError(f"{name} must declare one settings class, it declares {len(classes)}")
        found[module.name] = classes[0]
    return found


def environment_name(field: str) -> str:
    """The environment variable of a settings field."""
    return PREFIX + field.upper()


def settings_page() -> str:
    """docs/settings.md: every setting of every service."""
    parts = [
        "# Settings\n\n<!-- Made by `python -m cli.docs`. Do not edit. -->\n\n"
        "Every service reads its settings from environment variables. A value that is wrong, or a variable "
        "`CLV_<SERVICE>_…` that the service does not know, ends it at once with one line that says which.\n",
        "## All services\n",
        _settings_table(CommonSettings, set()),
    ]
    for name, settings in service_settings().items():
        own = _settings_table(settings, set(CommonSettings.model_fields))
        parts += [f"## {name}\n", f"`python -m services.{name}`\n", own]
    return "\n".join(parts)


def _settings_table(settings: type[CommonSettings], without: set[str]) -> str:
    rows = [
        [f"`{environment_name(name)}`", _type_name(field.annotation), _default(field), _meaning(field)]
        for name, field in settings.model_fields.items()
        if name not in without
    ]
    return markdown_table(["variable", "type", "default", "meaning"], rows)


def _type_name(annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        return " or ".join(f"`{value}`" for value in get_args(annotation))
    if get_origin(annotation) is Annotated:
        return _type_name(get_args(annotation)[0])
    if get_origin(annotation) is tuple:
        return "texts, comma-separated"
    if get_args(annotation):
        return " or ".join(_type_name(part) for part in get_args(annotation))
    return {"NoneType": "empty", "str": "text", "int": "whole number", "float": "number", "bool": "true or false"}.get(
        getattr(annotation, "__name__", str(annotation)), getattr(annotation, "__name__", str(annotation)).lower()
    )


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True, validated_data={})
    return "none" if value is None or value == () else f"`{value}`" if value != "" else "empty"


def _meaning(field: FieldInfo) -> str:
    bounds = []
    for constraint in field.metadata:
        match constraint:
            case Ge(ge=bound):
                bounds.append(f"at least {bound}")
            case Gt(gt=bound):
                bounds.append(f"more than {bound}")
            case Le(le=bound):
                bounds.append(f"at most {bound}")
            case Lt(lt=bound):
                bounds.append(f"less than {bound}")
    text = (field.description or "").rstrip(".")
    return text + (f" ({', '.join(bounds)})" if bounds else "")


def metrics_page() -> str:
    """docs/metrics.md: every metric that a service may expose."""
    parts = [
        "# Metrics\n\n<!-- Made by `python -m cli.docs`. Do not edit. -->\n\n"
        "Every service answers `/metrics` in Prometheus's text format, beside `/healthz` and `/readyz`. A metric "
        "appears once it has been used.\n"
    ]
    for service in dict.fromkeys(metric.service for metric in METRICS):
        rows = [
            [
                f"`{metric.name}`",
                metric.kind,
                metric.unit,
                ", ".join(f"`{label}`" for label in metric.labels),
                metric.meaning,
            ]
            for metric in METRICS
            if metric.service == service
        ]
        title = "All services" if service == "all" else service
        parts += [f"## {title}\n", markdown_table(["metric", "kind", "unit", "labels", "meaning"], rows)]
    return "\n".join(parts)


if __name__ == "__main__":
    sys.exit(run(generated_files(), (OWNED_GLOB,), COMMAND, sys.argv[1:]))
