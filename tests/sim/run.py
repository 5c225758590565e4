"""One run: first safety under anything, then everything is mended and progress is demanded."""

from __future__ import annotations

from dataclasses import dataclass, field

from consensus.raft.core import Raft
from tests.oracles.linearizability import Undecided, violation
from tests.sim.clients import Client
from tests.sim.cluster import Cluster
from tests.sim.faults import Faults
from tests.sim.plan import MILLISECOND_NS, SECOND_NS, Plan, plan_of
from tests.sim.service import Service

SETTLES_WITHIN_NS = 10 * SECOND_NS
STEPS_MAX = 20_000


class Simulation:
    """A plan being carried out."""

    def __init__(self, plan: Plan, machine_type: type[Raft] = Raft, trace: bool = False) -> None:
        self.plan = plan
        self.cluster = Cluster(plan, machine_type, trace)
        self.faults = Faults(self.cluster)
        self.undecided = 0
        """Histories of a key that took too long to search."""

    def run(self) -> None:
        """Raises what a judge found, or what broke."""
        cluster = self.cluster
        for fault in self.plan.faults:
            cluster.run_until(fault.at_ns)
            self.faults.carry_out(fault)
            cluster.judge.logs_match()
        cluster.run_until(self.plan.end_ns)
        self._settle()
        cluster.judge.logs_match()
        self._judge_clients()
        if self.plan.isolates_leader:
            self._isolate_leader()

    def _settle(self) -> None:
        """Mend everything; then a new proposal must be committed by all members in time, or liveness is lost."""
        cluster = self.cluster
        self.faults.end()
        for client in cluster.clients:
            client.stop()
        deadline_ns = cluster.now_ns + SETTLES_WITHIN_NS
        goal: int | None = None
        asked: tuple[int, int] | None = None
        while cluster.now_ns < deadline_ns:
            cluster.run_until(cluster.now_ns + 25 * MILLISECOND_NS)
            members = self._members()
            leaders = [(cluster.hosts[own].raft.term, own) for own in cluster.believed_leaders()]
            if not members or len(leaders) != 1:
                continue
            if goal is None or asked != leaders[0]:  # whom we asked before may have lost the proposal with its office
                asked = leaders[0]
                goal = cluster.propose_new(asked[1])
            elif all(cluster.hosts[own].raft.commit_index >= goal for own in members):
                return
        raise AssertionError(f"no progress within {SETTLES_WITHIN_NS / SECOND_NS} s after everything was mended")

    def _members(self) -> tuple[int, ...]:
        """By the leader of the latest term, once its change of members is over; those that can be there."""
        cluster = self.cluster
        leaders = [cluster.hosts[own].raft for own in cluster.believed_leaders()]
        configuration = max(leaders, key=lambda raft: raft.term).membership.current if leaders else None
        if configuration is None or configuration.joint:
            return ()
        return tuple(own for own in configuration.members if own not in cluster.lost)

    def _judge_clients(self) -> None:
        """What replicas say of each command, and what clients saw of the service."""
        cluster = self.cluster
        members = self._members()
        places = cluster.judge.places_of_keys()
        for key in dict.fromkeys(key for client in cluster.clients for key in client.keys):
            answers = [cluster.hosts[own].raft.outcome(key) for own in members]
            cluster.judge.key_settled(key, places.get(key, []), answers)
        for client in cluster.clients:
            client.give_up()
            for own in members:
                self._still_has(own, client)
        try:
            found = violation(cluster.history, STEPS_MAX)
        except Undecided:
            self.undecided += 1
        else:
            assert found is None, f"not linearizable: {found}"

    def _still_has(self, own: int, client: Client) -> None:
        """Durability: whatever a client was told took place is in every member's state, with the same result."""
        service = self.cluster.hosts[own].application
        assert isinstance(service, Service)
        for identity, result in client.acknowledged.items():
            assert identity in service.results, f"{own} lacks {identity}, which a client was told of"
            assert service.results[identity] == result, f"{own} has another result of {identity}"

    def _isolate_leader(self) -> None:
        """A leader that is cut off for good must notice by itself (check-quorum, thesis 6.2)."""
        cluster = self.cluster
        leaders = cluster.believed_leaders()
        others = len(self._members())
        if len(leaders) != 1 or others < 2:
            return
        cluster.network.partition(set(leaders), cluster.everybody)
        slowest_ppm = 1_000_000 - self.plan.drift_ppm
        longest_ns = 2 * self.plan.config.election_timeout_max_ns * 1_000_000 // slowest_ppm
        cluster.run_until(cluster.now_ns + longest_ns)
        assert leaders[0] not in cluster.believed_leaders(), f"{leaders[0]} leads nobody and does not notice"


@dataclass
class Verdict:
    """What is told of a run. ``failure`` is empty when nobody complained."""

    seed: int
    failure: str = ""
    failed_at_ns: int = 0
    events: int = 0
    commits: int = 0
    leaders: int = 0
    elections: int = 0
    reads: int = 0
    operations: int = 0
    undecided: int = 0
    virtual_ns: int = 0
    faults: dict[str, int] = field(default_factory=dict)
    happened: dict[str, int] = field(default_factory=dict)
    """What these faults came to."""
    trace: list[str] = field(default_factory=list)

    @property
    def replay(self) -> str:
        return f"python -m tests.sim --seed {self.seed}"


def run_plan(plan: Plan, machine_type: type[Raft] = Raft, trace: bool = False) -> Verdict:
    """Carry out a plan; whatever is raised is a failure of the machine, or of the simulator, and is told."""
    simulation = Simulation(plan, machine_type, trace)
    failure = ""
    try:
        simulation.run()
    except Exception as error:
        failure = f"{type(error).__name__}: {error}"
    cluster = simulation.cluster
    judge = cluster.judge
    return Verdict(
        plan.seed,
        failure,
        cluster.now_ns,
        cluster.event_count,
        len(judge.canonical),
        len(judge.leader_of_term),
        len(cluster.watch.candidacies),
        judge.reads_answered,
        len(cluster.history),
        simulation.undecided,
        cluster.now_ns,
        simulation.faults.done,
        cluster.happened(),
        cluster.trace or [],
    )


def run_seed(seed: int, machine_type: type[Raft] = Raft, trace: bool = False) -> Verdict:
    """The run that this seed stands for."""
    return run_plan(plan_of(seed), machine_type, trace)
