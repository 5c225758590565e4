"""Many random pairs against the full matrix, to the last bit. What hypothesis shrinks well is in the other files."""

from __future__ import annotations

import numpy as np

from dtw import api
from tests.oracles import dtw_naive
from tests.oracles.dtw_cases import random_cases

COUNT = 10_000


def test_ten_thousand_pairs_are_the_full_matrix_to_the_last_bit() -> None:
    cases = random_cases(COUNT, seed=1)
    expected = [dtw_naive.distance(case.a.tolist(), case.b.tolist(), case.band) for case in cases]
    assert [api.distance(*case) for case in cases] == expected
    rows = [api.one_to_many(case.a, case.b[None], case.band)[0] for case in cases]
    np.testing.assert_allclose(rows, expected, rtol=1e-13)


def test_the_cases_are_of_all_sorts() -> None:
    cases = random_cases(COUNT, seed=1)
    lengths = {len(case.a) for case in cases}
    assert lengths == set(range(1, 61))
    assert 0.4 < np.mean([len(case.a) == len(case.b) for case in cases]) < 0.7
    assert 0.25 < np.mean([case.band is None for case in cases]) < 0.4
    assert any(case.band == 0 and len(case.a) != len(case.b) for case in cases)
