"""The pages of a study, with stages that only note that they ran."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pipeline.core.artifact import Store
from pipeline.core.model_identity import WEIGHTS
from tests.image_sets import small_config
from tests.study_stages import Stages, run, study


@pytest.fixture
def stages(monkeypatch: pytest.MonkeyPatch) -> Stages:
    return Stages(monkeypatch)


def test_at_the_end_every_cell_has_a_page_beside_its_twin_over_all_seeds(stages: Stages, store: Store) -> None:
    run(store, max_cells=1)
    assert stages.pairs == []
    run(store)
    assert stages.pairs == [{"synthetic": 2, "real": 2}] * 3
    text = store.read_bytes("studies/small/pages.md").decode()
    assert text.count("](../../reports/") == 3 and "guidance=4](" in text and "gap +0.050" in text


def test_rows_that_are_run_one_by_one_are_all_in_the_list_of_pages(stages: Stages, store: Store) -> None:
    run(store, "guidance=4")
    run(store, "guidance=2")
    text = store.read_bytes("studies/small/pages.md").decode()
    assert text.index("guidance=2 images=1x](") < text.index("guidance=4](")


def test_the_list_of_another_plan_of_this_name_does_not_stay(stages: Stages, store: Store) -> None:
    """With other words the table is another one at once; the pages beside it are no longer its own."""
    run(store)
    base = small_config().model_copy(update={"images_per_class": 4})
    study(store, base=base).run(lambda _: None, max_cells=1, slots=2)
    text = store.read_bytes("studies/small/pages.md").decode()
    assert text.count("](../../reports/") == 1 and "images=2x](" in text  # of a size that both plans have


def test_results_whose_models_are_gone_are_still_a_table(stages: Stages, store: Store, tmp_path: Path) -> None:
    run(store)
    shutil.rmtree(tmp_path / "models")
    said: list[str] = []
    study(store).run(said.append, slots=2)
    assert len(stages.pairs) == 3 and sum("not all its models" in line for line in said) == 3


def test_a_mixed_cell_has_a_page_beside_its_twin_too(stages: Stages, store: Store) -> None:
    mixed = small_config()
    mixed = mixed.model_copy(update={"train": mixed.train.model_copy(update={"data": "mixed"})})
    study(store, base=mixed).run(lambda _: None, slots=2)
    assert stages.pairs == [{"mixed": 2, "real": 2}] * 3
    assert store.read_bytes("studies/small/pages.md").decode().count("gap +0.050") == 3


def test_a_page_of_models_as_they_were_before_is_not_listed(stages: Stages, store: Store) -> None:
    run(store)
    begun = study(store)
    twin = next(trial for trial in begun.plan.trials() if trial[0].is_real)
    store.write_json(f"{begun.models[twin]}/manifest.json", {"files": {WEIGHTS: "trained again"}, "num_images": 20})
    run(store, "guidance=4")  # makes this cell's page anew; the others' pages still tell of the twin that is gone
    text = store.read_bytes("studies/small/pages.md").decode()
    assert "guidance=4](" in text and "guidance=2 images=1x](" not in text
