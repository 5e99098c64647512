"""A trained model, and an MLflow store in the test's folder."""

from pathlib import Path

import pytest

from registry.models import ModelRegistry
from registry.settings import Settings


@pytest.fixture
def registry(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModelRegistry:
    monkeypatch.chdir(tmp_path)
    return ModelRegistry(settings)
