"""The parts of ``swarm bench dtw`` that need no peers: its ladder computes what it times, its claims look at the bad
end, its plots show what is there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from profiling.bench.kernels import ladder
from profiling.bench.kernels.case import Against, Case, agree
from profiling.bench.kernels.peak import peak_cells_per_s
from profiling.bench.kernels.plots import write_plots
from profiling.bench.peers.client import Run
from profiling.bench.result import Result
from protocol.errors import RunFailure
from tests.oracles import dtw_naive

VERSIONS = {"aeon": "1.0", "wildboar": "2.0", "stumpy": "3.0", "node": "24.0"}


class Scripted:
    """Stands for the peers' processes: each answers what the case expects, in the seconds it is given."""

    def __init__(self, seconds: dict[str, float], answers: dict[str, float]) -> None:
        self.seconds, self.answers, self.asked = seconds, answers, list[str]()

    def run(self, peer: str, operation: str, repeats: int = 1, **parameters: Any) -> Run:
        self.asked.append(peer)
        return Run([self.seconds[peer]] * repeats, np.array([self.answers[peer]]), None)


def measured(seconds: dict[str, float], answers: dict[str, float], quick: bool = False) -> tuple[Result, Scripted]:
    against = tuple(
        Against(peer, "pair", {}, 1, None if peer == "stumpy" else np.array([2.0]), behind=peer == "wildboar")
        for peer in seconds
    )
    claims = {"fastest": ("some.claim", 40.0), "javascript": ("other.claim", 1.0)}
    case = Case("a case", "ms", 1e3, 1, lambda: sum(range(20_000)), against, claims=claims)
    result, peers = Result("dtw"), Scripted(seconds, answers)
    case.measure(result, peers, VERSIONS, 3, 0.001, quick)  # type: ignore[arg-type]
    return result, peers


@pytest.mark.parametrize("rung", [ladder.plain_python, ladder.plain_numpy, ladder.compiled_matrix, ladder.flat])
def test_every_rung_computes_the_distances(rung: Any) -> None:
    rng = np.random.default_rng(3)
    query, rows = rng.standard_normal(ladder.LENGTH), rng.standard_normal((3, ladder.LENGTH))
    expected = [dtw_naive.distance(query.tolist(), row.tolist(), None) for row in rows]
    np.testing.assert_allclose(rung(query, rows), expected, rtol=1e-12)


def test_the_fastest_peer_is_the_one_that_a_claim_is_against() -> None:
    seconds = {"aeon": 0.5, "wildboar": 0.25, "stumpy": 0.001, "javascript": 0.1}
    result, _ = measured(seconds, dict.fromkeys(seconds, 2.0))
    rows = {row["peer"]: row for row in result.rows}
    assert set(rows) == {"aeon 1.0", "wildboar 2.0", "stumpy 3.0", "javascript 24.0"}
    fastest, javascript = result.claims
    assert fastest["measured"] == {key: rows["wildboar 2.0"]["ratio"][key] for key in ("median", "low", "high")}
    assert javascript["measured"]["median"] == rows["javascript 24.0"]["ratio"]["median"]


def test_a_quick_run_leaves_out_who_is_far_behind() -> None:
    seconds = {"aeon": 0.5, "wildboar": 0.25, "javascript": 0.1}
    result, peers = measured(seconds, dict.fromkeys(seconds, 2.0), quick=True)
    assert "wildboar" not in peers.asked
    assert len(result.rows) == 2


def test_another_answer_than_ours_ends_the_benchmark() -> None:
    with pytest.raises(RunFailure, match="aeon pair gives another answer"):
        measured({"aeon": 0.5}, {"aeon": 2.1})


def test_agreement_is_of_shapes_values_and_indices() -> None:
    found = np.array([[3.0, 7.0], [1.0, 2.0]])
    assert agree(found, np.add(found, [[0.0, 0.0], [1e-12, 0.0]]), 1e-9)
    assert not agree(found, np.add(found, [[0.0, 0.0], [1e-3, 0.0]]), 1e-9)
    assert not agree(found[:, ::-1], found, 1e3)
    assert not agree(found, found[:, :1], 1e3)


def test_arithmetic_alone_has_a_speed() -> None:
    assert peak_cells_per_s(np.float32, 1, repeats=1) > 1e8


def test_plots_show_what_the_result_has(tmp_path: Path) -> None:
    result = Result("dtw")
    seconds = {"aeon": 0.5, "javascript": 0.1}
    measured_rows = measured(seconds, dict.fromkeys(seconds, 2.0))[0].rows
    for length in (64, 128):
        result.rows += [row | {"case": f"1 x N, length {length}, no band, float32, 2 threads"} for row in measured_rows]
    assert [path.name for path in write_plots(result.as_dict(), tmp_path)] == ["dtw-peers.svg"]
    first = (tmp_path / "dtw-peers.svg").read_bytes()
    write_plots(result.as_dict(), tmp_path)
    assert (tmp_path / "dtw-peers.svg").read_bytes() == first, "the same result gives the same bytes"
