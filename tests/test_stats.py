"""Statistics: scipy and statsmodels called directly, published examples, and too few seeds.

Nothing may warn: a warning of numpy or scipy about too little data fails the test.
"""

import dataclasses
import math
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, special
from scipy import stats as scipy_stats
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestIndPower, TTestPower

from senet_lib.analysis import statistics as stats
from senet_lib.errors import SenetError

pytestmark = pytest.mark.filterwarnings("error")

# Extra hours of sleep with two drugs, ten patients: Student 1908, "The probable error of a mean",
# Biometrika 6:1; R ships it as `sleep`. R's output for the pairs: t = -4.0621, df = 9,
# p = 0.002833, interval -2.4598858 to -0.7001142, mean difference -1.58; and for Welch's test:
# t = -1.8608, df = 17.776, p = 0.07939.
DRUG_1 = (0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0)
DRUG_2 = (1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4)

# Test errors of two networks as they come out of a study.
PLAIN = {0: 0.0812, 1: 0.0795, 2: 0.0840, 3: 0.0801, 4: 0.0822, 5: 0.0817, 6: 0.0809}
VARIANT = {0: 0.0790, 1: 0.0799, 2: 0.0811, 3: 0.0786, 4: 0.0805, 5: 0.0820, 6: 0.0781}


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def sleep() -> stats.Comparison:
    return stats.compare(dict(enumerate(DRUG_2)), dict(enumerate(DRUG_1)), rng=rng())


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
    values = list(PLAIN.values())
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
    with pytest.raises(SenetError, match="level is"):
        stats.compare(PLAIN, VARIANT, rng=rng(), level=level)


# Comparison


def test_students_sleep_data_as_published():
    found = sleep()
    assert found.n == 10
    assert found.mean == pytest.approx(-1.58)
    assert found.p_paired == pytest.approx(0.002833, abs=5e-7)
    assert found.p_welch == pytest.approx(0.07939, abs=5e-6)
    assert (found.t_interval.low, found.t_interval.high) == pytest.approx(
        (-2.4598858, -0.7001142), abs=5e-8
    )
    # t of a paired test is sqrt(n) times the mean over the SD of the differences.
    assert found.cohens_dz * math.sqrt(10) == pytest.approx(-4.0621, abs=5e-5)
    # In a two-sample test of equal groups t is sqrt(n / 2) times d.
    assert found.cohens_d * math.sqrt(10 / 2) == pytest.approx(-1.8608, abs=5e-5)
    assert found.note == ""


def test_comparison_agrees_with_scipy_called_directly():
    found = stats.compare(PLAIN, VARIANT, rng=rng(3), level=0.9, resamples=2000)
    plain, variant = np.array(list(PLAIN.values())), np.array(list(VARIANT.values()))
    differences = variant - plain
    paired = scipy_stats.ttest_rel(variant, plain)
    assert found.p_paired == pytest.approx(paired.pvalue, rel=1e-12)
    expected = paired.confidence_interval(0.9)
    assert (found.t_interval.low, found.t_interval.high) == pytest.approx(
        (expected.low, expected.high), rel=1e-9
    )
    assert found.p_welch == pytest.approx(
        scipy_stats.ttest_ind(variant, plain, equal_var=False).pvalue, rel=1e-9
    )
    drawn = scipy_stats.bootstrap(
        (differences,),
        np.mean,
        n_resamples=2000,
        confidence_level=0.9,
        method="percentile",
        random_state=rng(3),
    ).confidence_interval
    assert (found.bootstrap_interval.low, found.bootstrap_interval.high) == tuple(drawn)
    assert found.bootstrap_interval.method == "percentile bootstrap, 2,000 resamples"
    assert found.sd == pytest.approx(differences.std(ddof=1))
    assert found.detectable == pytest.approx(
        found.sd * TTestPower().solve_power(nobs=7, alpha=0.05, power=0.8), rel=1e-5
    )


def test_effect_sizes_by_hand():
    """Errors 1 2 3 and 3 6 6 (SD 1 and sqrt 3): d = 3 / sqrt(2); differences 2 4 3, d_z = 3 / 1."""
    found = stats.compare({0: 1, 1: 2, 2: 3}, {0: 3, 1: 6, 2: 6}, rng=rng())
    assert found.cohens_d == pytest.approx(3 / math.sqrt(2))
    assert found.cohens_dz == pytest.approx(3)
    assert found.hedges_g == pytest.approx(3 / math.sqrt(2) * (1 - 3 / 15))


@pytest.mark.parametrize(("n", "within"), [(2, 0.013), (3, 0.003), (20, 0.0001)])
def test_hedges_approximation_is_as_near_the_exact_factor_as_said(n, within):
    """Hedges 1981: the exact factor is gamma(m/2) / (sqrt(m/2) gamma((m-1)/2))."""
    m = 2 * n - 2
    exact = math.exp(special.gammaln(m / 2) - special.gammaln((m - 1) / 2)) / math.sqrt(m / 2)
    errors = list(np.linspace(0.1, 0.2, n)), list(np.linspace(0.13, 0.25, n))
    found = stats.compare(dict(enumerate(errors[0])), dict(enumerate(errors[1])), rng=rng())
    assert found.hedges_g / found.cohens_d == pytest.approx(exact, rel=within)


def test_seeds_are_matched_by_number_and_only_shared_ones_count():
    found = stats.compare(
        {2: 0.5, 0: 0.1, 7: 0.9}, {0: 0.2, 1: 0.0, 2: 0.3}, rng=rng(), resamples=100
    )
    assert found.seeds == (0, 2)
    assert found.differences == pytest.approx((0.1, -0.2))
    assert found.mean == pytest.approx(-0.05)
    assert found.n == found.t_interval.n == found.bootstrap_interval.n == 2


def test_same_generator_same_interval_another_another():
    one, same, other = (stats.compare(PLAIN, VARIANT, rng=rng(s)) for s in (5, 5, 6))
    assert one == same
    assert one.bootstrap_interval != other.bootstrap_interval
    assert dataclasses.replace(one, bootstrap_interval=None) == dataclasses.replace(
        other, bootstrap_interval=None
    )


def test_bootstrap_of_three_seeds_is_their_range():
    """As the docstring has it: (1/3)^3 of the resamples are one seed alone, more than 2.5 %."""
    found = stats.compare({0: 0, 1: 0, 2: 0}, {0: -0.3, 1: 0.1, 2: 0.25}, rng=rng())
    ends = found.bootstrap_interval
    assert (ends.low, ends.high) == pytest.approx((-0.3, 0.25))
    assert found.t_interval.low < ends.low
    assert found.t_interval.high > ends.high


def test_rng_has_no_default():
    with pytest.raises(TypeError, match="rng"):
        stats.compare(PLAIN, VARIANT)


# Too little to say


COMPUTED = (
    "t_interval",
    "bootstrap_interval",
    "p_paired",
    "p_welch",
    "cohens_d",
    "cohens_dz",
    "hedges_g",
    "detectable",
)


@pytest.mark.parametrize(
    ("plain", "variant", "mean", "says"),
    [
        ({}, {}, None, "n = 0: no seed in common"),
        ({0: 0.1, 1: 0.2}, {2: 0.1}, None, "n = 0: no seed in common"),
        ({0: 0.3, 1: 0.2}, {0: 0.1}, -0.2, "n = 1: too few seeds"),
    ],
)
def test_too_few_seeds_is_an_answer(plain, variant, mean, says):
    found = stats.compare(plain, variant, rng=rng())
    assert found.note.startswith(says)
    assert "\n" not in found.note
    assert found.mean == (None if mean is None else pytest.approx(mean))
    assert found.sd is None
    assert all(getattr(found, name) is None for name in COMPUTED)


def test_two_seeds_are_enough_for_every_field():
    found = stats.compare({0: 0.10, 1: 0.12}, {0: 0.09, 1: 0.10}, rng=rng())
    assert all(getattr(found, name) is not None for name in COMPUTED)
    assert found.note == ""


def test_equal_differences_leave_the_unpaired_results():
    """0.1 - 0.2 and 0.3 - 0.4 are not the same number to a computer, but the same difference."""
    found = stats.compare({0: 0.2, 1: 0.4, 2: 0.7}, {0: 0.1, 1: 0.3, 2: 0.6}, rng=rng())
    assert (found.mean, found.sd) == (pytest.approx(-0.1), 0.0)
    for name in ("t_interval", "bootstrap_interval", "p_paired", "cohens_dz", "detectable"):
        assert getattr(found, name) is None
    assert found.p_welch == pytest.approx(
        scipy_stats.ttest_ind([0.1, 0.3, 0.6], [0.2, 0.4, 0.7], equal_var=False).pvalue
    )
    assert found.cohens_d < 0
    assert found.note.startswith("n = 3: the difference is the same on every seed")


@pytest.mark.parametrize("variant", [0.1, 0.3])
def test_networks_that_never_vary(variant):
    plain = dict.fromkeys(range(3), 0.1)
    found = stats.compare(plain, dict.fromkeys(range(3), variant), rng=rng())
    assert (found.mean, found.sd) == (pytest.approx(variant - 0.1), 0.0)
    assert all(getattr(found, name) is None for name in COMPUTED)
    assert found.note.startswith("n = 3: each network's error is the same on every seed")


def test_networks_that_vary_by_rounding_alone():
    """Each stays within the rounding of a few operations; their differences do not."""
    found = stats.compare({0: 0.1, 1: 0.1 + 6e-15}, {0: 0.2 + 6e-15, 1: 0.2}, rng=rng())
    assert all(getattr(found, name) is None for name in COMPUTED)
    assert found.note.startswith("n = 2: each network's error is the same on every seed")


def test_one_network_without_spread_has_welchs_test():
    """Against a constant, Welch's test is the one-sample test, with n - 1 degrees of freedom."""
    variant = [0.1, 0.15, 0.17]
    found = stats.compare(dict.fromkeys(range(3), 0.2), dict(enumerate(variant)), rng=rng())
    expected = scipy_stats.ttest_1samp(variant, 0.2).pvalue
    assert found.p_welch == pytest.approx(expected)
    assert found.p_paired == pytest.approx(expected)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_none_are_refused(bad):
    with pytest.raises(SenetError, match="variant, seed 1 is"):
        stats.compare({0: 0.1, 1: 0.2}, {0: 0.1, 1: bad}, rng=rng())
    with pytest.raises(SenetError, match="plain network, seed 4 is"):
        stats.compare({0: 0.1, 4: bad}, {0: 0.1}, rng=rng())
    with pytest.raises(SenetError, match="value 1 is"):
        stats.interval([0.1, bad])
    with pytest.raises(SenetError, match="sd_2 is"):
        stats.from_summary(1, 1, 3, 1, bad, 3)
    with pytest.raises(SenetError, match="point 1, error is"):
        stats.pareto([(1, 2), (3, bad)])


def test_no_resamples_are_refused():
    with pytest.raises(SenetError, match="resamples is 0"):
        stats.compare(PLAIN, VARIANT, rng=rng(), resamples=0)


errors = st.integers(0, 10_000).map(lambda wrong: wrong / 10_000)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(errors, errors), max_size=8))
def test_swapping_the_networks_flips_the_signs_and_nothing_warns(pairs):
    plain = {i: p for i, (p, _) in enumerate(pairs)}
    variant = {i: v for i, (_, v) in enumerate(pairs)}
    there, back = (
        stats.compare(*pair, rng=rng(), resamples=50)
        for pair in ((plain, variant), (variant, plain))
    )
    assert there.note == back.note
    assert bool(there.note) == any(getattr(there, name) is None for name in COMPUTED)
    for name in ("mean", "cohens_d", "cohens_dz", "hedges_g"):
        value = getattr(there, name)
        expected = None if value is None else pytest.approx(-value, abs=1e-12)
        assert getattr(back, name) == expected
    for name in ("sd", "p_paired", "p_welch", "detectable"):
        value = getattr(there, name)
        expected = None if value is None else pytest.approx(value, abs=1e-12)
        assert getattr(back, name) == expected
    if ends := there.t_interval:
        assert ends.low < there.mean < ends.high
        assert back.t_interval.low == pytest.approx(-ends.high, abs=1e-12)
    if ends := there.bootstrap_interval:
        lowest, highest = min(there.differences), max(there.differences)
        assert lowest - 1e-12 <= ends.low <= ends.high <= highest + 1e-12


# Power


@pytest.mark.parametrize(("n", "points"), [(3, 0.46), (5, 0.30), (10, 0.20), (20, 0.14)])
def test_differences_that_n_seeds_can_show(n, points):
    """The reference's numbers, at an SD of 0.15: they are those of a two-sample test."""
    assert stats.detectable_difference(0.15, n) == pytest.approx(points, abs=0.005)


@pytest.mark.parametrize("n", [2, 3, 4, 5, 7, 10, 20])
def test_detectable_difference_is_what_statsmodels_solves_for(n):
    two_sample = TTestIndPower().solve_power(nobs1=n, alpha=0.05, power=0.8)
    paired = TTestPower().solve_power(nobs=n, alpha=0.05, power=0.8)
    assert stats.detectable_difference(2.0, n) == pytest.approx(2 * two_sample, rel=1e-5)
    assert stats.detectable_difference(2.0, n, paired=True) == pytest.approx(2 * paired, rel=1e-5)


def power(effect: float, n: int, alpha: float, paired: bool) -> float:
    """Two-sided power, integrated over the distribution of the standard deviation."""
    df, noncentrality = (
        (n - 1, effect * math.sqrt(n)) if paired else (2 * n - 2, effect * math.sqrt(n / 2))
    )
    critical = scipy_stats.t.isf(alpha / 2, df)

    def significant(quantile: float) -> float:
        bound = critical * math.sqrt(scipy_stats.chi2.ppf(quantile, df) / df)
        return special.ndtr(noncentrality - bound) + special.ndtr(-noncentrality - bound)

    return integrate.quad(significant, 0, 1, limit=200)[0]


@pytest.mark.parametrize("paired", [False, True])
@pytest.mark.parametrize(
    ("n", "alpha", "wanted"), [(2, 0.05, 0.95), (2, 0.01, 0.8), (3, 0.01, 0.8), (5, 0.01, 0.95)]
)
def test_power_is_reached_where_statsmodels_solver_is_not(n, alpha, wanted, paired):
    effect = stats.detectable_difference(1.0, n, power=wanted, alpha=alpha, paired=paired)
    assert power(effect, n, alpha, paired) == pytest.approx(wanted, abs=1e-4)


@pytest.mark.parametrize(
    "wrong",
    [
        {"n": 1},
        {"sd": -0.1},
        {"sd": math.nan},
        {"power": 1.0},
        {"power": 0.04},
        {"alpha": 0.0},
    ],
)
def test_impossible_plans_are_refused(wrong):
    arguments = {"sd": 0.1, "n": 3} | wrong
    with pytest.raises(SenetError, match=next(iter(wrong))):
        stats.detectable_difference(**arguments)


def test_without_spread_any_difference_shows():
    assert stats.detectable_difference(0.0, 3) == 0.0


# The same images


def answers(both: int, only_plain: int, only_variant: int, neither: int) -> list[np.ndarray]:
    """Right or wrong by image for two networks, from the four counts."""
    pairs = [(True, True), (True, False), (False, True), (False, False)]
    return list(np.repeat(pairs, [both, only_plain, only_variant, neither], axis=0).T)


def test_mcnemar_on_agrestis_approval_ratings():
    """Agresti 1990, Categorical Data Analysis, p. 350; R: chi-squared 16.818, p = 4.115e-05.

    By hand: (|150 - 86| - 1)^2 / (150 + 86) = 3969 / 236.
    """
    found = stats.mcnemar(*answers(794, 150, 86, 570))
    assert (found.both_right, found.only_plain_right) == (794, 150)
    assert (found.only_variant_right, found.neither_right) == (86, 570)
    assert found.n == 1600
    assert found.statistic == pytest.approx(3969 / 236)
    assert found.p == pytest.approx(4.115e-05, abs=5e-9)
    assert found.method == "chi-square with continuity correction"
    assert found.difference == pytest.approx((150 - 86) / 1600)


def test_exact_mcnemar_on_bentur():
    """Airway hyper-responsiveness, in Fagerland et al. 2013 (doi:10.1186/1471-2288-13-91), table 1.

    By hand: 1 of 8 discordant pairs, 2 (1 + 8) / 2^8 = 0.0703.
    """
    found = stats.mcnemar(*answers(1, 1, 7, 12))
    assert found.p == pytest.approx(18 / 256)
    assert (found.statistic, found.method, found.n) == (None, "exact binomial", 21)
    assert found.difference == pytest.approx(-6 / 21)


@pytest.mark.parametrize(("only_variant", "exact"), [(14, True), (15, False)])
def test_mcnemar_is_exact_below_25_discordant_images(only_variant, exact):
    found = stats.mcnemar(*answers(30, 10, only_variant, 5))
    table = [[30, 10], [only_variant, 5]]
    expected = statsmodels_mcnemar(table, exact=exact, correction=True)
    assert found.p == pytest.approx(expected.pvalue, rel=1e-12)
    assert (found.method == "exact binomial") == exact


def test_networks_that_always_agree():
    found = stats.mcnemar([True, False, True], [True, False, True])
    assert (found.p, found.difference, found.method) == (1.0, 0.0, "exact binomial")


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_mcnemar_counts_every_image_once_and_is_symmetric(pairs):
    plain, variant = np.array(pairs).T
    found, back = stats.mcnemar(plain, variant), stats.mcnemar(variant, plain)
    counts = (found.both_right, found.only_plain_right, found.only_variant_right)
    assert sum(counts) + found.neither_right == found.n == len(pairs)
    assert found.difference == pytest.approx(np.mean(~variant) - np.mean(~plain))
    assert back.difference == -found.difference
    assert back.p == found.p
    assert 0 <= found.p <= 1


def test_mcnemar_refuses_other_images_and_other_things():
    with pytest.raises(SenetError, match="3 images of the plain network, 2 of the variant"):
        stats.mcnemar([True, False, True], [True, False])
    for wrong in ([0, 1], [0.5, 0.1], [[True], [False]], []):
        with pytest.raises(SenetError, match="one truth value an image"):
            stats.mcnemar([True, False], wrong)


# A family of tests


def test_holm_on_the_textbook_family():
    """Four tests, p = .01 .04 .03 .005 (the example in Wikipedia, "Holm–Bonferroni method").

    By hand, ascending: .005 * 4, .01 * 3, .03 * 2, and .04 * 1 raised to the one before it. At 5 %
    the fourth and the first are rejected, as the example has it.
    """
    adjusted = stats.holm({"H1": 0.01, "H2": 0.04, "H3": 0.03, "H4": 0.005})
    assert list(adjusted) == ["H1", "H2", "H3", "H4"]
    assert list(adjusted.values()) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert [name for name, p in adjusted.items() if p <= 0.05] == ["H1", "H4"]


def test_holm_leaves_missing_values_out_of_the_family():
    adjusted = stats.holm({"a": 0.03, "none": None, "b": 0.02})
    assert adjusted == {"a": pytest.approx(0.04), "none": None, "b": pytest.approx(0.04)}
    assert list(adjusted) == ["a", "none", "b"]
    assert stats.holm({"a": None}) == {"a": None}
    assert stats.holm({}) == {}


@pytest.mark.parametrize("bad", [-0.1, 1.1, math.nan])
def test_holm_refuses_what_is_no_p_value(bad):
    with pytest.raises(SenetError, match="p-value of b"):
        stats.holm({"a": 0.1, "b": bad})


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 1000).map(lambda k: k / 1000), min_size=1, max_size=12))
def test_holm_keeps_the_order_and_only_raises(values):
    # statsmodels collects garbage in every call, which takes most of a second.
    with patch("gc.collect"):
        adjusted = list(stats.holm({str(i): p for i, p in enumerate(values)}).values())
        expected = multipletests(values, method="holm")[1]
    assert adjusted == pytest.approx(list(expected), rel=1e-12)
    assert all(p <= a <= 1 for p, a in zip(values, adjusted, strict=True))
    assert all(
        a <= min(1.0, p * len(values) + 1e-15) for p, a in zip(values, adjusted, strict=True)
    )
    in_order = [adjusted[i] for i in np.argsort(values, kind="stable")]
    assert in_order == sorted(in_order)


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
        sleep(),
        stats.mcnemar(*answers(30, 10, 20, 5)),
        stats.from_summary(3.45, 0.05, 3, 2.98, 0.04, 3),
    ]
    for result in results:
        assert not hasattr(result, "__dict__")
        for field in dataclasses.fields(result):
            value = getattr(result, field.name)
            assert type(value) in (int, float, str, tuple, stats.Interval, type(None)), field.name
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(result, dataclasses.fields(result)[0].name, 1)
