"""What a node of a measured lane does with requests, and with what becomes committed. Compiled (docs/native.md)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any, Final

import msgspec

from consensus.machine import Ready
from consensus.raft.config import Role
from consensus.raft.core import Raft
from consensus.raft.outcome import Outcome
from consensus.raft.outcome import Standing as Proposed
from profiling.bench.lane.embedded import EmbeddedLoad
from profiling.bench.lane.requests import ONCE_BYTES, RESPONSE_BYTES_MAX, Load, Request, Response, Standing, Verb
from profiling.bench.lane.store import Deframer, KeyValues, frames, payload_of
from protocol.codes import EntryKind

WRITES: Final = frozenset({Verb.PUT, Verb.CAS})
DONE: Final = Standing.DONE

_requests: Final = msgspec.msgpack.Decoder(list[Request])
_responses: Final = msgspec.msgpack.Encoder()


class Client:
    """One client's connection. What it is answered within a turn of the loop leaves together.

    An ``asyncio.Protocol``, but for the name: a compiled class cannot inherit from it."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._transport: Any = None
        self._answers: list[Response] = []
        self._frames = Deframer(self._on_frame)

    def connection_made(self, transport: Any) -> None:
        """The first of its calls."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Requests, or a part of one; a client that sends anything else is cut off."""
        try:
            self._frames.receive(data)
        except (ValueError, msgspec.MsgspecError) as error:
            self._service.log.warning("client_refused", reason=str(error))
            self._transport.close()
        self._service.touch()

    def eof_received(self) -> bool:
        """The transport closes itself."""
        return False

    def connection_lost(self, error: Exception | None) -> None:
        """What is still to be answered finds a transport that is closing."""

    def pause_writing(self) -> None:
        """Answers are bounded by what the lane has under way."""

    def resume_writing(self) -> None:
        """See ``pause_writing``."""

    def _on_frame(self, data: bytes) -> None:
        self._service.on_requests(self, _requests.decode(data))

    def answer(self, response: Response) -> None:
        """Take an answer; ``flush`` sends it."""
        if not self._answers:
            self._service.answering.append(self)
        self._answers.append(response)

    def flush(self) -> None:
        """Send what was answered."""
        if not self._transport.is_closing():
            self._transport.write(frames(_responses, self._answers, RESPONSE_BYTES_MAX))
        self._answers.clear()


class Service:
    """One node's state and its clients. ``connected`` tells which other nodes are; ``undergo`` lets a trial be done to
    the node, or says why not; a snapshot is taken every ``snapshot_every`` entries, if any, and ``trailing`` entries
    are kept behind it. ``touch`` is to be set: it asks for a drain of the machine."""

    def __init__(
        self,
        raft: Raft,
        values: KeyValues,
        log: Any,
        now_ns: Callable[[], int],
        connected: Callable[[], Iterable[int]],
        undergo: Callable[[Request, Raft], str | None],
        snapshot_every: int,
        trailing: int,
    ) -> None:
        self.raft = raft
        self.values = values
        self.log = log
        self.touch: Callable[[], None] = lambda: None
        self.answering: list[Client] = []
        """Clients with answers that have not left."""
        self._now_ns = now_ns
        self._connected = connected
        self._undergo = undergo
        self._snapshot_every = snapshot_every
        self._trailing = trailing
        self._waiting: dict[bytes, list[tuple[Client, int]]] = {}
        """Writes that this node proposed as leader, by idempotency key."""
        self._reading: dict[int, tuple[Client, int, bytes]] = {}
        """Reads that wait for their index, or for the state to reach it: client, its number, the key."""
        self._readable: list[tuple[int, int]] = []
        """(index, read) of reads that wait for the state."""
        self._read_count = 0
        self._load: EmbeddedLoad | None = None

    # --- requests ----------------------------------------------------------------------------------------------------

    def on_requests(self, client: Client, requests: list[Request]) -> None:
        """Do them, or begin them; the answers may come much later."""
        for request in requests:
            if request.verb in WRITES:
                self._on_write(client, request)
            else:
                self._on_question(client, request)
        self._flush_answers()

    def _on_question(self, client: Client, request: Request) -> None:
        match request.verb:
            case Verb.GET:
                self._on_read(client, request)
            case Verb.STATUS:
                picture = {**self.raft.status(), "connected": sorted(self._connected())}
                client.answer(Response(request.number, Standing.DONE, json.dumps(picture).encode()))
            case Verb.TRANSFER:
                reason = self.raft.transfer_leadership(int(request.key), self._now_ns())
                standing = Standing.REFUSED if reason else Standing.DONE
                client.answer(Response(request.number, standing, None, reason or ""))
            case Verb.CUT | Verb.CLOCK | Verb.MEMBERS:
                reason = self._undergo(request, self.raft)
                standing = Standing.REFUSED if reason else Standing.DONE
                client.answer(Response(request.number, standing, None, reason or ""))
            case Verb.LOAD:
                self._on_load(client, request)
            case _:
                client.answer(Response(request.number, Standing.REFUSED, None, f"verb {request.verb} is unknown"))

    def _on_write(self, client: Client, request: Request) -> None:
        if len(request.once) != ONCE_BYTES:
            return client.answer(Response(request.number, Standing.REFUSED, None, f"once has no {ONCE_BYTES} bytes"))
        outcome = self.raft.propose_once(request.once, EntryKind.FRAME, payload_of(request))
        if outcome.standing is Proposed.PENDING:
            self._waiting.setdefault(request.once, []).append((client, request.number))
            return None
        return client.answer(self._response(request.number, request.once, outcome))

    def _response(self, number: int, once: bytes, outcome: Outcome | None) -> Response:
        leader = -1 if self.raft.leader is None else self.raft.leader
        if outcome is None or outcome.standing in (Proposed.UNKNOWN, Proposed.PENDING):
            return Response(number, Standing.UNKNOWN, None, "", leader)
        if outcome.standing is Proposed.REFUSED:
            return Response(number, Standing.REFUSED, None, outcome.reason, leader)
        done = self.values.result(once)
        if done is None:  # committed, and not applied here yet, or forgotten
            return Response(number, Standing.UNKNOWN, None, "its result is not known here", leader)
        return Response(number, Standing.DONE, b"" if done else None, "", leader)

    def _on_read(self, client: Client, request: Request) -> None:
        self._read_count += 1
        self._reading[self._read_count] = (client, request.number, request.key)
        self.raft.read(self._read_count, self._now_ns())

    def _on_load(self, client: Client, request: Request) -> None:
        def finished(figures: dict[str, Any]) -> None:
            self._load = None
            client.answer(Response(request.number, Standing.DONE, json.dumps(figures).encode()))
            self._flush_answers()

        wanted = msgspec.json.decode(request.value, type=Load)
        self._load = EmbeddedLoad(self.raft, self.touch, finished, wanted)
        self._load.start()

    # --- what is committed -------------------------------------------------------------------------------------------

    def perform(self, ready: Ready) -> None:
        """What the machine wants of its application."""
        if ready.snapshot is not None:
            assert self.raft.proposals is not None
            self.raft.proposals.load(self.values.load(ready.snapshot.data), ready.snapshot.index)
        if ready.committed_entries:
            self._apply(ready)
        if ready.reads:
            self._on_read_results(ready)
        if self._readable:
            self._answer_readable()
        if self._waiting and self.raft.role is not Role.LEADER:
            self._give_up_waiting()
        self._flush_answers()

    def _apply(self, ready: Ready) -> None:
        values, waiting, load = self.values, self._waiting, self._load
        keys = values.apply(ready.committed_entries)
        if waiting:
            for once in keys:
                for client, number in waiting.pop(once, ()):
                    client.answer(Response(number, DONE, b"" if values.result(once) else None))
        if load is not None:
            for once in keys:
                load.committed(once)
        if self._snapshot_every:
            self._compact(self._snapshot_every)

    def _compact(self, every: int) -> None:
        last = 0 if self.raft.snapshot is None else self.raft.snapshot.index
        if self.values.index - last >= every:
            assert self.raft.proposals is not None
            data = self.values.dump(self.raft.proposals.dump(self.values.index))
            self.raft.compact(self.values.index, data, self._trailing)

    def _on_read_results(self, ready: Ready) -> None:
        for result in ready.reads:
            if result.index is None:
                client, number, _ = self._reading.pop(result.request)
                leader = -1 if self.raft.leader is None else self.raft.leader
                client.answer(Response(number, Standing.REFUSED, None, result.reason, leader))
            else:
                self._readable.append((result.index, result.request))

    def _answer_readable(self) -> None:
        waiting = []
        for index, request in self._readable:
            if index > self.values.index:
                waiting.append((index, request))
                continue
            client, number, key = self._reading.pop(request)
            client.answer(Response(number, Standing.DONE, self.values.values.get(key)))
        self._readable = waiting

    def _give_up_waiting(self) -> None:
        """This node leads no more: what it proposed may or may not be committed by others."""
        waiting, self._waiting = self._waiting, {}
        for once, clients in waiting.items():
            for client, number in clients:
                client.answer(self._response(number, once, self.raft.outcome(once)))

    def _flush_answers(self) -> None:
        answering, self.answering = self.answering, []
        for client in answering:
            client.flush()
