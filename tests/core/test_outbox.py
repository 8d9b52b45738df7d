import logging

import pytest

from pipeline.core.outbox import Outbox


class Receiver:
    """Takes entries; is away or refuses when told so."""

    def __init__(self):
        self.got: list[int] = []
        self.error: Exception | None = None
        self.attempts = 0

    def take(self, entry: int) -> None:
        self.attempts += 1
        if self.error is not None:
            raise self.error
        self.got.append(entry)


def outbox(interval_s: float = 0) -> Outbox:
    return Outbox("receiver", lambda error: isinstance(error, ValueError), interval_s)


def put(box: Outbox, receiver: Receiver, entry: int) -> None:
    box.put(lambda: receiver.take(entry))


def test_an_entry_is_sent_at_once():
    box, receiver = outbox(), Receiver()
    put(box, receiver, 1)
    assert receiver.got == [1] and len(box) == 0


def test_entries_of_a_gap_arrive_later_in_order():
    box, receiver = outbox(), Receiver()
    receiver.error = ConnectionError("away")
    put(box, receiver, 1)
    put(box, receiver, 2)
    assert receiver.got == [] and len(box) == 2
    receiver.error = None
    put(box, receiver, 3)
    assert receiver.got == [1, 2, 3]


def test_an_absent_receiver_is_not_asked_again_before_the_interval():
    box, receiver = outbox(interval_s=1000), Receiver()
    receiver.error = ConnectionError("away")
    for entry in range(5):
        put(box, receiver, entry)
    assert receiver.attempts == 1
    receiver.error = None
    assert box.flush()
    assert receiver.got == [0, 1, 2, 3, 4]


def test_a_refused_entry_does_not_hold_up_the_others():
    box, receiver = outbox(), Receiver()
    receiver.error = ValueError("no")
    put(box, receiver, 1)
    receiver.error = None
    put(box, receiver, 2)
    assert receiver.got == [2]


def test_a_refusal_after_a_gap_is_told_too(caplog: pytest.LogCaptureFixture):
    box, receiver = outbox(), Receiver()
    receiver.error = ConnectionError("away")
    put(box, receiver, 1)
    receiver.error = ValueError("no")
    with caplog.at_level(logging.WARNING):
        put(box, receiver, 2)
    assert "receiver refused an entry, which is left out (no)" in [r.getMessage() for r in caplog.records]


def test_one_warning_for_a_long_gap(caplog: pytest.LogCaptureFixture):
    box, receiver = outbox(), Receiver()
    receiver.error = ConnectionError("away\nfor long")
    with caplog.at_level(logging.WARNING):
        for entry in range(3):
            put(box, receiver, entry)
        assert not box.flush()
    assert [r.getMessage() for r in caplog.records] == [
        "receiver does not answer; the work goes on and its entries wait (away for long)"
    ]


class Place:
    """Where named entries go, beside a receiver that is there; takes all but those in `broken`."""

    def __init__(self, interval_s: float = 0) -> None:
        self.got: list[str] = []
        self.broken: set[str] = set()
        self.attempts = 0
        self.box = Outbox("receiver", lambda error: False, interval_s, is_there=lambda: True, hint="Mend it.")

    def put(self, name: str, entry: str) -> None:
        self.box.put(lambda: self.take(name, entry), name)

    def take(self, name: str, entry: str) -> None:
        self.attempts += 1
        if name in self.broken:
            raise PermissionError(f"no {name}")
        self.got.append(entry)


def test_a_named_entry_that_fails_beside_a_receiver_that_is_there_holds_up_nothing():
    place, receiver = Place(), Receiver()
    place.broken = {"bad"}
    place.put("bad", "bad")
    put(place.box, receiver, 1)
    assert receiver.got == [1] and not place.box.flush() and (len(place.box), place.box.num_aside) == (1, 1)


def test_an_entry_set_aside_is_sent_once_its_place_works():
    place = Place()
    place.broken = {"bad"}
    place.put("bad", "bad")
    place.broken = set()
    put(place.box, Receiver(), 1)
    assert place.got == ["bad"] and len(place.box) == 0


def test_an_entry_that_never_works_holds_up_no_other_named_one():
    place = Place(interval_s=1000)
    place.broken = {"bad"}
    for name in ("bad", "b", "c"):
        place.put(name, name)
    assert not place.box.flush() and place.got == ["b", "c"] and len(place.box) == 1


def test_a_place_that_failed_is_not_asked_again_before_the_interval():
    place = Place(interval_s=1000)
    place.broken = set("abcde")
    for name in "abcde":
        place.put(name, name)
    assert (place.attempts, place.box.num_aside) == (1, 5)


def test_a_later_entry_of_a_name_is_not_written_over_by_one_set_aside():
    place = Place(interval_s=1000)
    place.broken = {"a"}
    place.put("a", "old")
    place.broken = set()
    place.put("a", "new")
    assert place.box.flush() and place.got == ["new"]


def test_a_named_entry_waits_in_order_while_the_receiver_is_away():
    box, receiver = Outbox("receiver", lambda error: False, 1000, is_there=lambda: False), Receiver()
    receiver.error = ConnectionError("away")
    box.put(lambda: receiver.take(1), "a")
    put(box, receiver, 2)
    assert (len(box), box.num_aside) == (2, 0)
    receiver.error = None
    assert box.flush() and receiver.got == [1, 2]


def test_one_warning_for_all_entries_set_aside(caplog: pytest.LogCaptureFixture):
    place = Place()
    place.broken = {"a", "b"}
    with caplog.at_level(logging.WARNING):
        place.put("a", "a")
        place.put("b", "b")
        assert not place.box.flush()
    assert [r.getMessage() for r in caplog.records] == [
        "receiver could not store a, which is tried again later; the rest goes on (no a). Mend it."
    ]
