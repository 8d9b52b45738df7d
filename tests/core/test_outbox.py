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
