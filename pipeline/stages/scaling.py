"""From the results of a study whose axes are recipes and whose settings are sizes to fitted laws and advice."""

from __future__ import annotations

from typing import Any

from pipeline.core.errors import InputError, WorkError
from pipeline.core.identity import content_hash
from pipeline.core.image_set import published_shards, read_summaries
from pipeline.core.run_plan import find_cluster, load_clusters, plan_run, what_happened
from pipeline.core.scaling_law import MIN_SIZES, fit_scaling_law
from pipeline.core.scaling_report import REAL, Curve, advice, all_crossings, curve_facts, scaling_markdown, scaling_png
from pipeline.core.study_config import TWIN_AXIS
from pipeline.core.text_table import markdown_cell
from pipeline.stages.study import Study


def fit_study(study: Study, cluster: str | None = None) -> tuple[str, dict[str, Any]]:
    """Fit every axis of a finished study and write scaling.md, scaling.json and scaling.png into its folder.

    Args:
        study: whose axes are recipes and whose settings are numbers of images; real twins of fewer sizes than
            `MIN_SIZES` have no curve, and the text says so.
        cluster: of the cluster file, whose price an image has, at the speed of the shards that are there; None leaves
            prices out, and the text says which are not known.

    Returns:
        The text for people and the figures, JSON-able.

    Raises:
        InputError: the cluster is unknown, or an axis has too few sizes.
        WorkError: a training of the study is missing.
    """
    # Real images end somewhere (`twin_sizes` of a study); a twin of few sizes stands in the table and makes no curve.
    few = len(study.plan.axes.get(TWIN_AXIS, ())) < MIN_SIZES
    if cluster is not None:
        find_cluster(load_clusters(), cluster)
    without: dict[str, str] = {}
    curves = [_curve(study, axis, cluster, without) for axis in study.plan.axes if axis != TWIN_AXIS or not few]
    facts = {
        "curves": [curve_facts(curve) for curve in curves],
        "crossings": all_crossings(curves),
        "advice": advice(curves),
    }
    text = scaling_markdown(curves)
    if few and (twins := study.plan.axes.get(TWIN_AXIS)):
        text += f"\nReal images: {len(twins)} of the {MIN_SIZES} sizes that a curve takes, so none.\n"
    text += "".join(f"\nNo price of {markdown_cell(axis)}: {markdown_cell(why)}.\n" for axis, why in without.items())
    study.store.write_bytes(f"{study.directory}/scaling.md", f"# {study.title}\n\n{text}".encode())
    study.store.write_json(f"{study.directory}/scaling.json", facts)
    study.store.write_bytes(f"{study.directory}/scaling.png", scaling_png(curves, study.title))
    study.track("scaling.md", "scaling.json", "scaling.png")
    return text, facts


def _curve(study: Study, axis: str, cluster: str | None, without_price: dict[str, str]) -> Curve:
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
    return Curve(axis, fit, 0.0 if cluster is None else _usd_per_image(study, axis, cluster, without_price))


def _usd_per_image(study: Study, axis: str, cluster: str, without: dict[str, str]) -> float:
    """Price of an image of an axis; 0, and the reason in `without`, when its speed is not known: its law is worth more
    than its price.
    """
    config, clusters = study.plan.axes[axis][-1][1].config, load_clusters()
    recipe = study.recipe_of(config)
    shards = sorted(published_shards(study.store, recipe.images_dir))
    made = read_summaries(study.store, recipe.images_dir, shards)
    actual = what_happened(config, clusters, cluster, "on_demand", made) if made else None
    try:
        plan = plan_run(config, recipe, clusters, cluster, actual=actual)
    except InputError as error:
        without[axis] = str(error).partition(";")[0]
        return 0.0
    return float(plan["usd"] / plan["images"])
