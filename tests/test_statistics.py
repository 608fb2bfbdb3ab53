"""Statistics of one network or pair: scipy and statsmodels, published examples, too few seeds.

Nothing may warn: a warning of numpy or scipy about too little data fails the test.
"""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from senet_lib.analysis import statistics as stats
from senet_lib.errors import SenetError

pytestmark = pytest.mark.filterwarnings("error")

# Extra hours of sleep with two drugs, ten patients: Student 1908, "The probable error of a mean",
# Biometrika 6:1; R ships it as `sleep`. R's output for the differences: interval -2.4598858 to
# -0.7001142, mean -1.58; and for Welch's test: p = 0.07939.
DRUG_1 = (0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0)
DRUG_2 = (1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4)


def test_t_interval_by_hand_and_as_published():
    """Values 1 2 3: mean 2, SD 1; a table's t for 2 degrees of freedom is 4.303."""
    half = 4.303 / math.sqrt(3)
    assert stats.interval([1, 2, 3]) == pytest.approx((2 - half, 2 + half), abs=1e-3)
    found = stats.interval(np.array(DRUG_1) - np.array(DRUG_2))
    assert found == pytest.approx((-2.4598858, -0.7001142), abs=5e-8)
    for values in ([], [0.1], [0.1, 0.1, 0.1]):
        assert stats.interval(values) is None  # no spread
    # Two seeds at 61 % and 80 %: the t interval reaches from -50 to 191 %.
    assert stats.interval([0.61, 0.80])[0] < 0
    assert stats.interval([0.61, 0.80], (0, 1)) == (0, 1)


@pytest.mark.parametrize(
    ("says", "test", "given"),
    [
        ("value 1", stats.interval, ([0.1, math.nan],)),
        ("difference 0", stats.sign_flip, ([math.inf, 0.1],)),
        ("0 differences", stats.sign_flip, ([],)),
        ("21 differences", stats.sign_flip, ([0.1] * 21,)),
        ("point 1, error", stats.pareto, ([(1, 2), (3, math.nan)],)),
    ],
)
def test_numbers_that_are_none_are_refused(says, test, given):
    with pytest.raises(SenetError, match=says):
        test(*given)


@pytest.mark.parametrize(
    ("differences", "p"),
    [
        ([0.3], 1),
        ([1, 2, 4], 2 / 8),  # the floor: no other choice of signs reaches 7
        ([-1, 2, 4], 4 / 8),  # 7, 5 and their opposites
        ([0.1] * 6, 2 / 64),  # six seeds are the fewest below 5 %
        ([0, 0, 0], 1),
        ([0.1, 0.2, -0.3], 1),  # sums to zero, but for rounding
    ],
)
def test_sign_flips_by_hand(differences, p):
    assert stats.sign_flip(differences) == p


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(-50, 50), min_size=1, max_size=8))
def test_sign_flips_are_counted_one_by_one(differences):
    signs = itertools.product((1, -1), repeat=len(differences))
    sums = np.abs(np.array(list(signs)) @ differences)
    expected = (sums >= abs(sum(differences))).mean()
    assert stats.sign_flip([d / 1000 for d in differences]) == expected


# Cost against error


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=12))
def test_a_point_is_on_the_front_exactly_if_none_beats_it(points):
    def beaten(p: tuple[int, int]) -> bool:
        return any(q[0] <= p[0] and q[1] <= p[1] and q != p for q in points)

    assert stats.pareto([(3, 1), (1, 3), (2, 2), (3, 3)]) == [1, 2, 0]  # by ascending cost
    front = stats.pareto(points)
    assert sorted(front) == [i for i, p in enumerate(points) if not beaten(p)]
    assert [points[i] for i in front] == sorted(points[i] for i in front)
