"""Trained models on the same real test images, pair by pair."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from pipeline.core.artifact import Store
from pipeline.core.classes import load_class_table
from pipeline.core.classifier import load_classifier
from pipeline.core.comparison import compare_pair, comparison_markdown
from pipeline.core.config import RunConfig
from pipeline.core.errors import InputError
from pipeline.core.identity import ID_LENGTH, content_hash
from pipeline.core.kept_scores import kept_scores
from pipeline.core.metrics import Scores
from pipeline.core.scoring import check_device, check_sizes, main_set
from pipeline.core.test_set_opening import open_test_sets
from pipeline.stages.one_worker import belongs_on_a_gpu_node, on_a_gpu_node

Say = Callable[[str], object]


def compare(config: RunConfig, store: Store, settings: Sequence[Sequence[str]], say: Say = print) -> dict[str, Any]:
    """Score models on the config's main test set, compare the settings, and write `comparisons/<id>/`.

    Args:
        config: test set and classes; the models' own settings may differ in anything but the classes.
        store: the storage root.
        settings: two or more; each one model directory, or those of several seeds, whose mean is compared.
        say: takes one line for each scored model.

    Returns:
        `names`, `pairs` (of `pipeline.core.comparison.compare_pair`, each further setting against the first),
        `test_set`, `text` for people and `directory`.

    Raises:
        InputError: fewer than two settings, a model that is not there or knows other classes, no test set.
        WorkError: a file is damaged, or a model gives no numbers.
    """
    if len(settings) < 2:
        raise InputError("give at least two models to compare")
    if belongs_on_a_gpu_node(config.evaluate.device):
        timeout_s = config.generate.stall_timeout_s
        return on_a_gpu_node(compare, "evaluate.device", timeout_s, config, store, settings)
    check_device(config.evaluate)
    classes = load_class_table(config.classes)
    sets, missing = open_test_sets(config.evaluate, classes, config.data_dir)
    for line in missing.values():
        say(f"compare: left out: {line}")
    main = main_set(sets)
    loaded = {path: load_classifier(store, path) for seeds in settings for path in seeds}
    for path, model in loaded.items():
        check_sizes(config.evaluate, model.train.input_size)
        if model.wnids != classes.wnids:
            raise InputError(
                f"{store.uri(path)} knows other classes than {config.classes!r}; give --set classes=TABLE, the one "
                "that all these models were trained with"
            )
    scores: dict[str, Scores] = {}
    for path, model in loaded.items():
        scored = kept_scores(store, model, {main: sets[main]}, config.evaluate)[0][main].images
        assert scored is not None
        scores[path] = scored
        say(f"compare: {path} ({model.train.data}, seed {model.train.seed}) top-1 {scores[path].top1:.4f}")
    correct = [np.stack([scores[path].correct for path in seeds]) for seeds in settings]
    labels = next(iter(scores.values())).labels
    pairs = [compare_pair(correct[0], other, labels, len(classes)) for other in correct[1:]]
    names = [",".join(path.rpartition("/")[2] for path in seeds) for seeds in settings]
    images = sets[main].images
    about = {"name": images.name, "images": len(images), "fingerprint": images.fingerprint}
    identity = {"settings": names, "test_set": about["fingerprint"], "resize": config.evaluate.resize}
    directory = f"comparisons/{content_hash(identity)[:ID_LENGTH]}"
    text = comparison_markdown(names, classes.names, pairs)
    found = {"names": names, "pairs": pairs, "test_set": about}
    store.write_json(f"{directory}/comparison.json", found)
    store.write_bytes(f"{directory}/comparison.md", text.encode())
    return {**found, "text": text, "directory": directory}
