"""A short soak: faults strike a real cluster while sets are made. The long one is `python -m tests.faults.soak`."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.faults.fault_kinds import FullDisk, InTurn, KillActor, KillDriver, KillNode
from tests.faults.lab import Lab
from tests.faults.round import Fault, play
from tests.faults.set_check import check_set
from tests.faults.soak import faults

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]
SHARDS = 20
KINDS = [fault for fault, *_ in faults()]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    seed = random.SystemRandom().randrange(10**6)
    print(f"random seed {seed}")
    with Lab(tmp_path_factory.mktemp("soak"), SHARDS, seed).open(workers=2, with_store=True) as ready:
        yield ready


def test_actor_node_and_driver_are_killed_in_turn(lab: Lab) -> None:
    """The set is right and nothing but what was being made is made again: `play` holds both."""
    strikes = play(lab, InTurn(KillActor(), KillNode(), KillDriver()), 3, SHARDS)
    assert [strike.kind for strike in strikes] == ["actor", "node", "driver"]


@pytest.mark.slow
@pytest.mark.parametrize("fault", KINDS, ids=[fault.kind for fault in KINDS])
def test_a_set_survives(fault: Fault, lab: Lab) -> None:
    if isinstance(fault, FullDisk) and not fault.possible():
        pytest.skip("only root can make a small disk")
    assert play(lab, fault, 1, SHARDS)


@pytest.mark.parametrize("spoil", ["missing", "double", "stray", "other bytes"])
def test_the_judge_sees(spoil: str, lab: Lab, tmp_path: Path) -> None:
    """The undisturbed set passes, a spoilt copy of it does not."""
    files, root = lab.files(str(shutil.copytree(lab.folder / "undisturbed", tmp_path / "copy")))
    check_set(files, root, lab.undisturbed, SHARDS)
    shards = sorted(Path(root).glob("images/*/shards/*.parquet"))
    if spoil == "missing":
        shards[3].unlink()
    elif spoil == "double":
        shutil.copy(shards[0], shards[1])
    elif spoil == "stray":
        shutil.copy(shards[0], shards[0].with_name("shard-000000-copy.parquet"))
    else:
        table = pq.read_table(shards[0], partitioning=None)
        hashes = table["sha256"].to_pylist()
        spoilt = table.set_column(table.column_names.index("sha256"), "sha256", [hashes[::-1]])
        pq.write_table(spoilt, shards[0])
    with pytest.raises(AssertionError):
        check_set(files, root, lab.undisturbed, SHARDS)
