"""Trainings that are finished as `jobs.train` leaves them, by our loop in this process: for tests of what follows."""

from __future__ import annotations

import time
from collections.abc import Sequence

from pipeline.core.artifact import Store, sha256_bytes
from pipeline.core.config import RunConfig
from pipeline.core.model_identity import WEIGHTS, model_directory, model_identity
from pipeline.core.recipe import resolve_recipe
from pipeline.core.study_plan import plan_study
from pipeline.stages.ingest import open_training_data
from tune.scaling import grid_study

History = list[dict[str, float]]


def finish_grid(config: RunConfig, template: str, sizes: Sequence[int], store: Store) -> None:
    """What `tune.scaling --no-twins --seeds 2` trains, on an image set that is there."""
    plan = plan_study(grid_study((template,), tuple(sizes), 2, None, twins=False), config)
    for _, cell in plan.axes[template]:
        for seed in plan.seeds:
            finish_training(cell.trial(seed), store)


def finish_training(config: RunConfig, store: Store) -> str:
    """Train with one worker, images in memory, and publish; the model's directory."""
    import torch

    from pipeline.core.classifier import build_classifier, weights_to_bytes
    from pipeline.core.image_batches import MemoryBatches
    from pipeline.core.training_loop import run_epochs
    from pipeline.core.training_state import start_training
    from pipeline.stages.train import publish
    from pipeline.stages.train_worker import write_metrics

    recipe, settings = resolve_recipe(config), config.train
    identity, identity_hash = model_identity(config, recipe)
    directory = model_directory(identity_hash)
    data = open_training_data(config, recipe, store)
    assert data.arrays is not None and settings.num_workers == 1
    batches = MemoryBatches(*data.arrays, settings.seed, settings.batch_size, 0, 1)
    network = build_classifier(settings, len(recipe.classes))
    state = start_training(settings, network, network, data.class_shares(settings))
    history: History = []

    def on_epoch(done: int, metrics: dict[str, float]) -> None:
        history.append({"epoch": done, "ended": time.time(), **metrics})

    threads = torch.get_num_threads()
    torch.set_num_threads(settings.torch_threads)  # more of them wait for each other beside other tests
    run_epochs(settings, state, batches, torch.device("cpu"), 0, on_epoch)
    torch.set_num_threads(threads)
    weights = weights_to_bytes(state.trained)
    store.write_bytes(f"{directory}/{WEIGHTS}", weights)
    write_metrics(store, directory, history)
    publish(config, recipe, store, directory, data, {"identity": identity}, sha256_bytes(weights))
    return directory
