"""Encoders -> linear probes on other data sets -> one table: paper section on transfer (docs/transfer.md)."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import fields
from functools import partial
from typing import Any

import yaml

from pipeline.core.artifact import MANIFEST, Store
from pipeline.core.config import RunConfig
from pipeline.core.config_loading import nearest
from pipeline.core.encoders import Encoder
from pipeline.core.errors import InputError, MissingDataError
from pipeline.core.features import Features, check_device, features_of
from pipeline.core.finished import finished
from pipeline.core.identity import ID_LENGTH, content_hash
from pipeline.core.linear_probe import ProbeResult, probe
from pipeline.core.scoring import threads
from pipeline.core.transfer_datasets import Images, TransferSet, open_named
from pipeline.core.transfer_folders import open_folder
from pipeline.core.transfer_summary import ProbeRun, summary
from pipeline.core.transfer_table import DIGITS, FASHION_MNIST, NAMED, open_built_in
from pipeline.core.user_files import user_path
from pipeline.stages.one_worker import belongs_on_a_gpu_node, on_a_gpu_node
from pipeline.stages.run_handle import RunHandle
from pipeline.stages.tracking import tracked_run

Say = Callable[[str], object]
TRANSFER_VERSION = 2
"""Part of a result's id: raise it when the numbers change."""
PROTOCOL = (
    "classifier",
    "probe_seeds",
    "split_seed",
    "num_trials",
    "validation_share",
    "lbfgs_max_iterations",
    "sgd_epochs",
    "sgd_batch_size",
)
"""Fields of `TransferConfig` that decide the numbers."""


class UnreadableSetError(MissingDataError):
    """A set with an image of which nothing can be read, which is found out only when its turn comes.

    Args:
        name: of the set.
        why: names the image.
    """

    def __init__(self, name: str, why: str) -> None:
        super().__init__(why)
        self.name = name


def transfer(
    config: RunConfig,
    store: Store,
    encoders: Sequence[Encoder],
    names: Sequence[str],
    say: Say,
    *,
    download: bool = False,
) -> dict[str, Any]:
    """Probe every encoder on every set that is there and write `transfer/<id>/`; what is done already is kept.

    Features lie under `features/`, each probe under `transfer/probes/`, so that a killed command goes on.

    Args:
        config: protocol, folders and tracking.
        store: the storage root.
        encoders: frozen.
        names: of sets: named ones, or folders.
        say: takes one line for each missing set and each probe.
        download: let torchvision fetch named sets that are not there.

    Returns:
        The manifest: `metrics` (path of the table's JSON), `missing` (set -> why), `groups`, `seconds`,
        `mlflow_run_id`, …

    Raises:
        InputError: an unknown name, a wrong folder, no set is there and readable, or the device is not.
        WorkError: features are no numbers or damaged.
    """
    if belongs_on_a_gpu_node(config.transfer.device):
        there = partial(transfer, download=download)
        timeout_s = config.generate.stall_timeout_s
        return on_a_gpu_node(there, "transfer.device", timeout_s, config, store, encoders, names, print)
    started = time.monotonic()
    check_device(config.transfer.device, "transfer.device")
    sets, missing = open_sets(config, names, say, download=download)
    while sets:
        try:
            return _transfer(config, store, encoders, sets, missing, say, started)
        except UnreadableSetError as error:  # the table of the others is another result, with an id of its own
            missing[error.name] = str(error)
            say(f"transfer: left out {error}")
            sets = [found for found in sets if found.name != error.name]
    raise InputError(f"none of the {len(missing)} data sets can be used; {next(iter(missing.values()), 'name one')}")


def _transfer(
    config: RunConfig,
    store: Store,
    encoders: Sequence[Encoder],
    sets: Sequence[TransferSet],
    missing: dict[str, str],
    say: Say,
    started: float,
) -> dict[str, Any]:
    """The manifest of the table of these sets. Raises `UnreadableSetError`; what was done by then is kept."""
    settings = config.transfer
    protocol = settings.model_dump(mode="json", include=set(PROTOCOL))
    identity = {
        "transfer_version": TRANSFER_VERSION,
        "encoders": [[encoder.group, encoder.fingerprint] for encoder in encoders],
        "sets": [[found.name, found.classifier, found.trainval.fingerprint, found.test.fingerprint] for found in sets],
        "missing": sorted(missing),
        "protocol": protocol,
    }
    transfer_id = content_hash(identity)[:ID_LENGTH]
    directory = f"transfer/{transfer_id}"
    done = finished(store, directory, "metrics")
    params = {**protocol, "sets": ", ".join(found.name for found in sets)}
    parents = {"train": [encoder.id for encoder in encoders if encoder.model_dir]}
    with tracked_run(config, store, "transfer", transfer_id, params, parents, optional=done is not None) as run:
        if done is not None:  # its numbers once more, for what a lost server missed
            _track(run, done["config"], store.read_json(done["metrics"])["rows"])
            return done
        runs = [item for found in sets for encoder in encoders for item in _probed(config, store, encoder, found, say)]
        groups = summary(runs, {found.name: found.group for found in sets})
        metrics = {"protocol": protocol, "sets": [_about(found) for found in sets], "missing": missing, "rows": groups}
        store.write_json(f"{directory}/metrics.json", metrics)
        manifest: dict[str, Any] = {
            "kind": "transfer",
            "transfer_id": transfer_id,
            "identity": identity,
            "metrics": f"{directory}/metrics.json",
            "missing": missing,
            "groups": {row["group"]: row["top1_mean"] for row in groups},
            "seconds": time.monotonic() - started,
            "mlflow_run_id": run.run_id,
            "config": config.model_dump(mode="json"),
        }
        _track(run, manifest["config"], groups)
        store.write_json(f"{directory}/{MANIFEST}", manifest)
    return manifest


def open_sets(
    config: RunConfig, names: Sequence[str], say: Say, *, download: bool
) -> tuple[list[TransferSet], dict[str, str]]:
    """The sets that are there, and by name what is wrong with the others; `say` gets a line for each of those.

    Raises:
        InputError: an unknown name, a wrong folder, or two sets of one name.
    """
    sets: dict[str, TransferSet] = {}
    missing: dict[str, str] = {}
    for name in dict.fromkeys(names):
        try:
            found = _open(config, name, download=download)
        except MissingDataError as error:
            missing[name] = str(error)
            say(f"transfer: left out {error}")
            continue
        if found.name in sets:
            raise InputError(f"two data sets are called {found.name!r}; rename the folder of one")
        sets[found.name] = found
    return list(sets.values()), missing


def _open(config: RunConfig, name: str, *, download: bool) -> TransferSet:
    if name in NAMED:
        return open_named(name, NAMED[name], config.transfer, download=download)
    if name in (DIGITS, FASHION_MNIST):
        return open_built_in(name, config.transfer, config.data_dir)
    if not user_path(name, "--dataset").is_dir():
        known = nearest(name, [DIGITS, FASHION_MNIST, *NAMED])
        raise InputError(f"--dataset {name!r} is no folder here and no known data set{known}")
    return open_folder(name, config.transfer)


def _probed(config: RunConfig, store: Store, encoder: Encoder, found: TransferSet, say: Say) -> list[ProbeRun]:
    """The probes of one encoder on one set, one for each seed; those that were done before are only read."""
    settings = config.transfer
    protocol = settings.model_dump(mode="json", include=set(PROTOCOL) - {"probe_seeds"})
    about = [TRANSFER_VERSION, encoder.fingerprint, found.classifier, protocol]
    images = [found.trainval.fingerprint, found.test.fingerprint]
    paths = {s: f"transfer/probes/{content_hash([*about, *images, s])[:ID_LENGTH]}.json" for s in settings.probe_seeds}
    todo = [seed for seed, path in paths.items() if not store.exists(path)]
    if todo:
        try:
            trainval, test = (_features(config, store, encoder, part) for part in (found.trainval, found.test))
        except MissingDataError as error:
            raise UnreadableSetError(found.name, str(error)) from error
        for seed in todo:
            began = time.monotonic()
            with threads(settings.torch_threads):
                result = probe(found.classifier, trainval, test, len(found.class_names), settings, seed)
            seconds = time.monotonic() - began
            store.write_json(paths[seed], {**result.__dict__, "seconds": seconds})
            say(
                f"transfer: {found.name} {encoder.group} {encoder.id} seed {seed} top-1 {result.top1:.4f} "
                f"({seconds:.0f} s)"
            )
    return [ProbeRun(encoder, found.name, seed, _read_probe(store, path)) for seed, path in paths.items()]


def _features(config: RunConfig, store: Store, encoder: Encoder, images: Images) -> Features:
    settings = config.transfer
    return features_of(
        encoder,
        images,
        store,
        batch_size=settings.batch_size,
        device=settings.device,
        torch_threads=settings.torch_threads,
    )


def _read_probe(store: Store, path: str) -> ProbeResult:
    kept = store.read_json(path)
    return ProbeResult(**{field.name: kept[field.name] for field in fields(ProbeResult)})


def _about(found: TransferSet) -> dict[str, Any]:
    return {
        "name": found.name,
        "group": found.group,
        "classifier": found.classifier,
        "classes": len(found.class_names),
        "trainval_images": len(found.trainval),
        "test_images": len(found.test),
        "fingerprints": [found.trainval.fingerprint, found.test.fingerprint],
    }


def _track(run: RunHandle, config: dict[str, Any], groups: Sequence[dict[str, Any]]) -> None:
    numbers = {f"{row['group']}/{name}": cell["top1_mean"] for row in groups for name, cell in row["sets"].items()}
    numbers |= {f"{row['group']}/top1_mean": row["top1_mean"] for row in groups}
    numbers |= {f"{row['group']}/log_odds_mean": row["log_odds_mean"] for row in groups}
    run.log_metrics(numbers, step=0)
    run.log_artifact("config.yaml", yaml.safe_dump(config, sort_keys=False, allow_unicode=True))
