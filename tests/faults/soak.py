"""Kill real things for a long time while images are made, and see that every set ends as an undisturbed one.

    python -m tests.faults.soak --kills 200 --seed 1

prints a line for each strike, and at the end the table of docs/results.md.
"""

from __future__ import annotations

import random
import statistics
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

import click

from tests.faults.fault_kinds import (
    FullDisk,
    KillActor,
    KillActorAnytime,
    KillAllNodes,
    KillDriver,
    KillDriverAnytime,
    KillHead,
    KillHeadOnly,
    KillNode,
    StoreOutage,
    TruncateShard,
    TwoDrivers,
)
from tests.faults.lab import Lab
from tests.faults.round import Fault, Strike, play

LARGEST_SET_SHARDS = 60


def faults() -> list[tuple[Fault, float, int, int]]:
    """(fault, share of all kills, most strikes in one round, shards of a round's set)."""
    return [
        (KillActor(), 0.22, 20, 60),
        (KillActorAnytime(), 0.22, 20, 40),
        (KillNode(), 0.24, 10, 40),
        (KillDriver(), 0.08, 10, 40),
        (KillDriverAnytime(), 0.08, 10, 40),
        (KillHead(), 0.05, 6, 30),
        (KillHeadOnly(), 0.01, 2, 16),
        (KillAllNodes(), 0.02, 2, 16),
        (FullDisk(), 0.02, 3, 30),
        (StoreOutage("500", 15), 0.02, 4, 40),
        (StoreOutage("silence", 20), 0.02, 4, 40),
        (TruncateShard(), 0.01, 3, 20),
        (TwoDrivers(), 0.01, 1, 20),
    ]


def table(strikes: Sequence[Strike]) -> str:
    """Markdown: a line for each kind."""
    lines = [
        "| kind | strikes | made again per strike, mean / max | back after s, median / max | told after s, max |",
        "|---|---|---|---|---|",
    ]
    for kind in dict.fromkeys(strike.kind for strike in strikes):
        of = [strike for strike in strikes if strike.kind == kind]
        again = [strike.again for strike in of]
        back = [strike.recovered_s for strike in of if strike.recovered_s is not None]
        said = [strike.said_s for strike in of if strike.said_s is not None]
        lines.append(
            f"| {kind} | {len(of)} | {statistics.mean(again):.2f} / {max(again)} | "
            f"{f'{statistics.median(back):.0f} / {max(back):.0f}' if back else '-'} | "
            f"{f'{max(said):.0f}' if said else '-'} |"
        )
    return "\n".join(lines)


@click.command()
@click.option("--kills", type=int, default=200, show_default=True, help="Strikes in all; each kind has its share.")
@click.option("--seed", type=int, default=None, help="Of the random moments; default: a random one, printed.")
@click.option("--only", multiple=True, metavar="KIND", help="Only these kinds; repeatable.")
@click.option("--minutes", type=float, default=float("inf"), help="Begin no round after so long.")
def main(kills: int, seed: int | None, only: tuple[str, ...], minutes: float) -> None:
    """Rounds of every kind in turn, until each has had its share."""
    seed = random.SystemRandom().randrange(10**6) if seed is None else seed
    began_s = time.monotonic()
    done: list[Strike] = []
    wrong = 0
    wanted = [(f, share, most, shards) for f, share, most, shards in faults() if not only or f.kind in only]
    total = sum(share for _, share, _, _ in wanted)
    left = {fault.kind: max(1, round(kills * share / total)) for fault, share, _, _ in wanted}
    print(f"random seed {seed}; {left}", flush=True)
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        lab = Lab(Path(folder), LARGEST_SET_SHARDS, seed)
        with lab.open(workers=2, with_store=True):
            while any(left.values()) and time.monotonic() - began_s < minutes * 60:
                for fault, _, most, shards in wanted:
                    if left[fault.kind] > 0 and time.monotonic() - began_s < minutes * 60:
                        try:
                            found = play(lab, fault, min(most, left[fault.kind]), shards)
                        except AssertionError:
                            traceback.print_exc()
                            wrong += 1
                            left[fault.kind] = 0  # what is wrong once is to be looked at, not tried again
                            lab.new_cluster(leave_workers=False)
                            continue
                        left[fault.kind] -= len(found)
                        done += found
    print(f"\n{len(done)} strikes in {(time.monotonic() - began_s) / 60:.0f} minutes, seed {seed}\n\n{table(done)}")
    if wrong:
        raise click.ClickException(f"{wrong} rounds ended wrong; their reports are above")


if __name__ == "__main__":
    main()
