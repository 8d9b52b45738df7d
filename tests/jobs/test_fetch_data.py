"""`python -m jobs.fetch_data`: the places of the data, as lines and as JSON."""

from __future__ import annotations

from pathlib import Path

from tests.conftest import Cli


def test_places_are_printed_for_people_and_programs(here: Cli) -> None:
    done = here("jobs.fetch_data", "fashion-mnist", "wordnet", "--json").check_ok()
    assert (Path(done.json["fashion-mnist"]) / "t10k-labels-idx1-ubyte.gz").exists()
    assert f"wordnet: {done.json['wordnet']}" in done.stdout.splitlines()


def test_wrong_folder_is_one_line(here: Cli, tmp_path: Path) -> None:
    done = here("jobs.fetch_data", "fashion-mnist", env={"SYNTHCLONES_DATA": str(tmp_path)})
    done.check_error(2, str(tmp_path), "train-images-idx3-ubyte.gz is not there", "four .gz files")


def test_unknown_data_set_is_one_line(here: Cli) -> None:
    here("jobs.fetch_data", "imagenet").check_error(2, "imagenet", "fashion-mnist")
