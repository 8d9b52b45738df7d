"""The options that every job shares, and how its errors become one line and an exit code."""

from __future__ import annotations

import errno
import json
import math
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, NoReturn

import click
import yaml

from pipeline.core.artifact import Store
from pipeline.core.cluster import cluster_address
from pipeline.core.config import RunConfig
from pipeline.core.config_loading import load_config, nearest, preset_names
from pipeline.core.errors import InputError, WorkError
from pipeline.core.interrupt import interrupt_on_sigterm


@dataclass(frozen=True)
class JobContext:
    """What a job is called with: its validated config and where it works.

    Args:
        config: the resolved run config.
        store: the storage root.
        json_output: print one JSON object as the last line.
        dry_run: say what would be done and stop; only a job with `plans=True` sees this.
        overrides: the KEY=VALUE words of the command line, which are in `config` already.
        source: the preset and files that `config` was made from, as options of the command line.
    """

    config: RunConfig
    store: Store
    json_output: bool
    dry_run: bool = False
    overrides: tuple[str, ...] = ()
    source: tuple[str, ...] = ()

    def finish(self, human: str, summary: dict[str, Any]) -> None:
        """Print the summary for people and, with --json, the one for programs as the last line."""
        print_summary(human, summary, self.json_output)


def print_summary(human: str, summary: dict[str, Any], json_output: bool) -> None:
    """The end of every job: the summary for people and, with --json, one JSON object as the last line of stdout."""
    click.echo(human)
    if json_output:
        click.echo(json.dumps(summary, sort_keys=True, ensure_ascii=False))


def job_options_with(
    default_preset: str | None = None,
    default_root: str = "runs",
    *,
    plans: bool = False,
    checks_recipe: bool = False,
    shortcuts: Mapping[str, str] | None = None,
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A decorator that gives a click command the shared options; it is then called with a `JobContext` first.

    `--dry-run` prints the resolved config as YAML and ends with exit code 0 before the job's body runs.

    Args:
        default_preset: the preset when neither --preset nor --config is given; None makes that an error.
        default_root: the storage root when --root is not given.
        plans: the body runs on --dry-run too, and prints its own plan (`JobContext.dry_run`).
        checks_recipe: --dry-run looks at the recipe's tables, templates and models and refuses what the body would.
        shortcuts: further options that take a whole number, with the config key that each is short for.
    """
    presets = ", ".join(preset_names())
    keys = {"--images-per-class": "images_per_class", **(shortcuts or {})}

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        @click.option("--preset", metavar="NAME", help=f"Run preset: {presets}. Default: {default_preset or 'none'}.")
        @click.option(
            "--config", "config_files", multiple=True, metavar="FILE", help="YAML over the preset; repeatable."
        )
        @click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="E.g. train.epochs=5; repeatable.")
        @_number_options(keys)
        @click.option(
            "--root",
            default=default_root,
            show_default=True,
            metavar="PATH|URI",
            help="Where artifacts lie: local, s3://, gs://.",
        )
        @click.option("--dry-run", is_flag=True, help=f"Print the {'plan' if plans else 'resolved config'} and stop.")
        @click.option("--json", "json_output", is_flag=True, help="Print one JSON object as the last line.")
        @wraps(function)
        def command(
            preset: str | None,
            config_files: tuple[str, ...],
            overrides: tuple[str, ...],
            root: str,
            dry_run: bool,
            json_output: bool,
            **arguments: Any,
        ) -> None:
            if preset is None and not config_files:
                if default_preset is None:
                    raise InputError(f"give --preset NAME ({presets}) or --config FILE")
                preset = default_preset
            given = {key: arguments.pop(_parameter(option)) for option, key in keys.items()}
            extra = [f"{key}={value}" for key, value in given.items() if value is not None]
            words = (*overrides, *extra)
            config = load_config(preset, config_files, words)
            check_outlives("--root", root)
            store = Store.open(root)
            if dry_run and checks_recipe:
                from pipeline.core.recipe import resolve_recipe

                resolve_recipe(config)
            if dry_run and not plans:
                click.echo(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True).rstrip())
                return
            source = [
                *(["--preset", preset] if preset else []),
                *(w for file in config_files for w in ("--config", file)),
            ]
            function(JobContext(config, store, json_output, dry_run, words, tuple(source)), **arguments)

        return command

    return decorate


def check_outlives(option: str, place: str, *, takes_uri: bool = True) -> None:
    """Raises `InputError` for a relative place to write to in a job of a cluster: it would be lost with job or pod.

    Without `takes_uri`, a URI is no way out of it, so the message names none.
    """
    if cluster_address() is not None and "://" not in place and not Path(place).is_absolute():
        raise InputError(
            f"{option} {place!r} would lie on one node of the cluster, in what ends with the job or the node; give "
            f"{option} {'a URI (s3://bucket/prefix) or ' if takes_uri else ''}the absolute path of a disk that all "
            "nodes share"
        )


def _parameter(option: str) -> str:
    return option.removeprefix("--").replace("-", "_")


def _number_options(keys: Mapping[str, str]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        for option, key in reversed(list(keys.items())):
            function = click.option(option, type=int, metavar="N", help=f"Short for --set {key}=N.")(function)
        return function

    return decorate


class FiniteRange(click.FloatRange):
    """A number of a range, and none that only computers have: NaN lies in every range."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The number. Raises `click.BadParameter`."""
        found = float(super().convert(value, param, ctx))
        if not math.isfinite(found):
            self.fail(f"{value!r} is no number to compute with", param, ctx)
        return found


job_options = job_options_with()
"""The shared options of a job that must be told its preset."""


def model_options(function: Callable[..., None]) -> Callable[..., None]:
    """The options that choose finished models: `seeds`, `twin` and `model_ids` of the command."""
    for option in (
        click.option(
            "--model", "model_ids", multiple=True, metavar="ID", help="Directory name under models/; repeatable."
        ),
        click.option("--twin", is_flag=True, help="Also the models trained on real images."),
        click.option(
            "--seed",
            "seeds",
            type=click.IntRange(min=0),
            multiple=True,
            metavar="N",
            help="Training seed of a model; repeatable. Default: train.seed.",
        ),
    ):
        function = option(function)
    return function


def run_job(command: click.Command) -> NoReturn:
    """Run a job's click command as a program and exit: 0 done, 2 the input is wrong, 1 it failed while working."""
    interrupt_on_sigterm()
    if bad := next((word for word in sys.argv[1:] if not is_text(word)), None):
        _fail(f"{bad!r:.200} is not UTF-8 text; mend its encoding", 2)
    try:
        command.main(standalone_mode=False)
    except InputError as error:
        _fail(error, 2)
    except click.NoSuchOption as error:
        known = [name for param in command.params for name in param.opts]
        _fail(f"unknown option {error.option_name}{nearest(error.option_name, known)}", 2)
    except click.ClickException as error:
        _fail(error.format_message(), 2)
    except WorkError as error:
        _fail(error, 1)
    except (click.Abort, KeyboardInterrupt):
        _fail("interrupted; what is done is kept, run the same command again to go on", 1)
    except OverflowError as error:
        _fail(f"a number is too large to compute with ({error}); give a smaller one", 2)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            _fail(f"{str(error.filename)[:80]!r} and so on is too long for a file's name; give a shorter one", 2)
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.EPERM):
            raise
        _drop_what_stdout_refuses()
        _fail(f"{error.filename or 'storage'}: {error.strerror}; mend it, then run the same command again to go on", 1)
    sys.exit(0)


def is_text(word: str) -> bool:
    """Whether a word of the command line is UTF-8 text; Python keeps other bytes as halves of characters."""
    try:
        word.encode()
    except UnicodeEncodeError:
        return False
    return True


def _drop_what_stdout_refuses() -> None:
    """Python would try to write it once more when it ends, say so in two lines, and make 120 of our exit code."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(message: object, code: int) -> NoReturn:
    line = " ".join(str(message).split())
    click.echo(f"error: {line}", err=True)
    sys.exit(code)
