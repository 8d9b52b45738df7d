from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.core.artifact import Store
from pipeline.core.submission import SENT
from tests.bad_input import Place
from tests.conftest import SaveModel


@pytest.fixture(scope="module")
def root_with_model(tmp_path_factory: pytest.TempPathFactory, save_model: SaveModel) -> tuple[Path, str]:
    root = tmp_path_factory.mktemp("root") / "runs"
    return root, save_model(Store.open(str(root)), "synthetic").removeprefix("models/")


@pytest.fixture
def place(tmp_path: Path, root_with_model, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setenv("TINY_MODEL", str(tiny_model))
    root, model = root_with_model
    tiny = f"--set recipe.model.id={tiny_model}"
    return Place(tmp_path, root, {"@tmp": str(tmp_path), "@tiny": tiny, "@model": model})


@pytest.fixture
def nothing_else_to_send(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable that would go with a job: other tests of this process have a store."""
    for name in SENT:
        if name != "HF_HUB_OFFLINE":
            monkeypatch.delenv(name, raising=False)
