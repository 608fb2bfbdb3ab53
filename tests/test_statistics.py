"""Statistics of one network or pair: scipy and statsmodels, published examples, too few seeds.

Nothing may warn: a warning of numpy or scipy about too little data fails the test.
"""

import dataclasses
import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar

from senet_lib.analysis import statistics as stats
from senet_lib.errors import SenetError

pytestmark = pytest.mark.filterwarnings("error")

# Extra hours of sleep with two drugs, ten patients: Student 1908, "The probable error of a mean",
# Biometrika 6:1; R ships it as `sleep`. R's output for the differences: interval -2.4598858 to
# -0.7001142, mean -1.58; and for Welch's test: t = -1.8608, df = 17.776, p = 0.07939.
DRUG_1 = (0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0)
DRUG_2 = (1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4)

# Intervals


def test_t_interval_by_hand():
    """Values 1 2 3: mean 2, SD 1; a table's t for 2 degrees of freedom is 4.303."""
    found = stats.interval([1, 2, 3])
    assert found.mean == 2
    assert (found.low, found.high) == pytest.approx(
        (2 - 4.303 / math.sqrt(3), 2 + 4.303 / math.sqrt(3)), abs=1e-3
    )
    assert (found.level, found.method, found.n) == (0.95, "t", 3)


@pytest.mark.parametrize("level", [0.5, 0.9, 0.99])
def test_t_interval_is_scipys(level):
    values = [0.0812, 0.0795, 0.0840, 0.0801, 0.0822, 0.0817, 0.0809]
    expected = scipy_stats.ttest_1samp(values, 0).confidence_interval(level)
    found = stats.interval(values, level)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), rel=1e-12)


@pytest.mark.parametrize("values", [[], [0.1], [0.1, 0.1, 0.1]])
def test_no_interval_without_spread(values):
    assert stats.interval(values) is None


@pytest.mark.parametrize("level", [0, 1, 95, -0.5, math.nan])
def test_level_out_of_range_is_refused(level):
    with pytest.raises(SenetError, match="level is"):
        stats.interval([0.1, 0.2], level)


def test_students_sleep_data_as_published():
    found = stats.interval(np.array(DRUG_1) - np.array(DRUG_2))
    assert found.mean == pytest.approx(-1.58)
    assert (found.low, found.high) == pytest.approx((-2.4598858, -0.7001142), abs=5e-8)


def test_the_interval_of_an_error_stays_between_0_and_1():
    """Two seeds at 61 % and 80 %: the t interval reaches from -50 to 191 %."""
    assert stats.interval([0.61, 0.80]).low < 0
    found = stats.interval([0.61, 0.80], bounds=(0, 1))
    assert (found.low, found.high, found.mean) == (0, 1, pytest.approx(0.705))
    inside = stats.interval([0.61, 0.62, 0.615], bounds=(0, 1))
    assert inside == stats.interval([0.61, 0.62, 0.615])


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_none_are_refused(bad):
    with pytest.raises(SenetError, match="value 1 is"):
        stats.interval([0.1, bad])
    with pytest.raises(SenetError, match="difference 0 is"):
        stats.sign_flip([bad, 0.1])
    with pytest.raises(SenetError, match="sd_2 is"):
        stats.from_summary(1, 1, 3, 1, bad, 3)
    with pytest.raises(SenetError, match="point 1, error is"):
        stats.pareto([(1, 2), (3, bad)])


# Signs


@pytest.mark.parametrize(
    ("differences", "p"),
    [
        ([0.3], 1),
        ([1, 2, 4], 2 / 8),  # the floor: no other choice of signs reaches 7
        ([-1, 2, 4], 4 / 8),  # 7, 5 and their opposites
        ([1, -1], 1),
        ([0.1, 0.1, 0.1, 0.1, 0.1, 0.1], 2 / 64),  # six seeds are the fewest below 5 %
        ([0, 0, 0], 1),
        ([0.1, 0.2, -0.3], 1),  # sums to zero, but for rounding
    ],
)
def test_sign_flips_by_hand(differences, p):
    assert stats.sign_flip(differences) == p


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(-50, 50), min_size=1, max_size=8))
def test_sign_flips_are_counted_one_by_one(differences):
    sums = [
        abs(sum(s * d for s, d in zip(signs, differences, strict=True)))
        for signs in itertools.product((1, -1), repeat=len(differences))
    ]
    expected = sum(s >= abs(sum(differences)) for s in sums) / len(sums)
    assert stats.sign_flip([d / 1000 for d in differences]) == expected
    assert expected >= 2 / 2 ** len(differences)


def test_sign_flips_agree_with_scipys_permutation_test():
    differences = np.array(DRUG_1) - np.array(DRUG_2)
    expected = scipy_stats.permutation_test(
        (differences,), np.mean, permutation_type="samples", n_resamples=math.inf
    )
    assert stats.sign_flip(differences) == pytest.approx(expected.pvalue)


@pytest.mark.parametrize("n", [0, 21])
def test_sign_flips_of_none_or_too_many_are_refused(n):
    with pytest.raises(SenetError, match=f"{n} differences"):
        stats.sign_flip([0.1] * n)


# The same images


def answers(both: int, only_plain: int, only_variant: int, neither: int) -> list[np.ndarray]:
    """Right or wrong by image for two networks, from the four counts."""
    pairs = [(True, True), (True, False), (False, True), (False, False)]
    return list(np.repeat(pairs, [both, only_plain, only_variant, neither], axis=0).T)


def test_mcnemar_on_agrestis_approval_ratings():
    """Agresti 1990, Categorical Data Analysis, p. 350: 150 of 236 discordant pairs."""
    found = stats.mcnemar(*answers(794, 150, 86, 570))
    assert (found.both_right, found.only_control_right) == (794, 150)
    assert (found.only_variant_right, found.neither_right) == (86, 570)
    assert found.n == 1600
    assert found.p == pytest.approx(scipy_stats.binomtest(86, 236).pvalue, rel=1e-9)
    # R's chi-square with continuity correction has 4.115e-05.
    assert found.p == pytest.approx(4.115e-05, rel=0.15)
    assert found.difference == pytest.approx((150 - 86) / 1600)


def test_exact_mcnemar_on_bentur():
    """Airway hyper-responsiveness, in Fagerland et al. 2013 (doi:10.1186/1471-2288-13-91), table 1.

    By hand: 1 of 8 discordant pairs, 2 (1 + 8) / 2^8 = 0.0703.
    """
    found = stats.mcnemar(*answers(1, 1, 7, 12))
    assert found.p == pytest.approx(18 / 256)
    assert found.n == 21
    assert found.difference == pytest.approx(-6 / 21)


@pytest.mark.parametrize("only_variant", [14, 15, 200])
def test_mcnemar_is_statsmodels_exact_test(only_variant):
    found = stats.mcnemar(*answers(30, 10, only_variant, 5))
    expected = statsmodels_mcnemar([[30, 10], [only_variant, 5]], exact=True)
    assert found.p == pytest.approx(expected.pvalue, rel=1e-12)


@pytest.mark.parametrize("each", [0, 1, 20, 134])
def test_equal_counts_are_no_evidence_at_all(each):
    found = stats.mcnemar(*answers(30, each, each, 5))
    assert (found.p, found.difference) == (1.0, 0.0)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_mcnemar_counts_every_image_once_and_is_symmetric(pairs):
    plain, variant = np.array(pairs).T
    found, back = stats.mcnemar(plain, variant), stats.mcnemar(variant, plain)
    counts = (found.both_right, found.only_control_right, found.only_variant_right)
    assert sum(counts) + found.neither_right == found.n == len(pairs)
    assert found.difference == pytest.approx(np.mean(~variant) - np.mean(~plain))
    assert back.difference == -found.difference
    assert back.p == found.p
    assert 0 <= found.p <= 1


def test_mcnemar_refuses_other_images_and_other_things():
    with pytest.raises(SenetError, match="3 images of the control, 2 of the variant"):
        stats.mcnemar([True, False, True], [True, False])
    for wrong in ([0, 1], [0.5, 0.1], [[True], [False]], []):
        with pytest.raises(SenetError, match="one truth value an image"):
            stats.mcnemar([True, False], wrong)


# Published numbers


def test_the_sources_own_table_contradicts_its_effect_size():
    """3.45 ± 0.05 against 2.98 ± 0.04, n = 3: d = 0.47 / sqrt(0.00205), t = d sqrt(3 / 2), df 4."""
    found = stats.from_summary(3.45, 0.05, 3, 2.98, 0.04, 3)
    assert found.cohens_d == pytest.approx(0.47 / math.sqrt(0.00205))
    assert round(found.cohens_d, 1) == 10.4
    assert round(found.t_pooled, 1) == round(found.t_welch, 1) == 12.7
    assert found.df_pooled == 4
    assert found.hedges_g == pytest.approx(0.8 * found.cohens_d)
    assert found.difference == pytest.approx(0.47)
    # A table of t has 8.610 for p = 0.001 and 4 degrees of freedom.
    assert found.p_pooled < 0.001
    assert found.p_welch < 0.001


def test_effect_sizes_of_borenstein():
    """Borenstein et al. 2009, Introduction to Meta-Analysis, chapter 4: d = 0.5970, g = 0.5924."""
    found = stats.from_summary(103, 5.5, 50, 100, 4.5, 50)
    assert found.cohens_d == pytest.approx(0.5970, abs=5e-5)
    assert found.hedges_g == pytest.approx(0.5924, abs=5e-5)


@pytest.mark.parametrize("shorter", [10, 6])
def test_summary_agrees_with_scipy_on_the_values_behind_it(shorter):
    first, second = np.array(DRUG_1[:shorter]), np.array(DRUG_2)
    found = stats.from_summary(
        first.mean(), first.std(ddof=1), len(first), second.mean(), second.std(ddof=1), 10
    )
    welch = scipy_stats.ttest_ind(first, second, equal_var=False)
    pooled = scipy_stats.ttest_ind(first, second)
    assert (found.t_welch, found.df_welch, found.p_welch) == pytest.approx(
        (welch.statistic, welch.df, welch.pvalue), rel=1e-9
    )
    assert (found.t_pooled, found.df_pooled, found.p_pooled) == pytest.approx(
        (pooled.statistic, pooled.df, pooled.pvalue), rel=1e-9
    )


def test_welchs_degrees_of_freedom_as_published():
    """R on the sleep data: t = -1.8608, df = 17.776, p = 0.07939."""
    first, second = np.array(DRUG_1), np.array(DRUG_2)
    found = stats.from_summary(
        first.mean(), first.std(ddof=1), 10, second.mean(), second.std(ddof=1), 10
    )
    assert found.t_welch == pytest.approx(-1.8608, abs=5e-5)
    assert found.df_welch == pytest.approx(17.776, abs=5e-4)
    assert found.p_welch == pytest.approx(0.07939, abs=5e-6)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((1.0, 0.1, 1, 2.0, 0.1, 3), "n = 1: too few values"),
        ((1.0, 0.0, 3, 2.0, 0.0, 3), "both standard deviations are 0"),
    ],
)
def test_a_summary_that_implies_nothing_says_so(arguments, says):
    found = stats.from_summary(*arguments)
    assert found.note.startswith(says)
    assert found.difference == -1.0
    known = {"n_1", "n_2", "difference", "note"}
    names = {field.name for field in dataclasses.fields(found)} - known
    assert len(names) == 8
    assert all(getattr(found, name) is None for name in names)


def test_impossible_summaries_are_refused():
    with pytest.raises(SenetError, match="an SD is 0 or above"):
        stats.from_summary(1, -0.1, 3, 1, 0.1, 3)
    with pytest.raises(SenetError, match="a count 1 or more"):
        stats.from_summary(1, 0.1, 0, 1, 0.1, 3)


# Cost against error


@pytest.mark.parametrize(
    ("points", "front"),
    [
        ([], []),
        ([(1, 1)], [0]),
        ([(3, 1), (1, 3), (2, 2), (3, 3)], [1, 2, 0]),
        ([(1, 2), (1, 1), (2, 1)], [1]),  # a tie in one coordinate, worse in the other
        ([(1, 1), (2, 0.5), (1, 1)], [0, 2, 1]),  # equal points stay together
        ([(2, 1), (1, 1), (2, 1)], [1]),  # and fall together
    ],
)
def test_pareto_front(points, front):
    assert stats.pareto(points) == front


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=12))
def test_a_point_is_on_the_front_exactly_if_none_beats_it(points):
    def beaten(p: tuple[int, int]) -> bool:
        return any(q[0] <= p[0] and q[1] <= p[1] and q != p for q in points)

    front = stats.pareto(points)
    assert sorted(front) == [i for i, p in enumerate(points) if not beaten(p)]
    assert [points[i] for i in front] == sorted(points[i] for i in front)


# Results


def test_results_are_plain_numbers_that_cannot_be_changed():
    results = [
        stats.interval([0.1, 0.2]),
        stats.mcnemar(*answers(30, 10, 20, 5)),
        stats.from_summary(3.45, 0.05, 3, 2.98, 0.04, 3),
    ]
    for result in results:
        assert not hasattr(result, "__dict__")
        for field in dataclasses.fields(result):
            value = getattr(result, field.name)
            assert type(value) in (int, float, str, tuple, type(None)), field.name
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(result, dataclasses.fields(result)[0].name, 1)
