"""Every command that writes under a place of the user's refuses a relative one in a job of a cluster."""

from __future__ import annotations

import importlib
from collections.abc import Iterator

import click
import pytest

from tests.conftest import REPOSITORY, Cli

PLACES = {"--root", "--out", "--work"}


def commands() -> Iterator[tuple[str, str]]:
    """Module and option, for each option that names a place to write to."""
    for path in sorted([*(REPOSITORY / "jobs").glob("*.py"), *(REPOSITORY / "tune").glob("*.py")]):
        if path.stem != "__init__":
            module = f"{path.parent.name}.{path.stem}"
            command = importlib.import_module(module).main
            for one in command.commands.values() if isinstance(command, click.Group) else [command]:
                words = module if one is command else f"{module} {one.name}"
                yield from ((words, option) for p in one.params for option in p.opts if option in PLACES)


def words_for(command: click.Command, option: str) -> list[str]:
    """What the command must be given before it looks at its places."""
    words = []
    for parameter in command.params:
        if parameter.opts[0] == "--preset":
            words += ["--preset", "fashion"]
        elif parameter.required and parameter.opts[0] != option:
            value = parameter.type.choices[0] if isinstance(parameter.type, click.Choice) else "/1"
            value = "1" if isinstance(parameter.type, click.types.IntParamType) else value
            words += [value] if isinstance(parameter, click.Argument) else [parameter.opts[0], value]
    return words


@pytest.mark.parametrize(("words", "option"), list(commands()))
def test_a_relative_place_is_refused_in_a_job_of_a_cluster(words: str, option: str, here: Cli) -> None:
    module, *names = words.split()
    command = importlib.import_module(module).main
    command = command.commands[names[0]] if names else command
    given = [*names, *words_for(command, option), option, "somewhere"]
    done = here(module, *given, env={"RAY_ADDRESS": "127.0.0.1:1"})
    place = "the absolute path" if words == "jobs.train_generator" else "a URI"  # torch writes to no bucket
    done.check_error(2, f"{option} 'somewhere' would lie on one node", f"give {option} {place}")


def test_all_of_them_are_looked_at() -> None:
    assert {("jobs.generate", "--root"), ("jobs.build_classes", "--root"), ("jobs.train_generator", "--out")} <= set(
        commands()
    )
