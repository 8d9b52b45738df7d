"""No name of a user's that becomes a path leaves the root."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.core.classes import ClassTable, class_table_bytes, load_class_table
from pipeline.core.errors import InputError
from tests.conftest import Cli

ESCAPES = ["../x", "a/b", "/tmp/x", "a\0b", "x\n", "..", "", "a\\b", "~", "x y"]


@pytest.mark.parametrize("name", ESCAPES)
@pytest.mark.parametrize(
    ("module", "option", "more"),
    [
        ("tune.promote", "--sweep", ["--preset", "fashion", "--dry-run"]),
        ("tune.sweep", "--name", ["--preset", "fashion", "--dry-run"]),
        ("jobs.build_classes", "--name", ["--class", "sandal", "--dry-run"]),
    ],
)
def test_a_name_that_becomes_a_path_stays_below_the_root(
    module: str, option: str, more: list[str], name: str, here: Cli, tmp_path: Path
) -> None:
    if (module, name) == ("tune.sweep", ""):
        pytest.skip("means the sweep's own name")
    here(module, option, name, "--root", tmp_path, *more).check_error(2, option)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("wnid", ["../n1234", "n12345678\n", "n１２３４５６７８", "/n1234567", "n123456\0"])
def test_a_wnid_is_n_and_eight_digits(wnid: str, tmp_path: Path) -> None:
    table = load_class_table("fashion_mnist")
    (tmp_path / "t.parquet").write_bytes(
        class_table_bytes(ClassTable([{**table.rows[0], "wnid": wnid}, *table.rows[1:]], "nowhere"))
    )
    with pytest.raises(InputError, match="has the WNID"):
        load_class_table(str(tmp_path / "t.parquet"))
