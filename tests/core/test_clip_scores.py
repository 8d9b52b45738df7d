"""Whether an audit is of the images that its scores are to choose from."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.core import image_set
from pipeline.core.artifact import Store
from pipeline.core.clip_scores import check_audited
from pipeline.core.errors import InputError
from pipeline.core.image_set import each_summary, prefix_shards, set_totals
from pipeline.core.recipe import Recipe
from tests.image_sets import small_config, write_image_set

AUDIT = "ab" * 8
CONFIG = small_config(images_per_class=4, shard_size=10)


@pytest.fixture
def made(tmp_path: Path) -> tuple[Store, Recipe]:
    store = Store.open(str(tmp_path))
    return store, write_image_set(CONFIG, store)


def sha256(store: Store, recipe: Recipe, images_per_class: int) -> str:
    numbers, _ = prefix_shards(store, recipe, images_per_class)
    return str(set_totals(each_summary(store, recipe.images_dir, numbers))["set_sha256"])


def write_audit(store: Store, recipe: Recipe, images_per_class: int = 4) -> None:
    """What an audit of the set as it is now is told by."""
    found = sha256(store, recipe, images_per_class)
    identity = {"images_per_class": images_per_class, "set_sha256": found}
    store.write_json(f"audits/{AUDIT}/manifest.json", {"identity": identity})


def test_a_set_that_was_made_again_is_another_one_than_was_audited(made: tuple[Store, Recipe]) -> None:
    store, recipe = made
    write_audit(store, recipe)
    check_audited(store, AUDIT, recipe, 4, sha256(store, recipe, 4))
    write_image_set(CONFIG, store, lambda number, row: {**row, "sha256": f"{number:064x}"})
    says = r"--images-per-class 4 --set audit.clip_images_per_class=4 --set audit.clip.id=FOLDER`"
    with pytest.raises(InputError, match=rf"is of other images than .*; run `python -m jobs.audit {says}"):
        check_audited(store, AUDIT, recipe, 4, sha256(store, recipe, 4))


def test_an_audit_of_more_images_is_held_to_all_that_it_saw(made: tuple[Store, Recipe]) -> None:
    store, recipe = made
    write_audit(store, recipe)
    check_audited(store, AUDIT, recipe, 2, sha256(store, recipe, 2))
    write_image_set(CONFIG, store, lambda number, row: {**row, "sha256": "0" * 64} if number >= 30 else row)
    with pytest.raises(InputError, match="is of other images than"):
        check_audited(store, AUDIT, recipe, 2, sha256(store, recipe, 2))


def test_an_audit_of_more_images_than_the_set_has_is_of_another_one(made: tuple[Store, Recipe]) -> None:
    store, recipe = made
    identity = {"images_per_class": 9, "set_sha256": "0" * 64}
    store.write_json(f"audits/{AUDIT}/manifest.json", {"identity": identity})
    with pytest.raises(InputError, match="is of other images than"):
        check_audited(store, AUDIT, recipe, 4, sha256(store, recipe, 4))


def test_an_audit_that_never_ended_has_no_scores(made: tuple[Store, Recipe]) -> None:
    store, recipe = made
    with pytest.raises(InputError, match="has no scores of CLIP"):
        check_audited(store, AUDIT, recipe, 4, sha256(store, recipe, 4))


def test_the_footers_of_an_audit_of_as_many_images_are_not_read_again(
    made: tuple[Store, Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, recipe = made
    write_audit(store, recipe)
    known = sha256(store, recipe, 4)
    monkeypatch.delattr(image_set, "read_summary")
    check_audited(store, AUDIT, recipe, 4, known)
