"""`jobs.preview` on real Ray: the images of the set, made before the set, and nothing of the set written."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
from html import escape
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from jobs import preview as job
from pipeline.core.artifact import Store
from pipeline.core.image_set import claim_image_set, published_shards, shard_path
from pipeline.core.recipe import resolve_recipe
from tests.bad_input import Case, Place, arguments, check, tree
from tests.finished_sets import make_set
from tests.tiny_sets import options, tiny_config

CASES = {
    "too many classes": Case("preview", "--preset fashion --num-classes 11", 2, ("--num-classes 11", "has 10")),
    "no images": Case("preview", "--preset fashion --num-images-per-class 0", 2, ("--num-images-per-class 0",)),
    "more than the set": Case(
        "preview", "--preset fashion --images-per-class 2 --num-images-per-class 3", 2, ("will hold 2",)
    ),
    "a word for a number": Case("preview", "--preset fashion --num-classes many", 2, ("--num-classes", "many")),
    "misspelt option": Case("preview", "--preset fashion --num-class 3", 2, ("--num-class", "--num-classes")),
    "no preset": Case("preview", "", 2, ("give --preset",)),
    "model without index": Case("preview", "--preset fashion --set recipe.model.id=@tmp", 2, ("model_index.json",)),
    "nothing can be written": Case(
        "preview", "--preset fashion --root /proc/synthclones @tiny", 1, ("cannot write /proc/synthclones",)
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_bad_input_is_one_line_and_writes_nothing(name: str, place: Place, run) -> None:
    case, before = CASES[name], tree(place.tmp, place.root)
    check(*run(case.module, *arguments(case, place)), case, place)
    assert tree(place.tmp, place.root) == before


def test_a_set_that_was_begun_with_other_batches_is_an_input_error(tiny_model: Path, tmp_path: Path, run) -> None:
    config = tiny_config(tiny_model)
    claim_image_set(config, resolve_recipe(config), Store.open(str(tmp_path)))
    code, _, err = run("preview", *options(tiny_model, tmp_path), "--set", "generate.batch_size=3")
    assert code == 2 and "was begun with batch_size 5" in err


def pictures(page: str) -> list[np.ndarray]:
    found = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))) for data in found]


@pytest.mark.usefixtures("ray_cluster")
def test_the_page_shows_the_images_that_the_set_will_hold(tiny_model: Path, tmp_path: Path, run) -> None:
    """3 classes x 3 images lie in 9 batches of the set and are made in 2 of their own: the same pixels all the same."""
    words = ["--num-classes", "3", "--num-images-per-class", "3", "--open-nothing", "--json"]
    code, out, err = run("preview", *options(tiny_model, tmp_path), *words)
    assert code == 0, err
    summary = json.loads(out.splitlines()[-1])
    assert summary["counts"] == {"ok": 9} and summary["seconds_per_image"] > 0 and summary["num_actors"] == 1
    assert f"page: {tmp_path}/{summary['path']}" in out
    assert re.search(r"^4 images per class will need about \S+ hours on 1 such actor", out, flags=re.MULTILINE)
    assert summary["hours"] == pytest.approx(40 * summary["seconds_per_image"] / 3600)

    config, store = tiny_config(tiny_model), Store.open(str(tmp_path))
    recipe = resolve_recipe(config)
    assert not published_shards(store, recipe.images_dir) and not (tmp_path / "images").exists()
    page = store.read_bytes(f"previews/{recipe.id}/preview.html").decode()
    make_set(config, store)
    made = [pq.read_table(store.uri(shard_path(recipe.images_dir, k))).to_pylist() for k in range(4)]
    rows = {(row["class_index"], row["image_id"] & 0xFFFF): row for shard in made for row in shard}
    shown = [rows[label, index] for label in (0, 3, 6) for index in range(3)]
    for picture, row in zip(pictures(page), shown, strict=True):
        np.testing.assert_array_equal(picture, np.asarray(Image.open(io.BytesIO(row["image"]["bytes"]))))
        assert (
            f"seed {row['seed']}" in page and escape(row["prompt"]).replace("&#x27;", "&#39;") in page
        )  # as Jinja writes it


@pytest.mark.usefixtures("ray_cluster")
def test_a_model_that_draws_nothing_leaves_a_page_of_reasons(tiny_model: Path, tmp_path: Path, run) -> None:
    """The failure is real: this scheduler refuses more steps than it was trained with, once it is called."""
    model = shutil.copytree(tiny_model, tmp_path / "flaky")
    scheduler = model / "scheduler" / "scheduler_config.json"
    scheduler.write_text(json.dumps({**json.loads(scheduler.read_text()), "num_train_timesteps": 1}))
    sets = ["--set", "recipe.scheduler=DDIMScheduler", "--set", "recipe.num_inference_steps=2", "--num-classes", "2"]
    code, _, err = run("preview", *options(model, tmp_path / "runs"), *sets)
    assert code == 1 and "all 8 images failed, the first one with ValueError" in err
    (page,) = (tmp_path / "runs" / "previews").glob("*/preview.html")
    assert page.read_text().count('class="frame"') == 8 and "failed: ValueError" in page.read_text()
    assert "is not known" in page.read_text()


def test_nothing_is_opened_where_nobody_would_see_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    assert not job.has_desktop()
    monkeypatch.setenv("WAYLAND_DISPLAY", "wayland-0")
    assert job.has_desktop()
