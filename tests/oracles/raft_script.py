"""Scenarios as text: commands, and below ``----`` exactly what they print.

A file is a list of blocks separated by empty lines; lines with ``#`` are for the reader. Commands of a block run in
order. Replicas are named 0, 1, 2, and so on; a log is shown as the terms of its entries.

    cluster 4 quorum=3     make the replicas, all followers without a log; entries=1 limits each append,
                           uncommitted=64 the leader's uncommitted bytes (an entry weighs 32 and its text),
                           inflight=2 its unanswered appends to each follower,
                           thrift=10 lets followers that the quorum can do without wait so many milliseconds,
                           lease=1 lets reads rest on a lease, chunk=100 cuts snapshots,
                           spare=2 adds replicas without a vote, and without quorum= it is a majority
    log 1 1 1 2            start replica 1 with this log, one number per entry's term; term=3 if it has seen a later one
    timeout 0              let time pass until replica 0 stands for election, and nobody else is ticked
    wait 100               let so many milliseconds pass; nobody is ticked
    tick 0                 tick one replica
    propose 0 buy          offer an entry
    once 0 buy             offer it under itself as key: repeated, it is committed once
    outcome 0 buy          what replica 0 knows of that key
    read 0 balance         ask on replica 0 from when on its state is fresh enough; the answer comes with a deliver
    transfer 0 2           ask leader 0 to hand over to replica 2
    members 0 1 2 3 | 4    ask leader 0 for voters 1, 2, 3 and learner 4; a last word "stay" keeps it joint
    leave 0                end a joint configuration that was to stay
    compact 0 2            replica 0 takes a snapshot of what it applied, and keeps 2 entries before it
    deliver                perform all Readys and deliver all messages until nothing moves
    deliver quiet          the same without printing messages
    deliver 4              deliver four messages only, in the order in which they were sent
    drop                   lose the messages that are still under way
    overtake               of these the one that was sent last arrives first
    cut 0 | 1 2            lose everything between the sides
    heal                   lose nothing any more
    slow-disk 0            writes of replica 0 stay open
    fast-disk 0            and now they are done
    write 0                the oldest open write of replica 0 is done, and no other
    crash 0                lose the machine and its open writes
    restart 0              come back from the disk
    displace 3             a process under 3's name, with an empty disk, takes its place
    return 3               and the true one is back, with the disk that it had
    connect 0 3            tell 0 that it has a new connection to 3
    show                   print every replica
    progress 0             print what leader 0 believes of its followers
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from difflib import unified_diff
from pathlib import Path
from typing import Any, Final

from consensus.machine import HardState, ReadResult
from consensus.raft.config import RaftConfig, Role
from consensus.raft.configuration import Configuration, decode_configuration
from consensus.raft.membership import fixed_size
from consensus.raft.outcome import Outcome
from protocol.codes import EntryKind
from protocol.messages import AppendEntries, AppendEntriesResponse, Entry, Message, RequestVote, RequestVoteResponse
from protocol.raft_messages import InstallSnapshot, InstallSnapshotResponse, ReadIndex, ReadIndexResponse, TimeoutNow
from tests.sim.host import Disk, Host
from tests.sim.judge import Judge
from tests.sim.plan import MILLISECOND_NS, majority

_CONFIG_NAMES: Final = {
    "entries": "entries_per_append_max",
    "uncommitted": "uncommitted_bytes_max",
    "lease": "lease_reads",
    "chunk": "snapshot_chunk_bytes_max",
    "inflight": "inflight_appends_max",
    "thrift": "thrift_delay_ns",
}


class Script:
    """Runs the commands of one file. ``run`` returns what a block prints."""

    def __init__(self) -> None:
        self.hosts: list[Host] = []
        self.now_ns = 1000 * MILLISECOND_NS
        self._output: list[str] = []
        self._inbox: list[tuple[int, int, Message]] = []
        self._cut: set[tuple[int, int]] = set()
        self._slow: set[int] = set()
        self._readers: list[str] = []
        self._aside: dict[int, Disk] = {}
        self._quiet = False

    def run(self, commands: list[str]) -> str:
        self._output = []
        for command in commands:
            name, *arguments = command.split()
            getattr(self, "do_" + name.replace("-", "_"))(*arguments)
        return "\n".join(self._output or ["ok"])

    def do_cluster(self, count: str, *options: str) -> None:
        voters = tuple(range(int(count)))
        chosen = {name: int(value) for name, value in (option.split("=") for option in options)}
        size = fixed_size(chosen["quorum"], len(voters)) if "quorum" in chosen else majority
        roster = tuple(range(len(voters) + chosen.get("spare", 0)))
        settings: dict[str, Any] = {
            _CONFIG_NAMES[name]: value for name, value in chosen.items() if name in _CONFIG_NAMES
        }
        settings["lease_reads"] = bool(settings.get("lease_reads"))
        settings["thrift_delay_ns"] = settings.get("thrift_delay_ns", 0) * MILLISECOND_NS
        config = RaftConfig(snapshots=True, **settings)
        self.hosts = [Host(own, voters, size, config, seed="script", roster=roster) for own in roster]
        self.judge = Judge(self.hosts, voters, size)
        for host in self.hosts:
            host.send, host.on_commit, host.on_read = self._transmit, self._committed, self._read_answered
            host.raft.tick(self.now_ns)

    def do_log(self, own: str, *terms: str) -> None:
        host = self.hosts[int(own)]
        seen = int(terms[-1].removeprefix("term="))
        terms = terms[:-1] if "term=" in terms[-1] else terms
        entries = [
            Entry(int(term), index, EntryKind.FRAME, f"old{term}.{index}".encode())
            for index, term in enumerate(terms, start=1)
        ]
        host.disk.entries, host.disk.hard_state = entries, HardState(seen, -1)
        host.crash()
        self.do_restart(own)

    def do_timeout(self, own: str) -> None:
        raft = self.hosts[int(own)].raft
        for _ in range(3):
            if raft.role is not Role.FOLLOWER:
                break
            deadline_ns = raft.next_deadline_ns()
            assert deadline_ns is not None
            self.now_ns = max(self.now_ns, deadline_ns)
            raft.tick(self.now_ns)
        self._say(f"{own} is {raft.role.value} of term {raft.term}")

    def do_wait(self, milliseconds: str) -> None:
        self.now_ns += int(milliseconds) * MILLISECOND_NS

    def do_tick(self, own: str) -> None:
        raft = self.hosts[int(own)].raft
        before = raft.role
        raft.tick(self.now_ns)
        if raft.role is not before:
            self._say(f"{own} was {before.value}, is {raft.role.value}")

    def do_propose(self, own: str, text: str) -> None:
        raft = self.hosts[int(own)].raft
        reason = raft.proposal_refusal(len(text))
        index = raft.propose(EntryKind.FRAME, text.encode())
        self._say(f"{own} refuses {text}: {reason}" if index is None else f"{own} appends {text} at {index}")

    def do_once(self, own: str, text: str) -> None:
        outcome = self.hosts[int(own)].raft.propose_once(text.encode(), EntryKind.FRAME, text.encode())
        self._say(f"{own} says {text} is {describe_outcome(outcome)}")

    def do_outcome(self, own: str, text: str) -> None:
        self._say(f"{own} says {text} is {describe_outcome(self.hosts[int(own)].raft.outcome(text.encode()))}")

    def do_read(self, own: str, name: str) -> None:
        self._readers.append(name)
        self.hosts[int(own)].raft.read(len(self._readers) - 1, self.now_ns)

    def do_transfer(self, own: str, to: str) -> None:
        reason = self.hosts[int(own)].raft.transfer_leadership(int(to), self.now_ns)
        self._say(f"{own} hands over to {to}" if reason is None else f"{own} refuses: {reason}")

    def do_members(self, own: str, *wanted: str) -> None:
        stay = wanted[-1] == "stay"
        voters, _, learners = " ".join(wanted[: -1 if stay else None]).partition("|")
        groups = [[int(member) for member in group.split()] for group in (voters, learners)]
        reason = self.hosts[int(own)].raft.propose_membership(*groups, auto_leave=not stay)
        self._say(f"{own} starts the change" if reason is None else f"{own} refuses: {reason}")

    def do_leave(self, own: str) -> None:
        reason = self.hosts[int(own)].raft.leave_joint()
        self._say(f"{own} ends the joint configuration" if reason is None else f"{own} refuses: {reason}")

    def do_compact(self, own: str, trailing: str) -> None:
        host = self.hosts[int(own)]
        host.raft.compact(host.application.index, host.application.data(host.raft), int(trailing))

    def do_deliver(self, how: str = "") -> None:
        self._quiet = how == "quiet"
        limit = int(how) if how.isdigit() else None
        self._settle()
        while self._inbox and limit != 0:
            limit = None if limit is None else limit - 1
            sender, receiver, message = self._inbox.pop(0)
            if self.hosts[receiver].machine is not None:
                self.hosts[receiver].raft.step(sender, message, self.now_ns)
                self.judge.looked_at(self.hosts[receiver])
            self._settle()
        self.judge.logs_match()

    def do_drop(self) -> None:
        self._inbox.clear()

    def do_overtake(self) -> None:
        self._inbox.insert(0, self._inbox.pop())

    def do_cut(self, *sides: str) -> None:
        left, right = (side.split() for side in " ".join(sides).split("|"))
        for one in map(int, left):
            for other in map(int, right):
                self._cut |= {(one, other), (other, one)}

    def do_heal(self) -> None:
        self._cut.clear()

    def do_slow_disk(self, own: str) -> None:
        self._slow.add(int(own))

    def do_fast_disk(self, own: str) -> None:
        self._slow.discard(int(own))

    def do_write(self, own: str) -> None:
        host = self.hosts[int(own)]
        self._quiet = False
        host.complete_write()
        self._say(f"{own} has entries up to {host.raft.durable_index} on its disk, {len(host.open_writes)} writes open")

    def do_crash(self, own: str) -> None:
        self.hosts[int(own)].crash()

    def do_restart(self, own: str) -> None:
        self.hosts[int(own)].restart()
        self.hosts[int(own)].raft.tick(self.now_ns)

    def do_displace(self, own: str) -> None:
        host = self.hosts[int(own)]
        self._aside[host.own] = host.disk
        self._replace_disk(host, Disk())

    def do_return(self, own: str) -> None:
        host = self.hosts[int(own)]
        self._replace_disk(host, self._aside.pop(host.own))

    def do_connect(self, own: str, peer: str) -> None:
        self.hosts[int(own)].raft.peer_connected(int(peer), self.now_ns)

    def do_progress(self, own: str) -> None:
        for follower, progress in self.hosts[int(own)].raft.status()["followers"].items():
            state, match, following, open_count = (progress[name] for name in ("state", "match", "next", "inflight"))
            self._say(f"{follower}: {state}, matches up to {match}, next {following}, {open_count} unanswered")

    def do_show(self) -> None:
        for host in self.hosts:
            if host.machine is None:
                self._say(f"{host.own}: down")
                continue
            raft = host.raft
            terms = " ".join(str(entry.term) for entry in raft.entries_from(1)) or "empty"
            if raft.log.base_index:
                terms = f"(snapshot {raft.status()['snapshot_index']}) after {raft.log.base_index}: {terms}"
            leader = "nobody" if raft.leader is None else raft.leader
            if (members := raft.membership.current) != Configuration(host.voters):
                terms += f", {describe_configuration(members)}"
            self._say(
                f"{host.own}: {raft.role.value} of term {raft.term}, leader {leader}, "
                f"committed {raft.commit_index}, log {terms}"
            )
            for follower, progress in raft.status()["followers"].items():
                if progress["promises_broken"]:
                    self._say(f"{host.own}: {follower} lacked what it had confirmed")

    def _replace_disk(self, host: Host, disk: Disk) -> None:
        host.crash()
        host.disk = disk
        self.do_restart(str(host.own))

    def _settle(self) -> None:
        """Let every replica perform its Readys; disks that are not slow finish at once."""
        for host in self.hosts:
            if host.machine is not None:
                host.drain()
                while host.open_writes and host.own not in self._slow:
                    host.complete_write()
                self.judge.looked_at(host)

    def _transmit(self, sender: int, receiver: int, message: Message) -> None:
        lost = (sender, receiver) in self._cut
        if not self._quiet:
            self._say(f"{sender} -> {receiver}  {describe(message)}{'  lost' if lost else ''}")
        if not lost:
            self._inbox.append((sender, receiver, message))

    def _committed(self, host: Host, entries: list[Entry]) -> None:
        self.judge.committed(host, entries)
        self._say(f"{host.own} commits {' '.join(describe_entry(entry) for entry in entries)}")

    def _read_answered(self, host: Host, result: ReadResult) -> None:
        answer = f"refused: {result.reason}" if result.index is None else f"answered at {result.index}"
        self._say(f"{host.own} read of {self._readers[result.request]} is {answer}")

    def _say(self, line: str) -> None:
        self._output.append(line)


def describe_entry(entry: Entry) -> str:
    if entry.kind == EntryKind.MEMBERSHIP:
        return f"{entry.index}/{entry.term}:{describe_configuration(decode_configuration(entry.payload))}"
    text = "noop" if entry.kind == EntryKind.NOOP else entry.payload.decode()
    return f"{entry.index}/{entry.term}:{text}"


def describe_configuration(configuration: Configuration) -> str:
    """[voters], [new voters and outgoing ones] while joint, and learners after a bar."""
    voters = "+".join(map(str, configuration.voters))
    outgoing = " and " + "+".join(map(str, configuration.outgoing)) if configuration.joint else ""
    learners = " | " + "+".join(map(str, configuration.learners)) if configuration.learners else ""
    return f"[{voters}{outgoing}{learners}]"


def describe_outcome(outcome: Outcome | None) -> str:
    if outcome is None:
        return "not known"
    place = f" at {outcome.index}" if outcome.index else ""
    return f"{outcome.standing.value}{place}" + (f": {outcome.reason}" if outcome.reason else "")


def describe(message: Message) -> str:
    """One line. Positions in the log are written index/term."""
    match message:
        case RequestVote(term, _, last_index, last_term, pre_vote, transfer):
            wanted = ", as the leader wants" if transfer else ""
            return f"{'pre-vote' if pre_vote else 'vote'}? term {term}, log ends {last_index}/{last_term}{wanted}"
        case RequestVoteResponse(term, _, granted, pre_vote):
            return f"{'pre-vote' if pre_vote else 'vote'} {'granted' if granted else 'refused'}, term {term}"
        case AppendEntries(term, _, index, previous_term, commit, entries):
            carried = " ".join(describe_entry(entry) for entry in entries) or "nothing"
            return f"append term {term} after {index}/{previous_term}, commit {commit}: {carried}"
        case AppendEntriesResponse(term, _, True, match_index):
            return f"matches up to {match_index}, term {term}"
        case AppendEntriesResponse(term, _, False, hint, hint_term):
            return f"refused, try {hint}/{hint_term}, term {term}"
        case InstallSnapshot(term, _, index, index_term, size=size, offset=offset, chunk=chunk):
            return f"snapshot {index}/{index_term} term {term}, bytes {offset} to {offset + len(chunk)} of {size}"
        case InstallSnapshotResponse(term, _, index, offset):
            return f"snapshot {index} from byte {offset}, term {term}"
        case TimeoutNow(term):
            return f"stand now, term {term}"
        case ReadIndex():
            return "read?"
        case ReadIndexResponse(granted=True, index=index):
            return f"read at {index}"
        case ReadIndexResponse():
            return "read refused"
    raise AssertionError(message)


def blocks(text: str) -> Iterator[tuple[list[str], list[str], str]]:
    """(comment lines, commands, expected output) of each block."""
    for block in text.strip().split("\n\n"):
        lines, _, expected = block.partition("\n----\n")
        comments = [line for line in lines.splitlines() if line.startswith("#")]
        yield comments, [line for line in lines.splitlines() if not line.startswith("#")], expected


def difference(path: Path, commands: list[str], expected: str, printed: str) -> str:
    """What is missing and what is new, as a unified diff."""
    lines = unified_diff(expected.splitlines(), printed.splitlines(), f"{path.name}", "this run", lineterm="", n=2)
    return "\n".join((f"{path.name}, after: {'; '.join(commands)}", *lines))


def check_scenario(path: Path) -> None:
    """Run the file and compare; with UPDATE_SCENARIOS=1 write what happened instead. Commit such a change only when
    you can say why each line of it is right."""
    script, rewritten = Script(), []
    for comments, commands, expected in blocks(path.read_text()):
        printed = script.run(commands) if commands else ""
        head = "\n".join((*comments, *commands))
        rewritten.append(f"{head}\n----\n{printed}" if commands else head)
        if "UPDATE_SCENARIOS" not in os.environ:
            assert printed == expected, difference(path, commands, expected, printed)
    if "UPDATE_SCENARIOS" in os.environ:
        path.write_text("\n\n".join(rewritten) + "\n")
