"""Fixtures of the feature worker's tests."""

from pathlib import Path

import pytest

from tests.integration.features_support import features_environment


@pytest.fixture
def environment(topics: str, tmp_path: Path) -> dict[str, str]:
    """Settings of a feature worker with empty topics, a folder of its own and a bundle."""
    return features_environment(topics, tmp_path)
