"""One round: a set is made while one kind of fault strikes again and again; then the set and the cost are judged."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Protocol

from tests.faults.lab import Event, Job, Lab
from tests.faults.set_check import check_set


@dataclass(frozen=True)
class Strike:
    """One fault.

    Args:
        kind: of fault.
        at_s: when, seconds since 1970.
        pids: worker processes that it hit.
        said_s: seconds until the job said that it cannot go on, where it cannot.
        lost: shards that those processes had begun and never ended.
        again: of these, how many were made again.
        recovered_s: seconds until all lost shards were published; None when none was lost.
    """

    kind: str
    at_s: float
    pids: frozenset[int]
    said_s: float | None = None
    lost: int = 0
    again: int = 0
    recovered_s: float | None = None


class Fault(Protocol):
    """A kind of fault.

    Attributes:
        kind: its name in the table.
        in_store: the set lies on the object store.
        may_repeat: a shard may be made twice, by two who cannot know of each other.
    """

    kind: str
    in_store: bool
    may_repeat: bool

    def prepare(self, scene: Scene) -> None: ...

    def wait(self, scene: Scene) -> bool: ...

    def strike(self, scene: Scene) -> None: ...

    def end(self, scene: Scene) -> None: ...


@dataclass
class Scene:
    """What a fault may touch in a round.

    Args:
        lab: the cluster and its store.
        root: of the set.
        shards: of the set.
        in_flight: shards that an actor works on at once.
        job: the command that is running now.
        strikes: so far.
        repairs: shards that a repair made again.
        stack: what is undone after the round.
    """

    lab: Lab
    root: str
    shards: int
    began_s: float
    in_flight: int
    job: Job | None = None
    strikes: list[Strike] = field(default_factory=list)
    repairs: int = 0
    stack: ExitStack = field(default_factory=ExitStack)

    def start(self) -> None:
        """The command; in a fifth of the cases a worker tries one image first."""
        preflight = self.lab.random.choice(("never", "never", "never", "never", "always"))
        changes = {"generate.preflight": preflight, "generate.shards_in_flight": self.in_flight}
        self.job = self.lab.start(self.root, self.shards, **changes)

    @property
    def running(self) -> Job:
        assert self.job is not None
        return self.job

    def events(self) -> list[Event]:
        return self.lab.events(self.began_s)

    def makers(self) -> list[int]:
        return self.lab.makers(self.began_s)

    def actors(self) -> list[int]:
        """Makers and those that are about to be: one may begin its first shard in the instant in which it is killed."""
        return sorted({*self.makers(), *(process.pid for process in self.lab.nodes.actors())})

    def record(self, kind: str, at_s: float, pids: list[int], said_s: float | None = None) -> None:
        self.strikes.append(Strike(kind, at_s, frozenset(pids), said_s))
        said = "" if said_s is None else f", said so after {said_s:.1f} s"
        print(f"{time.strftime('%H:%M:%S')} {kind}: strike {len(self.strikes)} hit {sorted(pids)}{said}", flush=True)

    def wait_for_moment(self) -> bool:
        """Wait for a random moment after one to three more shards were begun; False when the job ended before."""
        seen, more = len(self.begun()), self.lab.random.randint(1, 3)
        while len(self.begun()) < seen + more:
            if not self.running.is_running:
                return False
            time.sleep(0.05)
        time.sleep(self.lab.random.uniform(0, 1.2))
        return self.running.is_running

    def begun(self) -> list[Event]:
        return [event for event in self.events() if event.what == "begin"]


def play(lab: Lab, fault: Fault, strikes: int, shards: int) -> list[Strike]:
    """Make one set under up to so many strikes, run the command again, and judge.

    Raises:
        AssertionError: the set is not what it must be, or more was made again than what was being made.
    """
    scene = Scene(lab, lab.new_root(in_store=fault.in_store), shards, time.time(), lab.random.choice((1, 2)))
    with scene.stack:
        fault.prepare(scene)
        scene.start()
        scene.stack.callback(lambda: scene.running.kill())
        while len(scene.strikes) < strikes and fault.wait(scene):
            fault.strike(scene)
        fault.end(scene)
        scene.running.check_ok()
        again = lab.start(scene.root, shards)
        again.check_ok()
        assert "; 0 made now" in again.text, again.text
        check_set(*lab.files(scene.root), lab.undisturbed, shards)
    events = scene.events()
    judged = [judge(strike, events, scene.in_flight) for strike in scene.strikes]
    failed = sum(event.what == "fail" for event in events)  # told to the driver by a living worker
    made_twice = len(scene.begun()) - shards - sum(strike.again for strike in judged) - failed - scene.repairs
    assert made_twice == 0 or fault.may_repeat, (made_twice, scene.strikes, events)
    lost = sum(strike.lost for strike in judged)
    print(
        f"{fault.kind}: {len(judged)} strikes, {scene.in_flight} shards in flight, {lost} shards lost, "
        f"{made_twice} made twice, the set is right",
        flush=True,
    )
    return judged


def judge(strike: Strike, events: list[Event], in_flight: int) -> Strike:
    """Count what a strike cost: at most the shards that the hit processes worked on."""
    ended = {(event.pid, event.shard) for event in events if event.what in ("end", "fail")}
    lost = {
        event.shard
        for event in events
        if event.what == "begin"
        and event.pid in strike.pids
        and event.at_s <= strike.at_s + 1
        and (event.pid, event.shard) not in ended
    }
    assert len(lost) <= len(strike.pids) * in_flight, (strike, lost)
    others = [event for event in events if event.pid not in strike.pids and event.at_s > strike.at_s]
    again = {event.shard for event in others if event.what == "begin"} & lost
    # One that was killed between publishing and noting it, by a later strike, has no end and is not made again.
    ends = {shard: [e.at_s for e in others if e.what == "end" and e.shard == shard] for shard in again}
    recovered_s = max((min(at) for at in ends.values() if at), default=strike.at_s) - strike.at_s or None
    return replace(strike, lost=len(lost), again=len(again), recovered_s=recovered_s)
