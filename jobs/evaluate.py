"""Models -> verdict: accuracy on real test sets and on corrupted images, the gap to the real twin, report.html.

Example: python -m jobs.evaluate --preset fashion --twin
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from pipeline.cli import JobContext, job_options, run_job
from pipeline.core.errors import InputError
from pipeline.core.model_identity import GROUPS, TWINS, named_model


@click.command(help=__doc__)
@job_options
@click.option(
    "--seed", "seeds", type=click.IntRange(min=0), multiple=True, metavar="N",
    help="Training seed of a model; repeatable: mean and deviation over seeds. Default: train.seed.",
)  # fmt: skip
@click.option("--twin", is_flag=True, help="Also the models trained on real images, and the gap to them.")
@click.option("--model", "model_ids", multiple=True, metavar="ID", help="A directory name under models/; repeatable.")
def main(context: JobContext, seeds: tuple[int, ...], twin: bool, model_ids: tuple[str, ...]) -> None:
    """Find the models, score them, print the table."""
    if model_ids and (seeds or twin):
        raise InputError("--model names the models itself; leave out --seed and --twin")
    # Torch and its friends take seconds to import: --help, --dry-run and a wrong option do not wait for them.
    from pipeline.core.recipe import resolve_recipe
    from pipeline.stages.evaluate import evaluate, trained_models

    if model_ids:
        model_dirs = _by_group(context, model_ids)
    else:
        groups = TWINS if twin else (context.config.train.data,)
        chosen = dict.fromkeys(seeds or (context.config.train.seed,))
        recipe = resolve_recipe(context.config)
        model_dirs = trained_models(context.config, context.store, recipe, list(chosen), groups)
    manifest = evaluate(context.config, context.store, model_dirs)
    report = context.store.uri(manifest["report"])
    metrics = context.store.read_json(manifest["metrics"])
    context.finish(f"{_table(metrics)}\nreport: {report}", {**manifest, "report": report})


def _by_group(context: JobContext, model_ids: tuple[str, ...]) -> dict[str, list[str]]:
    from pipeline.core.classifier import load_classifier

    found: dict[str, list[str]] = {}
    for model_id in dict.fromkeys(model_ids):
        directory = named_model(model_id)
        found.setdefault(load_classifier(context.store, directory).train.data, []).append(directory)
    return found


def _table(metrics: Mapping[str, Any]) -> str:
    """The verdict for people, one line per twin."""
    from pipeline.core.report import percent, points

    lines = [f"{'trained on':<12}{'images':>9}{'seeds':>7}{'top-1':>16}{'top-' + str(metrics['top_k']):>16}{'ECE':>9}"]
    for name in (name for name in GROUPS if name in metrics["groups"]):
        group = metrics["groups"][name]
        top1, top5 = (_spread(group, key) for key in ("top1", "top5"))
        ece = percent(group["calibration_error_mean"])
        count = group["training_images"]
        lines.append(f"{name:<12}{count:>9,}{len(group['models']):>7}{top1:>16}{top5:>16}{ece:>9}")
    if gap := metrics["gap"]:
        low, high = gap["top1_interval"]
        lines.append(
            f"gap to real: {points(gap['top1'])} points top-1 (95% interval {points(low)} to {points(high)}), "
            f"{metrics['test_set']['images']:,} real test images of {metrics['test_set']['name']}"
        )
    return "\n".join([*lines, *_shift_table(metrics), *_corruption_table(metrics)])


def _shift_table(metrics: Mapping[str, Any]) -> list[str]:
    """One line per metric of each test set; nothing when there is only the main one."""
    from pipeline.core.report import points
    from pipeline.core.shift import shift_rows

    lines = []
    rows = shift_rows(metrics)
    for row in rows:
        shares = "".join(f"{_share(*row.values[name]):>16}" for name in row.values)
        gap = "" if row.gap is None else f"{points(row.gap):>9}"
        title = f"{row.title} ({row.images:,}, {row.classes} classes)" if row.is_headline else ""
        lines.append(f"{title:<48}{row.metric:<30}{shares}{gap}")
    if rows:
        names = "".join(f"{name:>16}" for name in rows[0].values)
        lines.insert(0, f"{'test set':<48}{'metric':<30}{names}" + (f"{'gap':>9}" if metrics["gap"] else ""))
    return lines


def _corruption_table(metrics: Mapping[str, Any]) -> list[str]:
    """Accuracy on clean and on corrupted images, one line per twin; nothing when none were asked for."""
    from pipeline.core.corruption_names import FAMILIES

    found = metrics.get("corruptions")
    if not found:
        return []
    groups = {group: found["groups"][group] for group in GROUPS if group in found["groups"]}
    columns = [n for n in ("clean", "corrupted", "relative", *FAMILIES) if n in next(iter(groups.values()))]
    images = f"{found['images']:,} images"
    lines = [f"{'corrupted, ' + images:<28}" + "".join(f"{name:>14}" for name in columns)]
    for group, values in groups.items():
        shares = "".join(f"{_share(values[name]['mean'], values[name]['std']):>14}" for name in columns)
        lines.append(f"{group:<28}{shares}")
    return lines


def _share(mean: float, std: float | None) -> str:
    return f"{100 * mean:.1f}%" + ("" if std is None else f" ± {100 * std:.1f}")


def _spread(group: Mapping[str, Any], key: str) -> str:
    return _share(group[f"{key}_mean"], group[f"{key}_std"])


if __name__ == "__main__":
    run_job(main)
