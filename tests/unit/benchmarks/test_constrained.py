"""What grammars cost is told with an interval that says how sure it is."""

import pytest

from benchmarks.constrained import summary_of


def test_rounds_that_agree_leave_no_doubt():
    assert summary_of([0.02] * 5) == {"median": 0.02, "lowest": 0.02, "highest": 0.02}


def test_one_round_that_something_else_disturbed_is_not_believed():
    summary = summary_of([0.01, 0.011, 0.012, 0.013, 0.014, 0.015, 0.016, 0.017, 0.89])
    assert summary["median"] == pytest.approx(0.014)
    assert summary["highest"] < 0.02


def test_rounds_that_disagree_leave_doubt():
    summary = summary_of([-0.1, 0.1] * 5)
    assert (summary["lowest"], summary["highest"]) == (-0.1, 0.1)
