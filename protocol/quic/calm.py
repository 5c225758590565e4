"""The long middle life of a connection: established, on one path, with nothing to say but the data of its streams.

Some ninety attributes of the library's objects have to be asked to know that. They are asked once; from then on the
numbers that change with every packet live here, in one plain object, until the library is asked to do anything else:
``UsualWays`` calls ``disturb`` before it does, and the library has its books back, as if it had kept them itself.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any, Final, cast

from aioquic import tls
from aioquic.quic.connection import NetworkAddress, QuicConnectionState

from protocol.quic.calm_stream import CalmStream, ranges_of
from protocol.quic.newreno import NewReno
from protocol.quic.sealing import Keys

if TYPE_CHECKING:
    from protocol.quic.usual import UsualWays

ONE_RTT: Final = tls.Epoch.ONE_RTT
CONNECTED: Final = QuicConnectionState.CONNECTED
GRANULARITY_S: Final = 0.001
"""No round trip is taken to be shorter, and no timer finer (RFC 9002, 6.1.2)."""


class Calm:
    """Made once a connection has its keys and packet spaces.

    Invariant: while ``holds``, what is written here is true, and what the library's objects say of the same is old.
    Absent times are infinite.
    """

    holds = False
    waiting: CalmStream | None = None
    """The stream that has something to send (one of them, if ``several``)."""
    several = False
    credit = 0
    """How many bytes may come before a flow-control window may have to be opened."""
    acknowledge_from = 0
    """At how many bytes of all streams they are acknowledged without delay."""

    # What stays as it is.
    peer_id = b""
    """Destination of what is sent,"""
    host_id = b""
    """and of what is received."""
    address: NetworkAddress = ("", 0)
    idle_timeout_s = 0.0
    """The shorter of both ends' wishes."""
    packet_room = 0
    """For the payload of a packet."""
    sending: Keys | None = None
    receiving: Keys | None = None
    ack_delay_unit = 0
    """Shifts of the encoded acknowledgement delay, ours"""
    ack_delay_unit_peer = 0
    """and the peer's."""
    ack_delay_max_s = 0.0

    # What changes with packets that leave.
    number_next = 0
    credit_used = 0
    credit_max = 0
    """Of the peer's, over all streams."""
    bytes_sent = 0
    in_flight = 0
    """Packets that ask for an acknowledgement."""
    spoken_at = 0.0
    spoken_since = False
    """Since the last packet came."""

    # What changes with packets that come.
    number_expected = 0
    """As the library counts: the largest number so far, or the one after it."""
    largest = 0
    largest_at = 0.0
    ack_start = 0
    """First packet to acknowledge,"""
    ack_stop = 0
    """and behind the last; the same when there is none."""
    ack_at = inf
    received_bytes = 0
    received_max = 0
    """Of our flow control, over all streams."""
    seen_lower = 0
    seen_size = 0
    spin = 0
    spin_number = 0
    close_at = 0.0

    # What changes with acknowledgements.
    largest_acked = 0
    probes = 0
    round_trip_latest_s = 0.0
    round_trip_min_s = 0.0
    round_trip_s = 0.0
    variance_s = 0.0

    def __init__(self, connection: UsualWays) -> None:
        self.connection = connection
        self.acknowledge_every = connection._acknowledge_every
        self.is_client = connection._is_client
        self.window = cast(NewReno, connection._loss._cc)
        self.events = connection._events
        self.sent_packets: dict[int, Any] = {}
        self.seen: set[int] = set()
        self.streams: dict[int, CalmStream] = {}
        self._known: dict[int, CalmStream] = {}
        """The same, kept while it does not hold: packets in flight refer to them."""

    # --- beginning and end ------------------------------------------------------------------------------------------

    def look(self) -> bool:
        """Whether it holds now."""
        self.disturb()
        connection = self.connection
        if self._is_established() and self._only_streams_can_speak() and self._load_space() and self._load_streams():
            self.peer_id, self.host_id = connection._peer_cid.cid, connection.host_cid
            self.address = connection._network_paths[0].addr
            wished, remote = connection._configuration.idle_timeout, connection._remote_max_idle_timeout
            self.idle_timeout_s = wished if remote is None else min(wished, remote)
            crypto = connection._cryptos[ONE_RTT]
            self.sending, self.receiving = Keys(crypto.send), Keys(crypto.recv)
            self.packet_room = connection._max_datagram_size - 3 - len(self.peer_id) - crypto.aead_tag_size
            self._load_connection()
            self._load_recovery()
            self.holds = True
        return self.holds

    def disturb(self) -> None:
        """The library goes on; nothing is known here any more."""
        if self.holds:
            self.settle()
            self.holds = False
        self.waiting = None

    def settle(self) -> None:
        """Bring the library's books up to date."""
        if not self.holds:
            return
        for stream in self.streams.values():
            stream.store()
        self._store_connection()
        self._store_space()
        self._store_recovery()

    # --- on the way -------------------------------------------------------------------------------------------------

    def wait(self, stream: CalmStream) -> None:
        """The stream has something to send."""
        self.several = self.waiting is not None and (self.several or self.waiting is not stream)
        self.waiting = stream

    def sent(self) -> None:
        """Nothing waits any more."""
        self.waiting = None
        self.several = False

    def probe_timeout_s(self) -> float:
        """RFC 9002, 6.2.1."""
        variance = 4 * self.variance_s
        return self.round_trip_s + (variance if variance > GRANULARITY_S else GRANULARITY_S) + self.ack_delay_max_s

    def stay_open(self, now: float) -> None:
        """What both ends have agreed on, and three probe timeouts at least (RFC 9000, 10.1)."""
        probes = 3 * self.probe_timeout_s()
        self.close_at = now + (self.idle_timeout_s if self.idle_timeout_s > probes else probes)

    def loss_at(self) -> float:
        """When something that is not acknowledged may be lost."""
        return self.spoken_at + self.probe_timeout_s() * (1 << self.probes) if self.in_flight else inf

    def timer_at(self) -> float:
        """When to look at the connection: to close, to acknowledge, or because something may be lost."""
        at, loss_at = self.close_at, self.loss_at()
        if loss_at < at:
            at = loss_at
        return self.ack_at if self.ack_at < at else at

    def must_send(self, now: float) -> bool:
        return self.waiting is not None or self.ack_at <= now

    def unsent_bytes(self, stream_id: int) -> int:
        """As with the library, also what has left and is not yet acknowledged."""
        stream = self.streams.get(stream_id)
        return 0 if stream is None else len(stream.buffer)

    # --- the connection ---------------------------------------------------------------------------------------------

    def _is_established(self) -> bool:
        connection = self.connection
        if not connection._handshake_confirmed or connection._state is not CONNECTED or connection._close_pending:
            return False
        paths, loss = connection._network_paths, connection._loss
        if len(paths) != 1 or not paths[0].is_validated or paths[0].remote_challenges:
            return False
        if not loss.peer_completed_address_validation or connection._quic_logger is not None:
            return False
        if connection._close_event is not None or connection._pacing_at is not None or not loss._rtt_initialized:
            return False
        if connection._path_probe is not None:
            return False
        return connection._cryptos[tls.Epoch.ZERO_RTT].recv.aead is None

    def _only_streams_can_speak(self) -> bool:
        """Whether nobody has asked for a frame of another kind."""
        connection = self.connection
        if connection._handshake_done_pending or connection._probe_pending or connection._ping_pending:
            return False
        if connection._datagrams_pending or connection._retire_connection_ids or connection._streams_blocked_pending:
            return False
        if connection._remote_preferred_address is not None:
            return False
        if not connection._crypto_streams[ONE_RTT].sender.buffer_is_empty:
            return False
        if connection._cryptos[ONE_RTT]._update_key_requested:
            return False
        bidirectional, unidirectional = connection._local_max_streams_bidi, connection._local_max_streams_uni
        if bidirectional.value != bidirectional.sent or unidirectional.value != unidirectional.sent:
            return False
        return all([connection_id.was_sent for connection_id in connection._host_cids])  # noqa: C419 - no generator

    def _load_connection(self) -> None:
        connection = self.connection
        self.events = connection._events
        self.ack_delay_unit = connection._local_ack_delay_exponent
        self.ack_delay_unit_peer = connection._remote_ack_delay_exponent
        self.number_next = connection._packet_number
        self.credit_used, self.credit_max = connection._remote_max_data_used, connection._remote_max_data
        self.acknowledge_from = connection._acknowledge_from
        self.bytes_sent = connection._network_paths[0].bytes_sent
        self.spoken_since = connection._ack_eliciting_sent_since_receipt
        self.spin, self.spin_number = int(connection._spin_bit), connection._spin_highest_pn
        assert connection._close_at is not None, "it is connected"
        self.close_at = connection._close_at

    def _store_connection(self) -> None:
        connection = self.connection
        loss_at = self.loss_at()
        connection._loss_at = None if loss_at == inf else loss_at
        connection._packet_number = self.number_next
        connection._remote_max_data_used = self.credit_used
        connection._acknowledge_from = self.acknowledge_from
        connection._local_max_data.used = self.received_bytes
        connection._network_paths[0].bytes_sent = self.bytes_sent
        connection._ack_eliciting_sent_since_receipt = self.spoken_since
        connection._spin_bit, connection._spin_highest_pn = bool(self.spin), self.spin_number
        connection._close_at = self.close_at

    # --- packets ----------------------------------------------------------------------------------------------------

    def _load_space(self) -> bool:
        """Whether all that has come is in order, and nothing is thought to be lost."""
        space = self.connection._spaces[ONE_RTT]
        queue = ranges_of(space.ack_queue)
        if space.loss_time is not None or len(queue) > 1 or space.largest_received_time is None:
            return False
        following = space.largest_received_packet + 1
        self.ack_start, self.ack_stop = (queue[0].start, queue[0].stop) if queue else (following, following)
        if self.ack_stop != following:
            return False
        if space.ack_at is not None and not queue:
            return False
        self.ack_at = inf if space.ack_at is None else space.ack_at
        self.number_expected = space.expected_packet_number
        self.largest, self.largest_at = space.largest_received_packet, space.largest_received_time
        self.in_flight, self.largest_acked = space.ack_eliciting_in_flight, space.largest_acked_packet
        self.sent_packets = space.sent_packets
        window = space.received_packets
        self.seen, self.seen_lower, self.seen_size = window._received, window._lower, window._size
        return True

    def _store_space(self) -> None:
        space = self.connection._spaces[ONE_RTT]
        ranges_of(space.ack_queue)[:] = [range(self.ack_start, self.ack_stop)] if self.ack_start < self.ack_stop else []
        space.ack_at = None if self.ack_at == inf else self.ack_at
        space.expected_packet_number = self.number_expected
        space.largest_received_packet, space.largest_received_time = self.largest, self.largest_at
        space.ack_eliciting_in_flight, space.largest_acked_packet = self.in_flight, self.largest_acked
        space.received_packets._lower = self.seen_lower

    def note_seen(self, number: int) -> None:
        """The number of a packet, so that it is not taken twice once the library looks again."""
        if len(self.seen) < 2 * self.seen_size:
            self.seen.add(number)
            lower = number - self.seen_size + 1
            if lower > self.seen_lower:
                self.seen_lower = lower
            return
        window = self.connection._spaces[ONE_RTT].received_packets  # it sweeps
        window._lower = self.seen_lower
        window.add(number)
        self.seen, self.seen_lower = window._received, window._lower

    # --- streams and recovery ---------------------------------------------------------------------------------------

    def _load_streams(self) -> bool:
        """What waits on them, and what may come; false when one has a word about itself."""
        connection = self.connection
        limit, window = connection._local_max_data, connection._configuration.max_data
        if limit.value != limit.sent:
            return False
        self.received_bytes, self.received_max = limit.used, limit.value
        credit = limit.value - limit.used - window // 2
        window = connection._configuration.max_stream_data
        self.sent()
        streams: dict[int, CalmStream] = {}
        for number, stream in connection._streams.items():
            calm = self._known.get(number)
            if calm is None:
                calm = self._known[number] = CalmStream(stream)
            streams[number] = calm
            if not calm.load():
                return False
            left = calm.receive_max - calm.received - window // 2
            if left < credit:
                credit = left
            if calm.next < calm.buffer_stop:
                self.wait(calm)
        self.credit, self.streams = credit, streams
        if len(self._known) > len(streams):
            self._known = dict(streams)
        return credit >= 0

    def _load_recovery(self) -> None:
        loss = self.connection._loss
        self.ack_delay_max_s = loss.max_ack_delay
        self.probes, self.spoken_at = loss._pto_count, loss._time_of_last_sent_ack_eliciting_packet
        self.round_trip_latest_s, self.round_trip_min_s = loss._rtt_latest, loss._rtt_min
        self.round_trip_s, self.variance_s = loss._rtt_smoothed, loss._rtt_variance

    def _store_recovery(self) -> None:
        loss = self.connection._loss
        loss._pto_count, loss._time_of_last_sent_ack_eliciting_packet = self.probes, self.spoken_at
        loss._rtt_latest, loss._rtt_min = self.round_trip_latest_s, self.round_trip_min_s
        loss._rtt_smoothed, loss._rtt_variance = self.round_trip_s, self.variance_s
