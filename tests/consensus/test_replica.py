"""One replica among three others, in single situations."""

from __future__ import annotations

import msgspec
import pytest

from consensus import frames, voting
from protocol.codes import CommandKind, EntryKind, Path
from protocol.messages import AppendEntries, Entry, Frame, Intents, Outcome, SignedCommand, Submit
from protocol.rows import Windows
from tests.oracles.replica_cluster import (
    CODEC,
    MS,
    TRADER,
    ReplicaCluster,
    digest_of,
    sign_command,
    sign_frame,
    sign_grant,
    signer,
)
from tests.oracles.replica_storm import Oracle, outcomes_in_log
from tests.oracles.signed_frames import make_intent

PATIENCE_NS = 3_000 * MS


def running(seed: int = 1, **settings: object) -> tuple[ReplicaCluster, Oracle]:
    """A cluster with a leader and a granted slice, where nobody denies."""
    oracle = Oracle()
    cluster = ReplicaCluster(seed, denial_chance=0.0, witness=oracle, **settings)  # type: ignore[arg-type]
    cluster.submit(sign_grant(), Path.SPINE)
    assert cluster.run(2_000 * MS, until=lambda: cluster.leader is not None and all(h.granted for h in cluster.hosts))
    return cluster, oracle


def frame_entries(oracle: Oracle) -> int:
    return sum(entry.kind == EntryKind.FRAME for entry in oracle.entries)


def test_a_lane_frame_is_settled_by_votes_and_then_written_down() -> None:
    cluster, oracle = running()
    command = sign_frame(1)
    cluster.submit(command)
    assert cluster.run(500 * MS, until=lambda: all(not h.replica.unresolved and h.settled for h in cluster.hosts))
    assert outcomes_in_log(oracle) == {digest_of(command)}
    assert all(h.replica.frames[digest_of(command)].closed for h in cluster.hosts)
    assert all(h.replica.budget.used(1) == 100 for h in cluster.hosts)


def test_two_submissions_in_one_turn_are_one_entry() -> None:
    """The shell steps all that has arrived before it drains the machine, and a network may double a message."""
    cluster, oracle = running()
    leader = cluster.leader
    assert leader is not None
    command = sign_frame(1)
    for _ in range(2):
        leader.replica.step(TRADER, Submit(Path.LANE, True, command), cluster.now_ns)
    cluster.submit(command)
    cluster.run(500 * MS)
    assert frame_entries(oracle) == 1


def test_a_frame_twice_in_the_log_counts_once() -> None:
    cluster, oracle = running()
    leader = cluster.leader
    assert leader is not None
    for _ in range(2):
        leader.replica.raft.propose(EntryKind.FRAME, msgspec.msgpack.encode(sign_frame(1)))
    assert cluster.run(800 * MS, until=lambda: bool(outcomes_in_log(oracle)))
    cluster.run(300 * MS)
    assert frame_entries(oracle) == 2
    for host in cluster.hosts:
        assert not host.replica.unresolved and host.replica.decisions.lane_length == 1
        assert host.replica.ignored["entry_frame_repeated"] == 1


def append(cluster: ReplicaCluster, receiver: int, term: int, previous: tuple[int, int], *entries: Entry) -> None:
    leader = (receiver + term) % 4
    cluster.inject(leader, receiver, AppendEntries(term, leader, previous[1], previous[0], 0, entries))


def test_an_outcome_that_is_overwritten_leaves_its_frame_unresolved() -> None:
    """Only what is committed decides; the entry of a deposed leader may still go."""
    cluster = ReplicaCluster(1)
    frame = Entry(1, 1, EntryKind.FRAME, msgspec.msgpack.encode(sign_frame(1)))
    outcome = Outcome(1, digest_of(sign_frame(1)), (0,), ())
    append(cluster, 3, 1, (0, 0), frame, Entry(1, 2, EntryKind.OUTCOME, CODEC.encode_body(outcome)))
    assert cluster.hosts[3].replica.unresolved == {1: digest_of(sign_frame(1))}
    append(cluster, 3, 2, (1, 1), Entry(2, 2, EntryKind.NOOP, b""))
    assert cluster.hosts[3].replica.unresolved == {1: digest_of(sign_frame(1))}


def test_a_frame_whose_entry_is_overwritten_may_be_ordered_again() -> None:
    cluster = ReplicaCluster(1)
    payload, digest = msgspec.msgpack.encode(sign_frame(1)), digest_of(sign_frame(1))
    append(cluster, 3, 1, (0, 0), Entry(1, 1, EntryKind.FRAME, payload))
    append(cluster, 3, 2, (0, 0), Entry(2, 1, EntryKind.NOOP, b""))
    replica = cluster.hosts[3].replica
    assert replica.unresolved == {} and replica.frames[digest].position is None
    append(cluster, 3, 2, (2, 1), Entry(2, 2, EntryKind.FRAME, payload))
    assert replica.unresolved == {2: digest} and replica.frames[digest].position == (2, 2)


@pytest.mark.parametrize("kind", [CommandKind.SLICE_GRANT, 9])
def test_only_frames_are_admitted_as_frames(kind: int) -> None:
    cluster = ReplicaCluster(1)
    body = CODEC.decode_body(Frame, sign_frame(1).body)
    command = sign_command(kind, TRADER, body)
    append(cluster, 3, 1, (0, 0), Entry(1, 1, EntryKind.FRAME, msgspec.msgpack.encode(command)))
    cluster.submit(command)
    replica = cluster.hosts[3].replica
    assert not replica.frames and not replica.unresolved
    assert replica.ignored["entry_frame_refused"] == 1


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"cluster_id": b"another"}, "frame_of_another_cluster"),
        ({"path": 9}, "frame_path_unknown"),
        ({"intents": Intents.of()}, "frame_intent_count"),
        ({"intents": Intents.of(make_intent(1), make_intent(2), make_intent(1))}, "frame_intent_repeated"),
        ({"windows": Windows.of([1.0, 2.0])}, "frame_window_shape"),
        ({"windows": Windows.of([1.0, 2.0]), "window_length": 2}, "frame_window_shape"),
    ],
)
def test_a_frame_of_a_wrong_shape_is_refused_and_named(changes: dict[str, object], reason: str) -> None:
    cluster = ReplicaCluster(1)
    frame = msgspec.structs.replace(CODEC.decode_body(Frame, sign_frame(1).body), **changes)
    cluster.submit(sign_command(CommandKind.FRAME, TRADER, frame))
    replica = cluster.hosts[TRADER].replica
    assert not replica.frames
    assert replica.ignored[reason] == 1


@pytest.mark.sources
def test_frames_without_a_place_are_bounded_by_author_and_forgotten_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "FRAMES_UNORDERED_MAX", 5)
    monkeypatch.setattr(voting, "FRAME_PATIENCE_NS", PATIENCE_NS)
    cluster = ReplicaCluster(1, denial_chance=0.0)
    cluster.partition([0], [1], [2], [3])
    replica = cluster.hosts[TRADER].replica
    for sequence in range(1, 9):
        cluster.submit(sign_frame(sequence))
    assert len(replica.frames) == 5 and replica.ignored["frames_waiting_limit"] == 3
    cluster.run(PATIENCE_NS // 2)
    cluster.submit(sign_frame(1))
    cluster.run(PATIENCE_NS // 2 + 500 * MS)
    assert set(replica.frames) == {digest_of(sign_frame(1))}, "its author still asks for it"
    assert replica.status()["frames_open"] == 1
    cluster.run(PATIENCE_NS + 500 * MS)
    assert not replica.frames
    cluster.submit(sign_frame(2))
    assert replica.frames[digest_of(sign_frame(2))].verdict is not None, "a verdict is for ever"


@pytest.mark.sources
def test_a_coordination_round_that_denies_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(voting, "FRAME_PATIENCE_NS", PATIENCE_NS)
    cluster, _ = running()
    cluster.denial_chance = 1.0
    command = sign_frame(1)
    cluster.submit(command, propose=False)
    assert cluster.run(500 * MS, until=lambda: digest_of(command) in cluster.hosts[TRADER].coordinated)
    before = cluster.message_count
    cluster.run(1_000 * MS)
    idle = cluster.message_count - before
    before = cluster.message_count
    cluster.run(PATIENCE_NS + 500 * MS)
    assert cluster.message_count - before < 1.5 * idle * PATIENCE_NS / (1_000 * MS)
    assert all(not host.replica.frames for host in cluster.hosts)


@pytest.mark.sources
def test_closed_frames_are_bounded_and_still_answered_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A replica that was away for longer than the others keep frames gets the spine's votes all the same."""
    monkeypatch.setattr(frames, "FRAMES_KEPT_MAX", 2)
    cluster, _ = running()
    cluster.partition([0, 1, 2], [3])
    commands = [sign_frame(sequence, path=Path.SPINE) for sequence in range(1, 7)]
    for command in commands:
        cluster.submit(command, Path.SPINE)
        assert cluster.run(500 * MS, until=lambda command=command: digest_of(command) in cluster.hosts[0].settled)
    cluster.run(100 * MS)
    assert all(len(host.replica.frames) == 2 for host in cluster.hosts[:3])
    cluster.heal()
    away = cluster.hosts[3]
    assert cluster.run(4_000 * MS, until=lambda: {digest_of(c) for c in commands} <= away.settled.keys())
    assert not away.replica.status()["frames_open"]
    cluster.submit(commands[0], Path.SPINE)
    cluster.run(100 * MS)
    assert all(not host.replica.status()["frames_open"] for host in cluster.hosts), "a forgotten frame stays closed"


def test_those_who_know_everything_are_silent() -> None:
    """Repeated votes are not answered by votes, or two settled replicas would answer each other for ever."""
    cluster, _ = running()
    cluster.weather.duplication = 1.0
    for sequence in range(1, 5):
        cluster.submit(sign_frame(sequence, path=Path.SPINE), Path.SPINE)
    assert cluster.run(1_000 * MS, until=lambda: all(len(host.settled) == 4 for host in cluster.hosts))
    cluster.weather.duplication = 0.0
    cluster.run(1_000 * MS)
    repeated = [host.replica.ignored.get("vote_repeated", 0) for host in cluster.hosts]
    cluster.run(3_000 * MS)
    assert [host.replica.ignored.get("vote_repeated", 0) for host in cluster.hosts] == repeated


def test_a_tick_costs_what_is_open_and_not_what_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster, _ = running()
    for sequence in range(1, 30):
        cluster.submit(sign_frame(sequence, make_intent(sequence)))
    cluster.run(2_500 * MS)
    replica = cluster.hosts[1].replica
    assert len(replica.frames) == 29 and not replica.status()["frames_open"]
    looked_at: list[object] = []
    monkeypatch.setattr(voting.FrameTable, "is_open", lambda self, record: bool(looked_at.append(record)))
    for _ in range(200):
        replica.tick(cluster.now_ns)
    assert not looked_at


def test_restored_frames_are_asked_about_a_few_at_a_time() -> None:
    cluster, _ = running()
    for sequence in range(1, 41):
        cluster.submit(sign_frame(sequence, path=Path.SPINE), Path.SPINE)
    assert cluster.run(3_000 * MS, until=lambda: all(len(host.settled) == 40 for host in cluster.hosts))
    cluster.crash(2)
    cluster.restart(2)
    host = cluster.hosts[2]
    assert len(host.settled) == 0
    cluster.run(5 * MS)
    assert host.replica.status()["frames_open"] >= 40 - voting.ASKS_PER_TICK
    assert cluster.run(500 * MS, until=lambda: len(host.settled) == 40)


def test_a_command_that_another_sends_for_the_author_is_refused_on_the_lane() -> None:
    cluster, _ = running()
    forged = SignedCommand(CommandKind.FRAME, TRADER, sign_frame(1).body, signer(2)(b""))
    cluster.inject(2, 1, Submit(Path.LANE, True, sign_frame(1)))
    cluster.inject(2, 1, Submit(Path.LANE, False, sign_frame(1)))
    cluster.inject(2, 1, Submit(Path.SPINE, True, forged))
    replica = cluster.hosts[1].replica
    assert not replica.frames
    assert (replica.ignored["submit_author_mismatch"], replica.ignored["command_signature_invalid"]) == (2, 1)


def test_a_leader_that_stops_in_good_order_leaves_no_gap() -> None:
    """Sooner than any election timeout, another leads and decides."""
    cluster, _ = running()
    before = cluster.leader
    assert before is not None
    assert before.replica.hand_over(cluster.now_ns) is not None
    cluster.run(100 * MS, until=lambda: cluster.leader not in (None, before))
    assert cluster.leader not in (None, before)
    cluster.submit(command := sign_frame(1))
    assert cluster.run(
        500 * MS, until=lambda: all(not host.replica.unresolved and host.settled for host in cluster.hosts)
    )
    assert all(host.replica.frames[digest_of(command)].closed for host in cluster.hosts)
