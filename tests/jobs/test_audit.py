"""`python -m jobs.audit` on a small set, in this process."""

from __future__ import annotations

import json
from pathlib import Path

from pipeline.core.artifact import Store
from tests.image_sets import small_config, write_image_set


def test_jobs_audit_prints_the_sets_numbers_and_json_last(run, tmp_root: str):
    config = small_config(3, 10)
    write_image_set(config, Store.open(tmp_root))
    model = config.recipe.model
    settings = [f"recipe.model.id={model.id}", f"recipe.model.revision={model.revision}", "tracking.enabled=false"]
    recipe = ["recipe.guidance_scale=2.0", "recipe.num_inference_steps=15", "images_per_class=3"]
    words = [word for text in (*settings, *recipe) for word in ("--set", text)]
    code, out, err = run("audit", "--preset", "fashion", "--root", tmp_root, *words, "--twin", "--json")
    assert code == 0, err
    assert len(out.splitlines()) == 8, out
    images, duplicates, real, worst, no_clip, no_checker, page, last = out.splitlines()
    summary = json.loads(last)
    assert images == "30 images: 30 ok, 0 blank, 0 nsfw, 0 failed"
    assert duplicates.startswith("near-duplicates: ") and "of 30 compared" in duplicates
    # The set is made of those very training images.
    assert real == duplicates.replace("near-duplicates", "real images").replace(
        " compared; two images of a class differ in", ";"
    )
    assert worst.startswith("worst classes: ") and worst.count(",") >= 4
    assert no_clip.startswith("not known: ") and "audit.clip.id" in no_clip and "recipe.safety_model" in no_checker
    assert page == f"page: {summary['page']}" and Path(summary["page"]).is_file()
