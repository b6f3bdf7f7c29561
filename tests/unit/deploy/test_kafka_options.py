"""Java options of a local broker: the caller's, and those of the variable that Kafka's own scripts read."""

import pytest

from deploy.local import LocalStackError
from deploy.local.kafka import LocalKafka


def test_options_of_the_environment_come_before_the_callers(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("KAFKA_OPTS", "-Done=1 '-Dtwo=2 and more'")
    options = LocalKafka(jvm_options=("-Dthree=3",))._java_options([])
    assert [each for each in options if each.startswith(("-Done", "-Dtwo", "-Dthree"))] == [
        "-Done=1",
        "-Dtwo=2 and more",
        "-Dthree=3",
    ]


def test_an_empty_variable_adds_nothing(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("KAFKA_OPTS", "-Done=1")
    more = LocalKafka()._java_options([])
    monkeypatch.setenv("KAFKA_OPTS", "")
    assert [each for each in more if each != "-Done=1"] == LocalKafka()._java_options([])


def test_without_the_variable_one_compiler_works(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("KAFKA_OPTS", "")
    both_compilers = LocalKafka()._java_options([])
    monkeypatch.delenv("KAFKA_OPTS")
    options = LocalKafka()._java_options([])
    assert [each for each in options if each not in both_compilers] == ["-XX:TieredStopAtLevel=1"]


def test_a_variable_that_cannot_be_read_is_said(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("KAFKA_OPTS", "-Done='not closed")
    with pytest.raises(LocalStackError, match=r"KAFKA_OPTS=-Done='not closed cannot be read: .* Mend or unset it"):
        LocalKafka()
