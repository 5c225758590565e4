"""The executor's durable memory: what may have left, and what came back. SQLite in WAL mode, ``synchronous=FULL``.

Two rules make a crash at any moment recoverable. Orders are written, many in one transaction, before any of their bytes
leaves; so an order that is not here was never sent. Reports are written before the swarm is told; so the numbered
stream of events never takes anything back. What was written but has no report is UNKNOWN after a restart and must be
asked for at the venue before anything else is sent.

The file belongs to one process at a time. Calls must not overlap, but may come from different threads.
"""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import msgspec

from orders.effects import Applied
from orders.lifecycle import OrderLedger
from orders.order import PlannedOrder
from orders.states import OrderState
from protocol.codes import DenyCode, ExecType, OrdStatus
from protocol.errors import LocalMisuse, RunFailure, UsageError
from protocol.messages import ExecutionReport, NewOrder, OrderEvent

FORMAT: Final = "1"

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS orders (
    number INTEGER PRIMARY KEY,
    cl_ord_id TEXT NOT NULL UNIQUE,
    planned BLOB NOT NULL,
    sends INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS events (
    sequence INTEGER PRIMARY KEY,
    order_number INTEGER NOT NULL REFERENCES orders (number),
    state INTEGER NOT NULL,
    report BLOB NOT NULL
);
"""
# Orders and reports are msgpack maps by field name, so numbers keep all their 64 bits and fields may be added. A CRC-32
# follows each, since SQLite does not check its pages.

_INSERT_ORDER: Final = "INSERT INTO orders (cl_ord_id, planned, sends) VALUES (?, ?, ?)"
_INSERT_EVENT: Final = "INSERT INTO events SELECT ?, number, ?, ? FROM orders WHERE cl_ord_id = ?"
_SELECT_EVENTS: Final = (
    "SELECT sequence, state, report, planned FROM events JOIN orders ON number = order_number "
    "WHERE sequence >= ? ORDER BY sequence LIMIT ?"
)

_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder()


class JournalFailed(RunFailure):
    """A write failed. It may or may not be durable, so the journal takes nothing more: restart and recover."""


@dataclass(frozen=True, slots=True)
class JournalState:
    """What a restarted executor knows."""

    ledger: OrderLedger
    """Every order with the state that its reports gave it; written without any report is UNKNOWN."""
    planned: tuple[PlannedOrder, ...]
    """Every order ever written, oldest first: the ids that are used and what their slices have spent."""
    must_query: tuple[str, ...]
    """Orders that may be alive at the venue, oldest first: UNKNOWN ones and those that were working."""
    next_sequence: int
    """The number that the next event will carry."""


class Journal:
    """Use ``Journal.open``. Also a context manager that closes the file."""

    def __init__(self, connection: sqlite3.Connection, path: Path, agent_id: int) -> None:
        self.path = path
        self.agent_id = agent_id
        self._connection = connection
        self._failure: str | None = None
        row = connection.execute("SELECT coalesce(max(sequence), 0) FROM events").fetchone()
        self._next_sequence: int = row[0] + 1

    @classmethod
    def open(cls, path: Path, cluster_id: bytes, agent_id: int) -> Self:
        """Open or create the journal of one executor, ``agent_id`` being its roster position, and lock it.

        ``UsageError`` if the file is in use, is no journal, or belongs to another cluster or agent.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(path, timeout=0.0, isolation_level=None, check_same_thread=False)
        except (OSError, sqlite3.Error) as error:
            raise UsageError(f"{path} cannot be opened ({error}); check the directory and its permissions") from None
        try:
            _prepare(connection, path, cluster_id, agent_id)
            return cls(connection, path, agent_id)
        except sqlite3.Error as error:
            connection.close()
            raise UsageError(_why_not_usable(path, error)) from None
        except UsageError:
            connection.close()
            raise

    def close(self) -> None:
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- before bytes leave ------------------------------------------------------------------------------------------

    def write_ahead(self, orders: Sequence[PlannedOrder]) -> None:
        """Make orders durable in one transaction. Only when this returns may any byte of them leave.

        An id that was ever written before is ``LocalMisuse``, and none of the orders is written.
        """
        rows = [(order.terms.cl_ord_id, _encode(order), 1) for order in orders]
        with self._transaction() as connection:
            connection.executemany(_INSERT_ORDER, rows)

    def write_resend(self, cl_ord_ids: Sequence[str]) -> None:
        """Note that orders are about to be sent once more under their ids, after the venue denied knowing them."""
        with self._transaction() as connection:
            for cl_ord_id in cl_ord_ids:
                updated = connection.execute("UPDATE orders SET sends = sends + 1 WHERE cl_ord_id = ?", (cl_ord_id,))
                if updated.rowcount != 1:
                    raise LocalMisuse(f"order {cl_ord_id} was never written ahead")

    def lapse(self, orders: Sequence[PlannedOrder], reason: DenyCode) -> list[OrderEvent]:
        """Record the end of orders that provably never reached the venue, written ahead or not.

        Returns their events; the report in them is ours, with ``exec_id`` 0 and the deny code as its reason.
        """
        unwritten = "INSERT OR IGNORE INTO orders (cl_ord_id, planned, sends) VALUES (?, ?, 0)"
        ended = [(order, OrderState.LAPSED, _lapse_report(order.terms, reason)) for order in orders]
        with self._transaction() as connection:
            connection.executemany(unwritten, [(order.terms.cl_ord_id, _encode(order)) for order in orders])
            events = self._append(connection, ended)
        self._next_sequence += len(events)
        return events

    # --- what came back ----------------------------------------------------------------------------------------------

    def append_reports(self, applied: Sequence[Applied]) -> list[OrderEvent]:
        """Make reports durable in one transaction and number them. The returned events may then be told."""
        with self._transaction() as connection:
            events = self._append(connection, [(item.order.planned, item.state, item.report) for item in applied])
        self._next_sequence += len(events)
        return events

    def events_from(self, sequence: int, limit: int) -> list[OrderEvent]:
        """Up to ``limit`` events from number ``sequence`` on, in order."""
        rows = self._read(_SELECT_EVENTS, (sequence, limit))
        return [
            _event(self.agent_id, number, _decode_planned(planned), OrderState(state), _decode_report(report))
            for number, state, report, planned in rows
        ]

    @property
    def next_sequence(self) -> int:
        """The number that the next event will carry; the first is 1."""
        return self._next_sequence

    # --- after a restart ---------------------------------------------------------------------------------------------

    def load(self) -> JournalState:
        """Replay the journal through a new ledger: the same code, hence the same states, as when the reports came."""
        ledger = OrderLedger()
        planned: dict[int, PlannedOrder] = {}
        for number, blob, sends in self._read("SELECT number, planned, sends FROM orders ORDER BY number"):
            order = planned[number] = _decode_planned(blob)
            record = ledger.open(order)
            if sends:
                ledger.mark_sending(order.terms.cl_ord_id, 0)
                record.sends = sends
        for number, state, blob in self._read("SELECT order_number, state, report FROM events ORDER BY sequence"):
            _replay(ledger, planned[number].terms.cl_ord_id, OrderState(state), _decode_report(blob))
        for cl_ord_id in ledger.unresolved():
            ledger.mark_unknown(cl_ord_id)
        must_query = tuple(
            cl_ord_id
            for cl_ord_id, record in ledger.orders.items()
            if record.state is OrderState.UNKNOWN or record.working
        )
        return JournalState(ledger, tuple(planned.values()), must_query, self._next_sequence)

    # --- inside ------------------------------------------------------------------------------------------------------

    def _append(
        self, connection: sqlite3.Connection, items: Sequence[tuple[PlannedOrder, OrderState, ExecutionReport]]
    ) -> list[OrderEvent]:
        numbered = enumerate(items, self._next_sequence)
        events = [_event(self.agent_id, number, *item) for number, item in numbered]
        rows = [(event.sequence, event.state, _encode(event.report), event.report.cl_ord_id) for event in events]
        written = connection.executemany(_INSERT_EVENT, rows).rowcount if rows else 0
        if written != len(rows):
            raise LocalMisuse("a report for an order that was never written ahead")
        return events

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing, durable on leaving. Our own mistakes roll back; a failure of the storage is for good."""
        if self._failure is not None:
            raise JournalFailed(f"{self.path} takes no more writes: {self._failure}")
        connection = self._connection
        try:
            connection.execute("BEGIN IMMEDIATE")
            yield connection
            connection.execute("COMMIT")
        except sqlite3.IntegrityError as error:
            raise LocalMisuse(f"an order id was used before: {error}") from error
        except sqlite3.Error as error:
            self._failure = str(error)
            raise JournalFailed(f"{self.path} could not be written: {error}") from error
        finally:
            if connection.in_transaction:
                connection.rollback()

    def _read(self, query: str, parameters: tuple[int, ...] = ()) -> list[tuple[Any, ...]]:
        try:
            return self._connection.execute(query, parameters).fetchall()
        except sqlite3.Error as error:
            raise JournalFailed(f"{self.path} could not be read: {error}") from error


def _prepare(connection: sqlite3.Connection, path: Path, cluster_id: bytes, agent_id: int) -> None:
    """Lock, create what is missing, and check whose file it is."""
    connection.execute("PRAGMA locking_mode = EXCLUSIVE")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("BEGIN IMMEDIATE")
    for statement in filter(str.strip, _SCHEMA.split(";")):
        connection.execute(statement)
    own = {"format": FORMAT, "cluster": cluster_id.hex(), "agent": str(agent_id)}
    found: dict[str, str] = dict(connection.execute("SELECT key, value FROM meta").fetchall())
    if not found:
        connection.executemany("INSERT INTO meta (key, value) VALUES (?, ?)", list(own.items()))
        found = own
    connection.execute("COMMIT")
    for key, value in own.items():
        if found.get(key) != value:
            raise UsageError(
                f"{path} is the journal of {key} {found.get(key)}, not {value}; give each agent a directory of its own"
            )


def _why_not_usable(path: Path, error: sqlite3.Error) -> str:
    if "locked" in str(error):
        return f"{path} is in use by another process; stop that one first"
    return f"{path} is not a usable journal ({error}); move it away and reconcile with the venue by hand"


def _event(agent_id: int, sequence: int, order: PlannedOrder, state: OrderState, report: ExecutionReport) -> OrderEvent:
    return OrderEvent(
        executor=agent_id,
        sequence=sequence,
        trader=order.trader,
        intent=order.intent,
        cycle=order.cycle,
        leg=order.leg,
        state=state,
        report=report,
    )


def _encode(record: PlannedOrder | ExecutionReport) -> bytes:
    body = _ENCODER.encode(record)
    return body + zlib.crc32(body).to_bytes(4, "little")


def _decode(blob: bytes) -> dict[str, Any]:
    body, checksum = blob[:-4], blob[-4:]
    if zlib.crc32(body).to_bytes(4, "little") != checksum:
        raise JournalFailed("the journal holds a damaged record; restore the file or reconcile with the venue by hand")
    fields: dict[str, Any] = _DECODER.decode(body)
    return fields


def _decode_planned(blob: bytes) -> PlannedOrder:
    fields = _decode(blob)
    return PlannedOrder(**{**fields, "terms": NewOrder(**fields["terms"])})


def _decode_report(blob: bytes) -> ExecutionReport:
    return ExecutionReport(**_decode(blob))


def _lapse_report(terms: NewOrder, reason: DenyCode) -> ExecutionReport:
    return ExecutionReport(
        cl_ord_id=terms.cl_ord_id,
        order_id=0,
        exec_id=0,
        exec_type=ExecType.ORDER_STATUS,
        ord_status=OrdStatus.REJECTED,
        symbol=terms.symbol,
        side=terms.side,
        order_quantity=terms.quantity,
        last_quantity=0,
        last_price=0,
        cumulative_quantity=0,
        leaves_quantity=0,
        reason=reason,
        market_index=terms.market_index,
    )


def _replay(ledger: OrderLedger, cl_ord_id: str, state: OrderState, report: ExecutionReport) -> None:
    if state is not OrderState.LAPSED:
        ledger.on_report(report)
        return
    # The evidence for a lapse was seen before it was written: nothing to prove again.
    ledger.mark_unknown(cl_ord_id)
    ledger.orders[cl_ord_id].absent_at_venue = True
    ledger.mark_lapsed(cl_ord_id, report.reason)
