"""From the results of a study whose axes are recipes and whose settings are sizes to fitted laws and advice."""

from __future__ import annotations

from typing import Any

from pipeline.core.errors import InputError, WorkError
from pipeline.core.identity import content_hash
from pipeline.core.image_set import published_shards, read_summaries
from pipeline.core.run_plan import load_clusters, plan_run, what_happened
from pipeline.core.scaling_law import MIN_SIZES, fit_scaling_law
from pipeline.core.scaling_report import REAL, Curve, advice, all_crossings, curve_facts, scaling_markdown, scaling_png
from pipeline.core.study_config import TWIN_AXIS
from pipeline.stages.study import Study


def fit_study(study: Study, cluster: str | None = None) -> tuple[str, dict[str, Any]]:
    """Fit every axis of a finished study and write scaling.md, scaling.json and scaling.png into its folder.

    Args:
        study: whose axes are recipes and whose settings are numbers of images; real twins of fewer sizes than
            `MIN_SIZES` have no curve, and the text says so.
        cluster: of the cluster file, whose price an image has, at the speed of the shards that are there; None leaves
            prices out.

    Returns:
        The text for people and the figures, JSON-able.

    Raises:
        InputError: the cluster or its speed is unknown, or an axis has too few sizes.
        WorkError: a training of the study is missing.
    """
    # Real images end somewhere (`twin_sizes` of a study); a twin of few sizes stands in the table and makes no curve.
    few = len(study.plan.axes.get(TWIN_AXIS, ())) < MIN_SIZES
    curves = [_curve(study, axis, cluster) for axis in study.plan.axes if axis != TWIN_AXIS or not few]
    facts = {
        "curves": [curve_facts(curve) for curve in curves],
        "crossings": all_crossings(curves),
        "advice": advice(curves),
    }
    text = scaling_markdown(curves)
    if few and (twins := study.plan.axes.get(TWIN_AXIS)):
        text += f"\nReal images: {len(twins)} of the {MIN_SIZES} sizes that a curve takes, so none.\n"
    study.store.write_bytes(f"{study.directory}/scaling.md", f"# {study.title}\n\n{text}".encode())
    study.store.write_json(f"{study.directory}/scaling.json", facts)
    study.store.write_bytes(f"{study.directory}/scaling.png", scaling_png(curves, study.title))
    study.track("scaling.md", "scaling.json", "scaling.png")
    return text, facts


def _curve(study: Study, axis: str, cluster: str | None) -> Curve:
    measured: dict[int, list[float]] = {}
    cells = [cell for _, cell in study.plan.axes[axis]]
    for cell in cells:
        images = cell.config.images_per_class * len(study.recipe_of(cell.config).classes)
        for seed in study.plan.seeds:
            if (line := study.result((cell, seed))) is None:
                raise WorkError(f"{cell.name}, seed {seed} is not trained yet; run the study to its end first")
            measured.setdefault(images, []).append(float(line["top1"]))
    try:
        # Draws of its own: the report compares curves draw by draw, and noise that two curves shared would cancel.
        fit = fit_scaling_law(measured, seed=int(content_hash(axis), 16))
    except ValueError as error:
        raise InputError(f"axis {axis!r}: {error}") from error
    if axis == TWIN_AXIS:
        return Curve(REAL, fit)
    usd = 0.0
    if cluster is not None:
        config, clusters = cells[-1].config, load_clusters()
        recipe = study.recipe_of(config)
        shards = sorted(published_shards(study.store, recipe.images_dir))
        made = read_summaries(study.store, recipe.images_dir, shards)
        actual = what_happened(config, clusters, cluster, "on_demand", made) if made else None
        plan = plan_run(config, recipe, clusters, cluster, actual=actual)
        usd = plan["usd"] / plan["images"]
    return Curve(axis, fit, usd)
