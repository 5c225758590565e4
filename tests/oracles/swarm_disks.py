"""What a finished run left on its disks, audited from outside: every decision once, every order by a decision."""

from __future__ import annotations

import sqlite3
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from consensus.storage import Storage, StoredState
from consensus.storage_file import FILE_NAME
from orders.journal import Journal
from orders.order import PlannedOrder
from protocol.codec import codec_for
from protocol.codes import CommandKind, DenyCode, EntryKind
from protocol.messages import Frame, Outcome, SignedCommand
from protocol.signing import command_digest

VOTERS = ("risk-1", "risk-2", "executor-1", "trader-1")
"""By roster position."""

Intent = tuple[int, int]
"""Trader, and the intent's number there."""


@dataclass
class Decisions:
    """What one voter's disk says was decided."""

    places: list[bytes] = field(default_factory=list)
    """Digest of the frame at each place of the lane and of the spine, in order."""
    intents: dict[bytes, tuple[Intent, ...]] = field(default_factory=dict)
    """By the frame's digest."""
    approved: set[Intent] = field(default_factory=set)
    """On the lane, by an OUTCOME. Of a frame on the spine the votes are not kept."""


def load_state(directory: Path) -> tuple[StoredState, bytes]:
    """A voter's store, and the cluster that it belongs to."""
    connection = sqlite3.connect(directory / FILE_NAME)
    try:
        cluster_id, agent_id = connection.execute("SELECT cluster_id, agent_id FROM owner").fetchone()
    finally:
        connection.close()
    with Storage(directory, cluster_id, agent_id) as storage:
        return storage.load(), cluster_id


def decisions_of(state: StoredState, cluster_id: bytes) -> Decisions:
    """Frames in the order in which they were decided."""
    decisions, codec = Decisions(), codec_for("capnp")
    frames_at: dict[int, bytes] = {}
    for entry in state.entries:
        if entry.kind == EntryKind.FRAME:
            frames_at[entry.index] = _add(
                decisions, msgspec.msgpack.decode(entry.payload, type=SignedCommand), cluster_id
            )
        elif entry.kind == EntryKind.OUTCOME:
            outcome = codec.decode_body(Outcome, entry.payload)
            assert frames_at[outcome.index] == outcome.digest
            intents = decisions.intents[outcome.digest]
            codes = zip(intents, outcome.codes, strict=True)
            decisions.approved |= {intent for intent, code in codes if code == DenyCode.APPROVED}
    for slot in state.slots:
        for command in slot.commands:
            if command.kind == CommandKind.FRAME:
                _add(decisions, command, cluster_id)
    return decisions


def _add(decisions: Decisions, command: SignedCommand, cluster_id: bytes) -> bytes:
    digest = command_digest(cluster_id, command)
    frame = codec_for("capnp").decode_body(Frame, command.body)
    decisions.places.append(digest)
    decisions.intents[digest] = tuple((frame.trader, int(number)) for number in frame.intents.array["sequence"])
    return digest


def journal_of(directory: Path, cluster_id: bytes) -> tuple[PlannedOrder, ...]:
    """Every order that the executor has ever written down."""
    with Journal.open(directory / "orders.db", cluster_id, VOTERS.index(directory.name)) as journal:
        return journal.load().planned


def audit(run: Path) -> str | None:
    """What is wrong with a finished run: a decision that voters disagree on, that is there twice, that has no order or
    two, or an order without a decision."""
    states = {voter: load_state(run / voter) for voter in VOTERS}
    first, cluster_id = states[VOTERS[0]]
    for voter, (state, _) in states.items():
        for mine, theirs in zip(first.entries, state.entries, strict=False):
            if mine != theirs:
                return f"lane entry {mine.index} is another one on {voter} than on {VOTERS[0]}"
        for mine, theirs in zip(first.slots, state.slots, strict=False):
            if mine.digest != theirs.digest:
                return f"slot {mine.sequence} is another one on {voter} than on {VOTERS[0]}"
    return against_orders(decisions_of(first, cluster_id), journal_of(run / "executor-1", cluster_id))


def against_orders(decisions: Decisions, orders: tuple[PlannedOrder, ...]) -> str | None:
    """The decisions against what the gate let through."""
    twice = [digest.hex() for digest, count in Counter(decisions.places).items() if count > 1]
    if twice:
        return f"frames are decided twice: {twice}"
    released = Counter((order.trader, order.intent, order.leg) for order in orders)
    doubled = [key for key, count in released.items() if count > 1]
    if doubled:
        return f"orders were released twice: {doubled}"
    for order in orders:
        if (order.trader, order.intent) not in decisions.intents.get(order.decision_digest, ()):
            return f"order {order.terms.cl_ord_id} left without a decision"
    lost = decisions.approved - {(order.trader, order.intent) for order in orders}
    return f"approved intents have no order: {sorted(lost)}" if lost else None
