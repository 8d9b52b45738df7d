"""Which encoders a command looks at: models of `jobs.train`, and the baselines beside them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pipeline.core.artifact import Store, read_manifest
from pipeline.core.classifier import read_settings
from pipeline.core.config import RunConfig
from pipeline.core.encoders import Encoder, pixel_encoder, random_encoder
from pipeline.core.errors import InputError
from pipeline.core.identity import canonical_json, content_hash
from pipeline.core.model_identity import TWINS, named_model
from pipeline.core.recipe import resolve_recipe
from pipeline.core.train_config import TrainConfig
from pipeline.stages.evaluate import trained_models


def chosen_encoders(
    config: RunConfig, store: Store, model_ids: Sequence[str], seeds: Sequence[int], *, twin: bool
) -> list[Encoder]:
    """The encoders of named models, or of the config's models of some seeds, real twins first.

    Args:
        config: of the run.
        store: the storage root.
        model_ids: names of directories under models/; when given, `seeds` and `twin` must not be.
        seeds: training seeds; default: the config's.
        twin: also the models trained on real images.

    Raises:
        InputError: a model is not there, or the options contradict each other.
    """
    if model_ids and (seeds or twin):
        raise InputError("--model names the models itself; leave out --seed and --twin")
    if model_ids:
        directories = [named_model(name) for name in dict.fromkeys(model_ids)]
    else:
        groups = tuple(reversed(TWINS)) if twin else (config.train.data,)
        chosen = list(dict.fromkeys(seeds or (config.train.seed,)))
        found = trained_models(config, store, resolve_recipe(config), chosen, groups)
        directories = [directory for group in groups for directory in found[group]]
    return _named([(directory, *_about(store, directory)) for directory in directories])


def baselines(encoders: Sequence[Encoder], *, pixels: bool) -> list[Encoder]:
    """Random weights for each training seed of the encoders and, if asked for, raw pixels; of the same input size.

    Raises `InputError` when the encoders have different input sizes, since a baseline has one.
    """
    sizes = {encoder.input_size for encoder in encoders}
    if len(sizes) > 1:
        raise InputError(f"the models have inputs of {sorted(sizes)} pixels; give --baselines for models of one size")
    size = sizes.pop()
    random = [random_encoder(seed, size) for seed in sorted({encoder.seed for encoder in encoders})]
    return [*random, *([pixel_encoder(size)] if pixels else [])]


def _about(store: Store, directory: str) -> tuple[dict[str, Any], TrainConfig]:
    mend = "run `python -m jobs.train` with the same preset and settings first"
    return read_manifest(store, directory, mend), read_settings(store, directory)[1]


def _named(models: Sequence[tuple[str, dict[str, Any], TrainConfig]]) -> list[Encoder]:
    """Models that differ in nothing but the seed make a group; groups of the same words get the data's id as well."""
    keys = []
    for _, manifest, train in models:
        identity = manifest["identity"]
        words = f"{train.data}, {identity['images_per_class']} per class"
        but_seed = {**identity, "train": {k: v for k, v in identity["train"].items() if k != "seed"}}
        keys.append((words, content_hash(canonical_json(but_seed))[:8]))
    shared = {words for words, key in keys if any(w == words and k != key for w, k in keys)}
    return [
        Encoder(
            id=directory.rpartition("/")[2],
            group=f"{words} ({key})" if words in shared else words,
            seed=train.seed,
            input_size=train.input_size,
            model_dir=directory,
            weights=content_hash([manifest["identity"], manifest.get("files")]),
        )
        for (directory, manifest, train), (words, key) in zip(models, keys, strict=True)
    ]
