"""The journal: whose file it is, what a crash leaves, and what a failing disk may not hide."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from orders.effects import Applied
from orders.journal import Journal, JournalFailed
from orders.lifecycle import OrderLedger
from orders.order import PlannedOrder
from orders.states import OrderState
from protocol.codes import DenyCode, ExecType, RejectReason
from protocol.errors import LocalMisuse, RunFailure, UsageError
from protocol.messages import ExecutionReport
from tests.oracles.order_examples import CLUSTER, planned, report

ROOT = Path(__file__).parents[2]
S, E = OrderState, ExecType


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "executor" / "orders.db"


def reopened(path: Path) -> Journal:
    return Journal.open(path, CLUSTER, 4)


def sent(ledger: OrderLedger, order: PlannedOrder) -> None:
    ledger.open(order)
    ledger.mark_sending(order.terms.cl_ord_id, 1)


def applied(ledger: OrderLedger, *reports: ExecutionReport) -> list[Applied]:
    return [effect for message in reports for effect in ledger.on_report(message) if isinstance(effect, Applied)]


def test_what_is_written_ahead_is_unknown_after_a_restart(path: Path) -> None:
    orders = [planned(intent) for intent in range(5)]
    with reopened(path) as journal:
        journal.write_ahead(orders)
    with reopened(path) as journal:
        state = journal.load()
    assert state.planned == tuple(orders)
    assert state.must_query == tuple(order.terms.cl_ord_id for order in orders)
    assert {record.state for record in state.ledger.orders.values()} == {S.UNKNOWN}
    assert state.next_sequence == 1


def test_reports_bring_every_order_back_to_its_state(path: Path) -> None:
    ledger, orders = OrderLedger(), [planned(intent, quantity=10) for intent in range(4)]
    with reopened(path) as journal:
        journal.write_ahead(orders)
        for order in orders:
            sent(ledger, order)
        told = journal.append_reports(
            applied(
                ledger,
                report(orders[0], E.NEW, 1),
                report(orders[1], E.TRADE, 2, last=4, cumulative=4),
                report(orders[2], E.TRADE, 3, last=10, cumulative=10),
                report(orders[0], E.EXPIRED, 4),
            )
        )
        assert [event.sequence for event in told] == [1, 2, 3, 4]
        assert [event.state for event in told] == [S.ACCEPTED, S.PARTIALLY_FILLED, S.FILLED, S.EXPIRED]
        assert {(event.executor, event.trader, event.cycle, event.leg) for event in told} == {(4, 2, 7, 0)}
    with reopened(path) as journal:
        state = journal.load()
        assert journal.events_from(1, 100) == told
        assert journal.events_from(3, 1) == told[2:3] and journal.events_from(5, 9) == []
        states = [state.ledger.orders[order.terms.cl_ord_id].state for order in orders]
        assert states == [S.EXPIRED, S.PARTIALLY_FILLED, S.FILLED, S.UNKNOWN]
        assert state.must_query == (orders[1].terms.cl_ord_id, orders[3].terms.cl_ord_id)
        for order in orders[:3]:
            before, after = ledger.orders[order.terms.cl_ord_id], state.ledger.orders[order.terms.cl_ord_id]
            assert (before.cumulative_notional, before.exec_ids) == (after.cumulative_notional, after.exec_ids)
        # Numbers go on where they stopped, and a report that is heard again has no effect.
        assert applied(state.ledger, report(orders[1], E.TRADE, 2, last=4, cumulative=4)) == []
        more = applied(state.ledger, report(orders[1], E.TRADE, 9, last=6, cumulative=10))
        assert [event.sequence for event in journal.append_reports(more)] == [5]


def test_one_bad_id_refuses_the_whole_batch(path: Path) -> None:
    with reopened(path) as journal:
        journal.write_ahead([planned(1)])
        with pytest.raises(LocalMisuse):
            journal.write_ahead([planned(2), planned(1)])
        with pytest.raises(LocalMisuse):
            journal.append_reports(applied_for_stranger())
        with pytest.raises(LocalMisuse):
            journal.write_resend(["stranger"])
        assert len(journal.load().planned) == 1 and journal.next_sequence == 1
        journal.write_ahead([planned(2)])
        assert len(journal.load().planned) == 2


def applied_for_stranger() -> list[Applied]:
    ledger, stranger = OrderLedger(), planned(99)
    sent(ledger, stranger)
    return applied(ledger, report(stranger, E.NEW, 1))


def test_numbers_keep_all_their_bits(path: Path) -> None:
    huge = planned(2**64 - 1, quantity=2**62, price=1)
    with reopened(path) as journal:
        journal.write_ahead([huge])
        assert journal.load().planned == (huge,)


def test_lapsed_orders_are_told_and_stay_lapsed(path: Path) -> None:
    never_written, written = planned(1), planned(2)
    with reopened(path) as journal:
        journal.write_ahead([written])
        told = journal.lapse([never_written, written], DenyCode.GATE_EXPIRED)
        assert [(event.sequence, event.state, event.report.reason) for event in told] == [
            (1, S.LAPSED, DenyCode.GATE_EXPIRED),
            (2, S.LAPSED, DenyCode.GATE_EXPIRED),
        ]
        assert told[0].report.order_quantity == never_written.terms.quantity
    with reopened(path) as journal:
        state = journal.load()
    counts = state.ledger.counts()
    assert (counts.lapsed, counts.sent, counts.lost, state.must_query) == (2, 1, 0, ())
    assert all(record.reason == DenyCode.GATE_EXPIRED for record in state.ledger.orders.values())


def test_a_second_send_is_on_record(path: Path) -> None:
    order = planned(1)
    with reopened(path) as journal:
        journal.write_ahead([order])
        journal.write_resend([order.terms.cl_ord_id])
        record = journal.load().ledger.orders[order.terms.cl_ord_id]
    assert (record.sends, record.state) == (2, S.UNKNOWN)


# --- whose file ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("cluster", "agent"), [(b"another", 4), (CLUSTER, 5)])
def test_another_owners_file_is_refused(path: Path, cluster: bytes, agent: int) -> None:
    reopened(path).close()
    with pytest.raises(UsageError, match="is the journal of"):
        Journal.open(path, cluster, agent)
    reopened(path).close()


def test_one_process_at_a_time(path: Path) -> None:
    with reopened(path), pytest.raises(UsageError, match="in use"):
        reopened(path)
    reopened(path).close()


def test_what_is_no_journal_is_refused(path: Path, tmp_path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"price,quantity\n" * 500)
    with pytest.raises(UsageError, match="not a usable journal"):
        reopened(path)
    with pytest.raises(UsageError):
        reopened(tmp_path)


# --- crashes ---------------------------------------------------------------------------------------------------------

WRITER = """
import os, signal, sys
from pathlib import Path
from orders.journal import Journal
from orders.effects import Applied
from orders.lifecycle import OrderLedger
from protocol.codes import ExecType
from tests.oracles.order_examples import CLUSTER, planned, report

journal, ledger, where = Journal.open(Path(sys.argv[1]), CLUSTER, 4), OrderLedger(), sys.argv[2]
batch = [planned(intent, quantity=10) for intent in range(20)]
journal.write_ahead(batch)
for order in batch:
    ledger.open(order)
    ledger.mark_sending(order.terms.cl_ord_id, 1)
print("ahead", flush=True)
if where == "before send":
    os.kill(os.getpid(), signal.SIGKILL)
for number in range(10_000):
    order = batch[number % 20]
    message = report(order, ExecType.TRADE, number + 1, last=1, cumulative=number // 20 + 1)
    journal.append_reports([effect for effect in ledger.on_report(message) if isinstance(effect, Applied)])
    print(number + 1, flush=True)
    if where == "after reports" and number == 49:
        os.kill(os.getpid(), signal.SIGKILL)
    if number == 199:
        for intent in range(20, 10_000):
            journal.write_ahead([planned(intent)])
            print("order", intent, flush=True)
"""


def run_writer(path: Path, where: str, kill_after_lines: int | None = None) -> list[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), where], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    with process.stdout as out:
        lines = []
        for line in out:
            lines.append(line.strip())
            if kill_after_lines is not None and len(lines) == kill_after_lines:
                process.send_signal(signal.SIGKILL)
    assert process.wait(30) == -signal.SIGKILL
    return lines


def test_killed_between_write_ahead_and_send(path: Path) -> None:
    assert run_writer(path, "before send") == ["ahead"]
    with reopened(path) as journal:
        state = journal.load()
    assert len(state.must_query) == 20
    # The venue has never heard of them: with its word they may go out under the same ids, once.
    for order in state.planned:
        state.ledger.on_report(report(order, E.REJECTED, 0, reason=RejectReason.UNKNOWN_ORDER, order_id=0))
        assert state.ledger.mark_sending(order.terms.cl_ord_id, 5)
    assert state.ledger.counts().duplicate == 0


def test_killed_between_send_and_report(path: Path) -> None:
    lines = run_writer(path, "after reports")
    assert lines[-1] == "50"
    with reopened(path) as journal:
        state = journal.load()
        assert [event.sequence for event in journal.events_from(1, 1_000)] == list(range(1, 51))
    fills = [record.cumulative_quantity for record in state.ledger.orders.values()]
    assert fills == [3] * 10 + [2] * 10
    # What was lost comes back as the venue's history; what was known before is not booked again.
    for number in range(60):
        order = state.planned[number % 20]
        state.ledger.on_report(report(order, E.TRADE, number + 1, last=1, cumulative=number // 20 + 1))
    assert [record.cumulative_quantity for record in state.ledger.orders.values()] == [3] * 20


@pytest.mark.parametrize("lines_seen", [37, 230])
def test_killed_anywhere_nothing_that_was_told_is_lost(path: Path, lines_seen: int) -> None:
    lines = run_writer(path, "nowhere", lines_seen)
    reports_told = max(int(line) for line in lines if line.isdigit())
    orders_told = 20 + sum(line.startswith("order ") for line in lines)
    with reopened(path) as journal:
        state = journal.load()
        events = journal.events_from(1, 100_000)
    assert reports_told <= len(events) <= reports_told + 1
    assert orders_told <= len(state.planned) <= orders_told + 1
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    state.ledger.check_invariants()


# --- a failing disk --------------------------------------------------------------------------------------------------


def test_a_full_disk_stops_the_journal_for_good(path: Path) -> None:
    with reopened(path) as journal:
        journal.write_ahead([planned(0)])
        journal._connection.execute("PRAGMA max_page_count = 12")
        with pytest.raises(JournalFailed, match="full"):
            journal.write_ahead([planned(intent) for intent in range(1, 2_000)])
        journal._connection.execute("PRAGMA max_page_count = 100000")
        with pytest.raises(RunFailure, match="takes no more writes"):
            journal.write_ahead([planned(5_000)])
        with pytest.raises(JournalFailed):
            journal.append_reports([])
        assert len(journal.load().planned) == 1
    with reopened(path) as journal:
        assert len(journal.load().planned) == 1
        journal.write_ahead([planned(1)])


def test_every_write_is_synchronous(path: Path) -> None:
    reopened(path).close()
    with reopened(path) as journal:
        assert journal._connection.execute("PRAGMA synchronous").fetchone() == (2,)
        assert journal._connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_unreadable_pages_are_reported(path: Path) -> None:
    with reopened(path) as journal:
        journal.write_ahead([planned(intent) for intent in range(200)])
    with path.open("r+b") as file:
        for offset in range(8_192, path.stat().st_size, 4_096):
            file.seek(offset)
            file.write(b"\xff" * 512)
    with pytest.raises((UsageError, RunFailure)), reopened(path) as journal:
        journal.load()


def test_a_changed_digit_is_noticed(path: Path) -> None:
    with reopened(path) as journal:
        journal.write_ahead([planned(1, quantity=77_777)])
    with sqlite3.connect(path) as connection:
        (blob,) = connection.execute("SELECT planned FROM orders").fetchone()
        damaged = blob.replace((77_777).to_bytes(4, "big"), (77_778).to_bytes(4, "big"))
        assert damaged != blob
        connection.execute("UPDATE orders SET planned = ?", (damaged,))
    connection.close()
    with reopened(path) as journal, pytest.raises(JournalFailed, match="damaged"):
        journal.load()
