"""A study: images when a training wants them, trainings side by side, each cell's numbers kept once they are there."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from pipeline.core.artifact import MANIFEST, Store
from pipeline.core.choices import describe_guidance, describe_template
from pipeline.core.config import RunConfig
from pipeline.core.errors import InputError, WorkError
from pipeline.core.identity import ID_LENGTH, content_hash
from pipeline.core.model_identity import WEIGHTS, model_directory, model_identity
from pipeline.core.recipe import Recipe, resolve_recipe
from pipeline.core.study_plan import Cell, StudyPlan
from pipeline.core.study_report import lines, markdown, plot_png, to_csv
from pipeline.core.study_results import PAGES, keep_result, read_results, result_line, set_columns
from pipeline.core.study_sets import sets_csv, sets_markdown
from pipeline.stages.generate import generate
from pipeline.stages.run_handle import RunHandle
from pipeline.stages.runtime import ray_session
from pipeline.stages.side_by_side import num_slots, train_side_by_side
from pipeline.stages.tracking import tracked_run

if TYPE_CHECKING:
    from pipeline.core.test_set_opening import OpenSet

Say = Callable[[str], object]
Trial = tuple[Cell, int]


class Study:
    """A plan on a storage root.

    Args:
        plan: the whole study, as the table shows it.
        chosen: the part of it to work on now.
        store: the storage root; image sets, models and reports lie where every job puts them.
        name: of the folder `studies/<name>/` for results, table and plot.
        about: the command that the plan comes from, for the table: another plan of the same name writes over it.

    Raises:
        InputError: a class table, template or model of the plan is wrong.
    """

    def __init__(self, plan: StudyPlan, chosen: StudyPlan, store: Store, name: str, about: str = "") -> None:
        self.plan = plan
        self.about = about
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
        self.results = read_results(store, self.directory)
        """Lines of results.jsonl by the id of their report; those of other test sets and other plans too."""
        self.reports: dict[Trial, str] = {}
        """Id of the report of every (cell, seed), once the test sets are open."""
        self._opened: dict[object, dict[str, OpenSet]] = {}
        self._trained_again: set[Trial] = set()

    def recipe_of(self, config: RunConfig) -> Recipe:
        """The recipe of one of the plan's runs."""
        return self.recipes[config.classes, config.recipe]

    def _model_dir(self, cell: Cell, seed: int) -> str:
        return model_directory(model_identity(cell.trial(seed), self.recipe_of(cell.config))[1])

    def look_at_data(self, say: Say, *, must_be_there: bool = True) -> None:
        """Open the test sets that the plan is scored on, since only then it is known which results are of them, and see
        that what is to be trained on real images has them.

        Args:
            say: takes a line for each test set that is not there; the main ones must be.
            must_be_there: False says so, too, when a main one or real images are not there; without a main one
                nothing counts as done.

        Raises:
            InputError: a main test set or real images are not there, or a set is wrong.
        """
        try:
            self.reports = self._reports(say)
        except InputError as error:
            if must_be_there:
                raise
            say(f"nothing can be scored, and what is done already is not known: {error}")
        self._trained_again = set()
        self._trained_again = {trial for trial in self.plan.trials() if self._is_of_other_weights(trial)}
        try:
            self._check_real_images()
        except InputError as error:
            if must_be_there:
                raise
            say(f"cannot be trained: {error}")

    def _check_real_images(self) -> None:
        from pipeline.core.training_images import check_real_images  # torch takes seconds to import

        wanted = {t[0]: None for t in self.missing() if t[0].config.train.data != "synthetic"}
        for cell in wanted:
            try:
                check_real_images(cell.config)
            except InputError as error:
                raise InputError(
                    f"{cell.name}: {error}; or leave such twins out: twins, twin_sizes of a study, "
                    "--no-twins of tune.scaling"
                ) from error

    def _reports(self, say: Say) -> dict[Trial, str]:
        from pipeline.core.report_identity import report_identity  # torch takes seconds to import
        from pipeline.core.test_set_opening import main_name, open_test_sets

        reports = {}
        for trial in self.plan.trials():
            config = trial[0].config
            key = self._of_sets(config)
            if key not in self._opened:
                classes = self.recipe_of(config).classes
                self._opened[key], missing = open_test_sets(config.evaluate, classes, config.data_dir)
                if (main := main_name(config.evaluate)) in missing:
                    raise InputError(missing[main])
                for line in missing.values():
                    say(f"left out: {line}")
            reports[trial] = report_identity(config.evaluate, self._opened[key], [self.models[trial]])[1]
        return reports

    def _is_of_other_weights(self, trial: Trial) -> bool:
        return self.has_other_weights(self.models[trial], (self.result(trial) or {}).get("weights_sha256"))

    def has_other_weights(self, path: str, known: str | None) -> bool:
        """Whether a model was removed and trained again since its weights had this sha256; older results have none."""
        if known is None or not self.is_trained(path):
            return False
        return bool(self.store.read_json(f"{path}/{MANIFEST}")["files"][WEIGHTS] != known)

    def _of_sets(self, config: RunConfig) -> object:
        return config.classes, config.data_dir, config.evaluate

    def sets_of(self, config: RunConfig) -> dict[str, OpenSet]:
        """The open test sets of one of the plan's runs."""
        return self._opened[self._of_sets(config)]

    def result(self, trial: Trial) -> dict[str, Any] | None:
        """The line of one training on the test sets that are open, None when it is not done."""
        return None if trial in self._trained_again else self.results.get(self.reports.get(trial, ""))

    def missing(self, max_cells: int | None = None) -> list[Trial]:
        """Chosen trainings without a result: of the first `max_cells` cells that lack one, or of all."""
        trials = [t for t in self.plan.trials() if t[0].config in self.chosen and self.result(t) is None]
        kept = list(dict.fromkeys(cell for cell, _ in trials))[:max_cells]
        return [trial for trial in trials if trial[0] in kept]

    def outline(self, max_cells: int | None = None) -> dict[str, Any]:
        """What is to do, JSON-able: cells, trainings, images, and hours from the rates that were measured here.

        A model that is there already, of another study or of `jobs.train`, is only scored.
        """
        trials = self.missing(max_cells)
        untrained = [trial for trial in trials if not self.is_trained(self.models[trial])]
        to_make = 0
        for config in self._image_sets(untrained):
            manifest = f"{self.recipe_of(config).images_dir}/manifest.json"
            made = self.store.read_json(manifest)["images_per_class"] if self.store.exists(manifest) else 0
            to_make += max(0, config.images_per_class - made) * len(self.recipe_of(config).classes)
        samples = sum(
            cell.config.train.epochs
            * (cell.config.images_per_class * len(self.recipe_of(cell.config).classes) + cell.config.train.num_extra)
            for cell, _ in untrained
        )
        rates = [line["train_images_per_s"] for line in self.results.values()]
        rate = statistics.median(rates) * num_slots(self.plan.cells[0].config.train) if rates else None
        return {
            "cells": len(self.plan.cells),
            "trainings": len(self.plan.trials()),
            "trainings_to_do": len(trials),
            "only_to_score": len(trials) - len(untrained),
            "images_to_make": to_make,
            "samples_to_train": samples,
            "training_hours": None if rate is None else samples / rate / 3600,
        }

    def is_trained(self, directory: str) -> bool:
        """Whether a model of `models` is finished and still there."""
        return self.store.exists(f"{directory}/{MANIFEST}")

    def _image_sets(self, trials: Sequence[Trial]) -> list[RunConfig]:
        wanted = {cell for cell, _ in trials}
        return StudyPlan(tuple(c for c in self.plan.cells if c in wanted), self.plan.seeds, {}).image_sets()

    def run(self, say: Say, max_cells: int | None = None, slots: int | None = None) -> None:
        """Do what is missing, then the pages. May be killed at any moment; the same call goes on.

        Args:
            say: takes one line for each step.
            max_cells: stop after so many cells.
            slots: trainings at a time; default: as many as the CPUs hold.

        Raises:
            InputError: as the stages.
            WorkError: as the stages; results that are there are kept.
        """
        if not self.reports:
            self.look_at_data(say)
        from pipeline.stages.study_pages import list_pages, write_pages  # its libraries take seconds to import

        self.write_table()
        if self.store.exists(f"{self.directory}/{PAGES}"):
            list_pages(self)
        trials = self.missing(max_cells)
        if trials:
            self._train(trials, say, slots)
        if not self.missing():
            write_pages(self, say)
        self.track("table.md", "table.csv", "plot.png")

    def _tracked(self, *, optional: bool = False) -> AbstractContextManager[RunHandle]:
        """The study's MLflow run, the same one for every call."""
        first = self.plan.cells[0].config
        params = {"cells": len(self.plan.cells), "trainings": len(self.plan.trials()), "seeds": self.plan.seeds}
        key = content_hash(self.directory)[:ID_LENGTH]
        return tracked_run(first, self.store, "study", key, params, {}, folder=self.directory, optional=optional)

    def track(self, *names: str) -> None:
        """Keep files of the study's folder with its MLflow run; nothing is raised when that cannot be."""
        with self._tracked(optional=True) as run:
            run.set_tags({"synthclones.study": self.directory})
            for name in names:
                run.log_artifact(name, self.store.read_bytes(f"{self.directory}/{name}"))

    def _train(self, trials: Sequence[Trial], say: Say, slots: int | None) -> None:
        made: set[object] = set()

        def make_images(position: int) -> None:
            cell, _ = trials[position]
            recipe = cell.config.recipe
            wanted = (cell.config.classes, recipe, cell.config.images_per_class)
            if cell.is_real or wanted in made or self.is_trained(self.models[trials[position]]):
                return
            images = generate(cell.config, self.store)
            made.add(wanted)
            about = f"{describe_template(recipe.template)!r}, guidance {describe_guidance(recipe.guidance_scale)}"
            say(f"images of {about}: {images['ok']} ok")

        with self._tracked() as run, ray_session():
            configs = [cell.trial(seed) for cell, seed in trials]
            at_once = slots or num_slots(configs[0].train)
            trained = train_side_by_side(configs, self.store, at_once, run.run_id, make_images)
            for done, (position, model) in enumerate(trained, start=1):
                trial = trials[position]
                line = self._score(trial, model, say, run.run_id)
                keep_result(self.store, self.directory, self.results, line)
                self._trained_again.discard(trial)
                self.write_table()
                say(f"{done}/{len(trials)} {trial[0].name}, seed {trial[1]}: top-1 {line['top1']:.4f}")

    def _score(self, trial: Trial, model: Mapping[str, Any], say: Say, parent_run: str | None) -> dict[str, Any]:
        from pipeline.stages.evaluate import evaluate  # its libraries take seconds to import

        cell, seed = trial
        group = cell.config.train.data
        verdict = evaluate(cell.trial(seed), self.store, {group: [model["model_dir"]]}, say, parent_run)
        if verdict["report_id"] != self.reports[trial]:
            raise WorkError(
                f"the test sets changed while the study ran ({verdict['main']} is scored now); run it again"
            )
        return result_line(cell, seed, model, verdict, self.store.read_json(verdict["metrics"]))

    def write_table(self) -> str:
        """Write table.md, table.csv, sets.csv and plot.png from the results that are there; the table's text.

        Those that other commands of the study have put there meanwhile count, too.
        """
        self.results.update(read_results(self.store, self.directory))
        results = {trial: found for trial in self.plan.trials() if (found := self.result(trial))}
        top1 = {trial: float(found["top1"]) for trial, found in results.items()}
        trained_on = {cell: int(found["images"]) for (cell, _), found in results.items()}
        num_classes = {c.config.classes: len(self.recipe_of(c.config).classes) for c in self.plan.cells}
        table = lines(self.plan, top1, num_classes, trained_on)
        text = markdown(table, len(self.plan.seeds), self.title, self.about)
        scores = {trial: set_columns(found) for trial, found in results.items()}
        if others := sets_markdown(self.plan, scores):
            text += f"\n{others}"
        self.store.write_bytes(f"{self.directory}/table.md", text.encode())
        self.store.write_bytes(f"{self.directory}/sets.csv", sets_csv(self.plan, scores).encode())
        self.store.write_bytes(f"{self.directory}/table.csv", to_csv(table).encode())
        self.store.write_bytes(f"{self.directory}/plot.png", plot_png(table, self.title))
        return text
