"""Settings come from the environment, typed; what is wrong or unknown is named."""

from typing import Annotated

import pytest
from pydantic import Field

from services.runtime.settings import CommonSettings, SettingsError, load
from services.runtime.shutdown import KnownProblem


class ShopSettings(CommonSettings):
    shop_http_port: Annotated[int, Field(description="Port", ge=1, le=65535)] = 8123
    shop_name: Annotated[str, Field(description="Name")] = "corner"


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch):
    import os

    for name in list(os.environ):
        if name.startswith("CLV_"):
            monkeypatch.delenv(name)


def test_without_an_environment_the_defaults_hold():
    settings = load(ShopSettings, "shop")
    assert settings.shop_http_port == 8123
    assert settings.kafka_bootstrap_servers == "localhost:9092"
    assert settings.http_host == "127.0.0.1", "not reachable from outside unless asked for"


def test_a_variable_is_the_prefix_and_the_field_in_capitals(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CLV_SHOP_HTTP_PORT", "9000")
    monkeypatch.setenv("CLV_KAFKA_BOOTSTRAP_SERVERS", "a:1,b:2")
    settings = load(ShopSettings, "shop")
    assert settings.shop_http_port == 9000
    assert settings.kafka_bootstrap_servers == "a:1,b:2"


def test_a_typing_error_in_a_name_is_refused_and_the_right_name_suggested(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CLV_SHOP_HTTP_PROT", "9000")
    with pytest.raises(SettingsError, match="unknown setting CLV_SHOP_HTTP_PROT; did you mean CLV_SHOP_HTTP_PORT"):
        load(ShopSettings, "shop")


def test_an_unknown_name_that_resembles_nothing_is_refused_without_a_guess(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CLV_SHOP_QQQQQQQQQQQQQQQQQQ", "1")
    with pytest.raises(SettingsError) as raised:
        load(ShopSettings, "shop")
    assert str(raised.value) == "unknown setting CLV_SHOP_QQQQQQQQQQQQQQQQQQ"


def test_another_services_settings_are_left_alone(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CLV_SINK_BATCH", "1")
    assert load(ShopSettings, "shop").shop_name == "corner"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CLV_SHOP_HTTP_PORT", "http"),
        ("CLV_SHOP_HTTP_PORT", "70000"),
        ("CLV_KAFKA_WAIT_SECONDS", "0"),
        ("CLV_CURRENCY", "usd"),
        ("CLV_LOG_LEVEL", "loud"),
        ("CLV_LOG_FORMAT", "xml"),
    ],
)
def test_a_wrong_value_is_refused_with_the_variable_and_the_value(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as raised:
        load(ShopSettings, "shop")
    assert str(raised.value).startswith(f"setting {name}: ")
    assert repr(value) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_wrong_setting_is_a_problem_that_the_operator_can_mend():
    assert issubclass(SettingsError, KnownProblem)


def test_settings_do_not_change_after_start():
    settings = load(ShopSettings, "shop")
    with pytest.raises(ValueError, match="frozen"):
        settings.currency = "EUR"
