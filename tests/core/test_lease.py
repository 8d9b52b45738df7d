from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipeline.core.artifact import Store
from pipeline.core.errors import OutageError, WorkError
from pipeline.core.lease import LeaseTiming, lease

REPOSITORY = Path(__file__).parent.parent.parent
FAST = LeaseTiming(heartbeat_s=0.05, ttl_s=0.6, poll_s=0.02)
THINGS, ASKERS = 12, 6


@contextmanager
def askers(root: str, log: Path, count: int) -> Iterator[list[subprocess.Popen[bytes]]]:
    command = [sys.executable, "-m", "tests.core.lease_worker", root, str(log), str(THINGS), "0.15"]
    with ExitStack() as stack:
        yield [stack.enter_context(subprocess.Popen(command, cwd=REPOSITORY)) for _ in range(count)]


def lines(log: Path) -> list[list[str]]:
    return [line.split() for line in log.read_text().splitlines()] if log.exists() else []


@pytest.fixture(params=["local", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "local":
        return str(tmp_path / "runs")
    return f"{request.getfixturevalue('s3_root')}/{uuid.uuid4().hex}"


@pytest.mark.faults
def test_many_ask_at_once_the_holder_is_killed_and_nothing_is_made_twice(root: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with askers(root, log, ASKERS) as processes:
        deadline = time.monotonic() + 90
        while sum(line[0] == "made" for line in lines(log)) < 3:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        holder = int(lines(log)[-1][2])
        os.kill(holder, signal.SIGKILL)
        codes = {process.pid: process.wait(90) for process in processes}
    assert codes.pop(holder) == -signal.SIGKILL and set(codes.values()) == {0}
    made = Counter(name for what, name, _ in lines(log) if what == "made")
    published = set(Store.open(root).list_names("things"))
    assert len(published) == THINGS
    # The kill may fall between a thing's publishing and its line; nothing else may be missing, and nothing twice.
    assert set(made.values()) == {1} and len(published - set(made)) <= 1
    begun = Counter(name for what, name, _ in lines(log) if what == "begins")
    assert sum(begun.values()) - THINGS <= 1  # only what the killed one had in hand was begun again
    assert len({pid for _, _, pid in lines(log)}) >= 2


def test_one_at_a_time_holds_it(tmp_path: Path) -> None:
    store, inside, most = Store.open(str(tmp_path)), [0], [0]
    lock = threading.Lock()

    def hold() -> None:
        with lease(store, "lease", timing=FAST) as held:
            assert held
            with lock:
                inside[0] += 1
                most[0] = max(most[0], inside[0])
            time.sleep(0.05)
            with lock:
                inside[0] -= 1

    threads = [threading.Thread(target=hold) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert most == [1] and inside == [0]
    assert store.list_names("lease") == []


def test_a_living_holder_is_waited_for_longer_than_the_ttl(tmp_path: Path) -> None:
    store, order = Store.open(str(tmp_path)), []

    def second() -> None:
        with lease(store, "lease", timing=FAST):
            order.append("second")

    with lease(store, "lease", timing=FAST):
        thread = threading.Thread(target=second)
        thread.start()
        time.sleep(4 * FAST.ttl_s)
        order.append("first")
    thread.join(60)
    assert order == ["first", "second"]


@pytest.mark.parametrize("left", ["ticket-000000000001-dead", "choosing-dead"])
def test_what_the_dead_left_is_removed(tmp_path: Path, left: str) -> None:
    store = Store.open(str(tmp_path))
    store.write_json(f"lease/{left}", {})
    start = time.monotonic()
    with lease(store, "lease", timing=FAST) as held:
        assert held and time.monotonic() - start > FAST.ttl_s
    assert store.list_names("lease") == []


DIES_WITH_IT = """
import os, sys
from pipeline.core.artifact import Store
from pipeline.core.lease import lease
with lease(Store.open(sys.argv[1]), "lease"):
    os._exit(0)
"""


@pytest.fixture
def left(tmp_path: Path) -> Store:
    """A store with the lease of a process of this machine that died as its holder."""
    subprocess.run([sys.executable, "-c", DIES_WITH_IT, str(tmp_path)], cwd=REPOSITORY, check=True)
    store = Store.open(str(tmp_path))
    assert len(store.list_names("lease")) == 1
    return store


def test_nobody_waits_for_a_process_of_this_machine_that_has_ended(left: Store) -> None:
    start = time.monotonic()
    with lease(left, "lease", timing=LeaseTiming(ttl_s=60)) as held:
        assert held and time.monotonic() - start < 30


@pytest.mark.parametrize("elsewhere", [{"host": "another"}, {"sees": "another boot"}, {"sees": None}])
def test_a_process_that_cannot_be_seen_is_waited_for(left: Store, elsewhere: dict[str, str | None]) -> None:
    (name,) = left.list_names("lease")
    left.write_json(f"lease/{name}", {**left.read_json(f"lease/{name}"), **elsewhere})
    start = time.monotonic()
    with lease(left, "lease", timing=FAST) as held:
        assert held and time.monotonic() - start > FAST.ttl_s


@pytest.mark.parametrize(
    ("looks_s", "is_removed"), [((0, 20, 40, 46), True), ((0, 20, 80), False), ((0, 30, 60, 90), True)]
)
def test_an_outage_of_the_storage_is_no_silence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, looks_s: tuple[float, ...], is_removed: bool
) -> None:
    """While nobody can write, nobody gives a sign of life. Where every look takes long, the dead are removed still."""
    store, looks, now = Store.open(str(tmp_path)), iter(looks_s), 0.0
    monkeypatch.setattr("pipeline.core.lease.time", SimpleNamespace(monotonic=lambda: now, sleep=lambda _: None))

    def is_over() -> bool:
        nonlocal now
        now = next(looks, -1.0)
        return now < 0

    store.write_json("lease/ticket-000000000001-dead", {})
    with lease(store, "lease", is_over, LeaseTiming(heartbeat_s=60, ttl_s=45)):
        assert store.exists("lease/ticket-000000000001-dead") != is_removed


def test_whom_it_waits_for_is_said_after_an_outage_in_the_first_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, now, said, looks = Store.open(str(tmp_path)), 0.0, list[str](), iter([False, True])
    read_bytes = Store.read_bytes

    def slowly(self: Store, path: str) -> bytes:
        nonlocal now
        now += 30
        return read_bytes(self, path)

    for number in (1, 2):
        store.write_json(f"lease/ticket-{number:012d}-dead", {"host": "a", "pid": number})
    monkeypatch.setattr("pipeline.core.lease.time", SimpleNamespace(monotonic=lambda: now, sleep=lambda _: None))
    monkeypatch.setattr(Store, "read_bytes", slowly)
    with lease(store, "lease", lambda: next(looks), LeaseTiming(heartbeat_s=60, ttl_s=45), say=said.append) as held:
        assert not held and said[0].startswith("process 1 on a holds ")


def test_who_waits_says_once_for_whom(tmp_path: Path) -> None:
    store, said, looks = Store.open(str(tmp_path)), list[str](), [0]

    def done() -> bool:
        looks[0] += 1
        return looks[0] > 3

    with lease(store, "lease", timing=FAST, say=said.append), lease(store, "lease", done, FAST, say=said.append):
        pass
    (line,) = said
    assert line.startswith(f"process {os.getpid()} on ") and f"holds {tmp_path}/lease: waiting" in line


def test_nobody_waits_for_what_is_done(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path))
    with lease(store, "lease", until=lambda: True, timing=FAST) as held:
        assert not held
    assert not (tmp_path / "lease").exists()


def test_a_lease_that_cannot_be_given_back_hides_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def is_away(*_: object) -> None:
        raise WorkError("the server is away")

    def work() -> None:
        with lease(Store.open(str(tmp_path)), "lease", timing=FAST):
            monkeypatch.setattr(Store, "delete", is_away)
            raise ValueError("of the work")

    with pytest.raises(ValueError, match="of the work"):
        work()


def test_in_an_outage_a_lease_is_left_soon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever leaves for that reason has waited for the storage already."""
    monkeypatch.setattr("pipeline.core.lease.LEAVE_PATIENCE_S", 0.5)
    monkeypatch.setattr("pipeline.core.filesystems.OUTAGE_PATIENCE_S", 20.0)

    def is_away(*_: object) -> None:
        raise OutageError("the server is away")

    with lease(Store.open(str(tmp_path)), "lease", timing=FAST):
        monkeypatch.setattr(Store, "_reaching", is_away)
        time.sleep(0.2)
        began_s = time.monotonic()
    assert time.monotonic() - began_s < 10


def test_a_waiter_goes_when_the_work_is_done(tmp_path: Path) -> None:
    store, looks = Store.open(str(tmp_path)), [0]

    def done() -> bool:
        looks[0] += 1
        return looks[0] > 3

    with lease(store, "lease", timing=FAST) as first, lease(store, "lease", done, FAST) as second:
        assert first and not second
    assert store.list_names("lease") == []
