"""Every message of the swarm, as immutable structs. The wire forms live in ``codec``; the machines know only these.

Conventions. Agents appear by their position in the roster (``u16``). Prices are integers in units of 1/10,000 of the
quote currency (``PRICE_SCALE``), quantities are whole shares, notional values are price times quantity in the price's
unit. Times ending in ``_ns`` are nanoseconds; ``*_at_ns`` are wall clock since the Unix epoch. ``market_index`` counts
bars of the replayed data set. Digests are SHA-256, signatures Ed25519 over domain-separated bytes (``signing``).
"""

from __future__ import annotations

from typing import Final

from protocol.intent import Intent as Intent
from protocol.raft_messages import InstallSnapshot, InstallSnapshotResponse, ReadIndex, ReadIndexResponse, TimeoutNow
from protocol.rows import NO_WINDOWS, Windows
from protocol.rows import Intents as Intents
from protocol.structs import I64, U8, U16, U32, U64
from protocol.structs import Message as Message

PRICE_SCALE: Final = 10_000


# --- control ---------------------------------------------------------------------------------------------------------


class Hello(Message, frozen=True):
    """First message on a connection, from the dialler: binds the agent's Ed25519 key to this very TLS session."""

    cluster_id: bytes
    agent: U16
    epoch: U64
    roster_digest: bytes
    signature: bytes
    certificates: bytes = b""
    """The dialler's TLS chain, PEM, for a listener that could not ask for it. See ``protocol.credential``."""
    possession: bytes = b""
    """By the key of the first of them, over this session."""


class HelloAck(Message, frozen=True):
    """The listener's answer. Nothing else is accepted or sent before it."""

    agent: U16
    epoch: U64
    roster_digest: bytes
    signature: bytes


class Refused(Message, frozen=True):
    """A typed refusal: the peer is told why before the connection closes."""

    reason: str


class Credit(Message, frozen=True):
    """The sender has handled so much of a channel that it takes ``more_bytes`` of it. See ``protocol.credit``."""

    channel: U8
    more_bytes: U64


class StatusRequest(Message, frozen=True):
    """Ask a live agent for its state. ``detail`` 0 is health only, 1 the full picture."""

    nonce: U64
    detail: U8


class StatusReply(Message, frozen=True):
    nonce: U64
    body: bytes
    """UTF-8 JSON object."""


# --- decisions -------------------------------------------------------------------------------------------------------


class Claim(Message, frozen=True):
    """What the trader says the pattern search found: the k nearest past windows of one symbol, nearest first."""

    symbol: U32
    query_end: U32
    """Market index of the query window's last bar."""
    window: U32
    starts: tuple[U32, ...]
    """Market index of each analogue's first bar."""
    distances: tuple[float, ...]
    """DTW distances of z-normalised windows, squared cost, no root."""
    forecast_bps: I64
    """Distance-weighted forward log return of the analogues, in basis points times 100."""


class Frame(Message, frozen=True):
    """Intents signed together. The body of a ``SignedCommand`` of kind FRAME."""

    cluster_id: bytes
    trader: U16
    path: U8
    epoch: U32
    slice_id: U32
    slice_version: U32
    sequence: U64
    """Unique per trader for ever, one per frame."""
    cycle: U64
    market_index: U32
    created_at_ns: U64
    expires_at_ns: U64
    intents: Intents
    claims: tuple[Claim, ...]
    windows: Windows = NO_WINDOWS
    """Evidence: the query window of each claim as the trader searched it, one after the other; or nothing."""
    window_length: U16 = 0
    """Samples per window; 0 without ``windows``."""


class SliceGrant(Message, frozen=True):
    """A risk budget for one trader at one gate. Only the spine grants. Body of a ``SignedCommand`` SLICE_GRANT."""

    cluster_id: bytes
    slice_id: U32
    version: U32
    epoch: U32
    trader: U16
    gate: U16
    notional_limit: I64
    symbol_notional_limit: I64
    """Routine use of one symbol under this version; beyond it an intent is critical however small it is."""


class SignedCommand(Message, frozen=True):
    """Bytes that an author stands for. Replicas check the signature before they parse ``body``."""

    kind: U8
    author: U16
    body: bytes
    signature: bytes


class Submit(Message, frozen=True):
    """An author hands its command to the replicas. With ``propose`` false they only verify and vote (the separate
    coordination round of the baseline); with it, leader or primary also puts the command in order."""

    path: U8
    propose: bool
    command: SignedCommand


class Denial(Message, frozen=True):
    intent: U16
    """Position in the frame."""
    code: U16


class FrameVote(Message, frozen=True):
    """One replica's risk verdict on one frame; q of them that approve an intent are its certificate.

    On the lane the vote is also the append acknowledgement of (term, index) and leaves only after the entry is
    durable. On the spine, and in a separate coordination round, term and index are 0.
    """

    replica: U16
    path: U8
    term: U64
    index: U64
    digest: bytes
    denials: tuple[Denial, ...]
    """Empty: every intent is approved."""
    signature: bytes


class Outcome(Message, frozen=True):
    """What became of the frame at ``index`` of the lane: the body of an OUTCOME entry, with its evidence."""

    index: U64
    digest: bytes
    codes: tuple[U16, ...]
    """One ``DenyCode`` per intent, 0 for approved."""
    votes: tuple[FrameVote, ...]


# --- Raft ------------------------------------------------------------------------------------------------------------


class Entry(Message, frozen=True):
    term: U64
    index: U64
    kind: U8
    payload: bytes


class RequestVote(Message, frozen=True):
    term: U64
    candidate: U16
    last_log_index: U64
    last_log_term: U64
    pre_vote: bool
    transfer: bool = False
    """The leader itself asked for this election, so that nobody need protect it."""


class RequestVoteResponse(Message, frozen=True):
    term: U64
    voter: U16
    granted: bool
    pre_vote: bool


class AppendEntries(Message, frozen=True):
    term: U64
    leader: U16
    previous_log_index: U64
    previous_log_term: U64
    leader_commit: U64
    entries: tuple[Entry, ...]
    round: U64 = 0
    """Numbers the leader's rounds in its term; the answer echoes it, so that a quorum confirms when it still led."""


class AppendEntriesResponse(Message, frozen=True):
    term: U64
    follower: U16
    success: bool
    match_index: U64
    """On success the highest index known to match; on refusal a hint, the highest index worth trying."""
    hint_term: U64 = 0
    """On refusal the term of the follower's entry at the hint; otherwise 0."""
    round: U64 = 0
    """Of the append that is answered."""


# --- PBFT ------------------------------------------------------------------------------------------------------------


class PrePrepare(Message, frozen=True):
    view: U64
    sequence: U64
    digest: bytes
    primary: U16
    commands: tuple[SignedCommand, ...]
    signature: bytes


class Prepare(Message, frozen=True):
    view: U64
    sequence: U64
    digest: bytes
    replica: U16
    signature: bytes


class Commit(Message, frozen=True):
    view: U64
    sequence: U64
    digest: bytes
    replica: U16
    signature: bytes


class CommittedSlot(Message, frozen=True):
    """A slot with its commit certificate: q signed COMMITs, checkable by anyone."""

    view: U64
    sequence: U64
    digest: bytes
    commands: tuple[SignedCommand, ...]
    commits: tuple[Commit, ...]


class SlotRequest(Message, frozen=True):
    """Ask a peer for committed slots from ``from_sequence`` on."""

    replica: U16
    from_sequence: U64


class SlotReply(Message, frozen=True):
    slots: tuple[CommittedSlot, ...]


# --- orders ----------------------------------------------------------------------------------------------------------


class NewOrder(Message, frozen=True):
    cl_ord_id: str
    symbol: U32
    side: U8
    time_in_force: U8
    quantity: I64
    limit_price: I64
    market_index: U32


class OrderStatusRequest(Message, frozen=True):
    cl_ord_id: str


class MarketAdvance(Message, frozen=True):
    """The replay has reached ``market_index``: the venue plays every bar up to it, in order."""

    market_index: U32


class ExecutionReport(Message, frozen=True):
    """FIX 4.4 message 8 as far as it is used. ``exec_id`` numbers the venue's reports; fills are known by it."""

    cl_ord_id: str
    order_id: U64
    exec_id: U64
    exec_type: U8
    ord_status: U8
    symbol: U32
    side: U8
    order_quantity: I64
    last_quantity: I64
    last_price: I64
    cumulative_quantity: I64
    leaves_quantity: I64
    reason: U16
    market_index: U32


class OrderEvent(Message, frozen=True):
    """What an executor tells the swarm about one of its orders, in one numbered stream per executor."""

    executor: U16
    sequence: U64
    trader: U16
    intent: U64
    cycle: U64
    leg: U8
    state: U8
    """``orders.states.OrderState``."""
    report: ExecutionReport


class OrderEventsRequest(Message, frozen=True):
    """Ask an executor to repeat its events from ``from_sequence`` on (after a restart or a reconnect)."""

    from_sequence: U64


class OrderEventsHead(Message, frozen=True):
    """Sent after the repeated events: the sequence that the executor's next event will carry."""

    executor: U16
    next_sequence: U64


WIRE_TYPES: Final[tuple[type[Message], ...]] = (
    Hello, HelloAck, Refused, StatusRequest, StatusReply,
    Submit, FrameVote,
    RequestVote, RequestVoteResponse, AppendEntries, AppendEntriesResponse,
    PrePrepare, Prepare, Commit, SlotRequest, SlotReply,
    NewOrder, OrderStatusRequest, MarketAdvance, ExecutionReport, OrderEvent, OrderEventsRequest, OrderEventsHead,
    Credit,
    ReadIndex, ReadIndexResponse, TimeoutNow, InstallSnapshot, InstallSnapshotResponse,
)  # fmt: skip
"""Messages that may stand alone in a batch. The position is the wire's discriminant: append only."""

BODY_TYPES: Final[tuple[type[Message], ...]] = (Frame, SliceGrant, Outcome)
"""Structs that are encoded on their own, to be signed, hashed or kept in a log."""
