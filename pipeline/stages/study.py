"""A study: image sets once per recipe, trainings side by side, each cell's numbers kept as soon as they are there."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from pipeline.core.artifact import Store
from pipeline.core.choices import describe_guidance, describe_template
from pipeline.core.config import RunConfig
from pipeline.core.errors import WorkError
from pipeline.core.identity import ID_LENGTH, content_hash
from pipeline.core.model_identity import model_directory, model_identity
from pipeline.core.recipe import Recipe, resolve_recipe
from pipeline.core.study_plan import Cell, StudyPlan
from pipeline.core.study_report import lines, markdown, plot_png, to_csv
from pipeline.stages.generate import generate
from pipeline.stages.run_handle import RunHandle
from pipeline.stages.runtime import ray_session
from pipeline.stages.side_by_side import num_slots, train_side_by_side
from pipeline.stages.tracking import tracked_run

RESULTS = "results.jsonl"
"""One line per training, by the directory of its model and its test set."""

Say = Callable[[str], object]
Trial = tuple[Cell, int]


class Study:
    """A plan on a storage root.

    Args:
        plan: the whole study, as the table shows it.
        chosen: the part of it to work on now.
        store: the storage root; image sets, models and reports lie where every job puts them.
        name: of the folder `studies/<name>/` for results, table and plot.

    Raises:
        InputError: a class table, template or model of the plan is wrong.
    """

    def __init__(self, plan: StudyPlan, chosen: StudyPlan, store: Store, name: str) -> None:
        self.plan = plan
        self.chosen = {cell.config for cell in chosen.cells}
        self.store = store
        self.directory = f"studies/{name}"
        self.title = f"Study {name}"
        self.recipes: dict[object, Recipe] = {}
        for cell in plan.cells:
            key = (cell.config.classes, cell.config.recipe)
            self.recipes[key] = self.recipes.get(key) or resolve_recipe(cell.config)
        self.models = {(cell, seed): self._model_dir(cell, seed) for cell, seed in plan.trials()}
        """Directory of the model of every (cell, seed)."""
        self.results = self._read_results()
        """Lines of results.jsonl, by model and test set; other studies' and older ones too."""

    def recipe_of(self, config: RunConfig) -> Recipe:
        """The recipe of one of the plan's runs."""
        return self.recipes[config.classes, config.recipe]

    def _model_dir(self, cell: Cell, seed: int) -> str:
        return model_directory(model_identity(cell.trial(seed), self.recipe_of(cell.config))[1])

    def _read_results(self) -> dict[tuple[str, str], dict[str, Any]]:
        path = f"{self.directory}/{RESULTS}"
        text = self.store.read_bytes(path).decode() if self.store.exists(path) else ""
        try:
            found = [json.loads(line) for line in text.splitlines()]
            return {(line["model_dir"], line["test_set"]): line for line in found}
        except (ValueError, KeyError, TypeError) as error:
            raise WorkError(f"{self.store.uri(path)} is damaged ({error}); move it away and run again") from error

    def result(self, trial: Trial) -> dict[str, Any] | None:
        """The line of one training, None when it is not done."""
        return self.results.get((self.models[trial], trial[0].config.evaluate.test_set))

    def missing(self, max_cells: int | None = None) -> list[Trial]:
        """Chosen trainings without a result: of the first `max_cells` cells that lack one, or of all."""
        trials = [t for t in self.plan.trials() if t[0].config in self.chosen and self.result(t) is None]
        kept = list(dict.fromkeys(cell for cell, _ in trials))[:max_cells]
        return [trial for trial in trials if trial[0] in kept]

    def outline(self, max_cells: int | None = None) -> dict[str, Any]:
        """What is to do, JSON-able: cells, trainings, images, and hours from the rates that were measured here."""
        trials = self.missing(max_cells)
        to_make = 0
        for config in self._image_sets(trials):
            manifest = f"{self.recipe_of(config).images_dir}/manifest.json"
            made = self.store.read_json(manifest)["images_per_class"] if self.store.exists(manifest) else 0
            to_make += max(0, config.images_per_class - made) * len(self.recipe_of(config).classes)
        samples = sum(
            cell.config.train.epochs * cell.config.images_per_class * len(self.recipe_of(cell.config).classes)
            for cell, _ in trials
        )
        rates = [line["train_images_per_s"] for line in self.results.values()]
        rate = statistics.median(rates) * num_slots(self.plan.cells[0].config.train) if rates else None
        return {
            "cells": len(self.plan.cells),
            "trainings": len(self.plan.trials()),
            "trainings_to_do": len(trials),
            "images_to_make": to_make,
            "samples_to_train": samples,
            "training_hours": None if rate is None else samples / rate / 3600,
        }

    def _image_sets(self, trials: Sequence[Trial]) -> list[RunConfig]:
        wanted = {cell for cell, _ in trials}
        return StudyPlan(tuple(c for c in self.plan.cells if c in wanted), self.plan.seeds, {}).image_sets()

    def run(self, say: Say, max_cells: int | None = None, slots: int | None = None) -> None:
        """Do what is missing. May be killed at any moment; the same call goes on.

        Args:
            say: takes one line for each step.
            max_cells: stop after so many cells.
            slots: trainings at a time; default: as many as the CPUs hold.

        Raises:
            InputError: as the stages.
            WorkError: as the stages; results that are there are kept.
        """
        trials = self.missing(max_cells)
        self.write_table()
        if trials:
            self._train(trials, say, slots)
        self.track("table.md", "table.csv", "plot.png")

    def _tracked(self, *, optional: bool = False) -> AbstractContextManager[RunHandle]:
        """The study's MLflow run, the same one for every call."""
        first = self.plan.cells[0].config
        params = {"cells": len(self.plan.cells), "trainings": len(self.plan.trials()), "seeds": self.plan.seeds}
        key = content_hash(self.directory)[:ID_LENGTH]
        return tracked_run(first, self.store, "study", key, params, {}, optional=optional)

    def track(self, *names: str) -> None:
        """Keep files of the study's folder with its MLflow run; nothing is raised when that cannot be."""
        with self._tracked(optional=True) as run:
            run.set_tags({"synthclones.study": self.directory})
            for name in names:
                run.log_artifact(name, self.store.read_bytes(f"{self.directory}/{name}"))

    def _train(self, trials: Sequence[Trial], say: Say, slots: int | None) -> None:
        with self._tracked() as run, ray_session():
            for config in self._image_sets(trials):
                images = generate(config, self.store)
                template, guidance = config.recipe.template, config.recipe.guidance_scale
                about = f"{describe_template(template)!r}, guidance {describe_guidance(guidance)}"
                say(f"images of {about}: {images['ok']} ok")
            configs = [cell.trial(seed) for cell, seed in trials]
            at_once = slots or num_slots(configs[0].train)
            trained = train_side_by_side(configs, self.store, at_once, run.run_id)
            for done, (position, model) in enumerate(trained, start=1):
                trial = trials[position]
                line = self._score(trial, model, say, run.run_id)
                self._keep(line)
                self.write_table()
                say(f"{done}/{len(trials)} {trial[0].name}, seed {trial[1]}: top-1 {line['top1']:.4f}")

    def _score(self, trial: Trial, model: Mapping[str, Any], say: Say, parent_run: str | None) -> dict[str, Any]:
        from pipeline.stages.evaluate import evaluate  # its libraries take seconds to import

        cell, seed = trial
        group = cell.config.train.data
        verdict = evaluate(cell.trial(seed), self.store, {group: [model["model_dir"]]}, say, parent_run)
        return {
            "model_dir": model["model_dir"],
            "test_set": cell.config.evaluate.test_set,
            "cell": cell.name,
            "seed": seed,
            "data": group,
            "images": model["num_images"],
            "epochs": model["epochs"],
            "top1": verdict[f"{group}_top1"],
            "train_images_per_s": model["images_per_s"],
            "train_seconds": model["seconds"],
            "report": verdict["report"],
            "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }

    def _keep(self, line: dict[str, Any]) -> None:
        """Add a line to results.jsonl, the whole file in one atomic write."""
        self.results[line["model_dir"], line["test_set"]] = line
        text = "".join(json.dumps(kept, sort_keys=True, ensure_ascii=False) + "\n" for kept in self.results.values())
        self.store.write_bytes(f"{self.directory}/{RESULTS}", text.encode())

    def write_table(self) -> str:
        """Write table.md, table.csv and plot.png from the results that are there; the table's text."""
        top1 = {trial: float(found["top1"]) for trial in self.plan.trials() if (found := self.result(trial))}
        table = lines(self.plan, top1, len(self.recipe_of(self.plan.cells[0].config).classes))
        text = markdown(table, len(self.plan.seeds), self.title)
        self.store.write_bytes(f"{self.directory}/table.md", text.encode())
        self.store.write_bytes(f"{self.directory}/table.csv", to_csv(table).encode())
        self.store.write_bytes(f"{self.directory}/plot.png", plot_png(table, self.title))
        return text
