"""The images of a set when nobody disturbs anything: a bare loop over its shards, in one process, without Ray.

    python -m tests.faults.undisturbed MODEL ROOT SHARDS [KEY=VALUE ...]

makes the tiny model at MODEL when it is not there, and the shards under ROOT.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

import torch

from pipeline.core.artifact import Store
from pipeline.core.config import RunConfig
from pipeline.core.image_set import ShardSummary
from pipeline.core.recipe import resolve_recipe
from pipeline.core.shard_maker import ShardMaker
from pipeline.stages.prompts import ensure_prompt_table
from tests.tiny_models import build_tiny_model
from tests.tiny_sets import tiny_config


def make_undisturbed(config: RunConfig, store: Store, shards: Iterable[int]) -> list[ShardSummary]:
    """Make and publish shards with as many threads as an actor has: sums, and so the last bits, depend on it."""
    recipe = resolve_recipe(config)
    parts = ensure_prompt_table(config, recipe, store)["parts"]
    maker = ShardMaker(config, store, recipe.prompts_dir, parts, recipe.images_dir, recipe=recipe)
    threads = torch.get_num_threads()
    torch.set_num_threads(config.generate.torch_threads)
    try:
        return [maker.make(shard) for shard in shards]
    finally:
        torch.set_num_threads(threads)


def main(model: Path, root: Path, shards: int, changes: dict[str, object]) -> None:
    if not model.exists():
        build_tiny_model(model)
    make_undisturbed(tiny_config(model, changes), Store.open(str(root)), range(shards))


if __name__ == "__main__":
    words = dict(word.split("=", 1) for word in sys.argv[4:])
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), {**words})
