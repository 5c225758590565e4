"""What a voter says of itself when it is asked for its status."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agents.portfolio_status import portfolio_status

if TYPE_CHECKING:
    from agents.voter import Voter


def voter_status(voter: Voter, detail: bool) -> dict[str, Any]:
    """A picture in plain values; ``detail`` adds what its parts say of themselves."""
    lane = voter.replica.raft
    connected = voter.voters_connected
    leader = voter.setup.roster.by_index(lane.leader) if lane.leader is not None else None
    primary = voter.setup.roster.by_index(voter.replica.pbft.primary)
    picture: dict[str, Any] = {
        "id": voter.setup.agent.id,
        "role": voter.setup.agent.role.value,
        "state": voter.state,
        "pid": voter.setup.pid,
        "profile": voter.setup.switches.consensus,
        "voters_connected": connected,
        "suspects": voter.endpoint.suspects,
        "quorum": voter.replica.quorum.size,
        "quorum_seen": connected >= voter.replica.quorum.size,
        "leader": leader.id if leader is not None else None,
        "term": lane.term,
        "commit_index": lane.commit_index,
        "spine_view": voter.replica.pbft.view,
        "spine_primary": primary.id if primary is not None else None,
        "spine_executed": voter.replica.pbft.executed,
        "decision_log": voter.replica.decisions.summary(),
        "decision_log_open": len(voter.replica.unresolved),
        "decisions": voter.tally.counts(),
        **voter.role.status(detail),
    }
    if detail:
        picture["replica"] = voter.replica.status()
        picture["wire"] = voter.endpoint.statistics()
        picture["feed"] = voter.feed.statistics()
        picture["storage"] = {"commits": voter.runner.commits, "records": voter.runner.records_written}
        picture["portfolio"] = portfolio_status(voter.orders, voter.data.symbols)
    return picture
