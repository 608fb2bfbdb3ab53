"""Comparisons of a whole study: scipy, statsmodels, R's published numbers, simulated studies."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats as scipy_stats
from statsmodels.stats.weightstats import ttost_ind

from senet_lib.analysis import contrasts, dunnett
from senet_lib.errors import SenetError

pytestmark = pytest.mark.filterwarnings("error")

# Blood counts (Dunnett 1955), a hundredth of them: errors differ by less than 1. R's multcomp
# gives p = 0.6201020 and 0.0058254, intervals -1.2564116 to 2.5564116 and 0.8396274 to 4.4163726.
BLOOD = {
    "control": (7.40, 8.50, 7.20, 8.24, 9.84, 8.32),
    "drug a": (9.76, 8.80, 7.68, 9.36),
    "drug b": (12.80, 9.68, 12.16, 9.20, 10.55),
}
EQUAL = {
    "plain": (0.100, 0.104, 0.102),
    "a": (0.101, 0.103, 0.105),
    "b": (0.099, 0.104, 0.103),
    "c": (0.120, 0.125, 0.123),
}


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def by_seed(groups) -> dict[str, dict[int, float]]:
    return {name: dict(enumerate(values)) for name, values in groups.items()}


def compare(groups, controls=None, **options) -> contrasts.Comparison:
    """Against the first group, if nothing else is said."""
    first, *others = groups
    controls = controls or dict.fromkeys(others, first)
    return contrasts.compare(by_seed(groups), controls, rng=rng(), **options)


# The spread


def test_pooled_spread_by_hand():
    """1 3 (variance 2, 1 df) and 4 5 6 (variance 1, 2 df): (2 + 2) / 3; one seed has none."""
    found = contrasts.pooled_spread(by_seed({"a": (1, 3), "b": (4, 5, 6), "c": (9,)}), rng=rng())
    assert (found.sd**2, found.df, found.num_networks) == (pytest.approx(4 / 3), 3, 3)
    assert (found.widest, [found.share, found.sd_without]) == ("a", pytest.approx([0.5, 1]))


def test_bartletts_statistic_is_scipys_and_its_p_that_of_many_seeds():
    groups = {str(i): rng(i).normal(0.1, 0.01 * (1 + i / 4), 30) for i in range(5)}
    expected = scipy_stats.bartlett(*groups.values())
    variances = np.array([values.var(ddof=1) for values in groups.values()])
    assert contrasts.bartlett(variances, np.full(5, 29)) == pytest.approx(expected.statistic)
    # With 30 seeds a network the chi-square is right; 4,999 draws give p to 0.005.
    found = contrasts.pooled_spread(by_seed(groups), rng=rng())
    assert found.p_homogeneous == pytest.approx(expected.pvalue, abs=0.02)


def test_homogeneity_holds_its_level_at_two_seeds_and_sees_an_outlier():
    """Of 200 equal studies 5 % are refuted, give or take 3 of their standard errors (1.5 %)."""
    draw = rng(1)
    studies = [by_seed({str(i): draw.normal(size=2) for i in range(8)}) for _ in range(200)]
    refuted = sum(contrasts.pooled_spread(s, rng=draw).p_homogeneous < 0.05 for s in studies)
    assert refuted / 200 == pytest.approx(0.05, abs=0.045)
    for seeds, outlier in (((0.1, 0.2, 0.3), True), ((0.1, 0.1, 0.1), False)):
        found = contrasts.pooled_spread(by_seed({**EQUAL, "d": seeds}), rng=rng())
        assert (found.p_homogeneous < 0.05) == outlier
        assert (found.widest == "d") == (found.share > 0.99) == outlier


def test_more_seeds_than_the_sign_flip_test_takes_are_compared_without_it():
    groups = {name: rng(k).normal(0.1, 0.01, 21) for k, name in enumerate("ab")}
    frame = contrasts.compare(by_seed(groups), {"b": "a"}, rng=rng()).frame
    assert frame["p_sign"].isna().all()
    assert frame["p"].notna().all()


# Dunnett


def test_dunnetts_own_example_as_r_has_it():
    frame = compare({name: [x / 100 for x in values] for name, values in BLOOD.items()}).frame
    assert frame["p"].tolist() == pytest.approx([0.6201020, 0.0058254], abs=2e-5)
    ends = [-1.2564116, 2.5564116, 0.8396274, 4.4163726]
    assert 100 * frame[["low", "high"]].to_numpy().ravel() == pytest.approx(ends, abs=2e-4)
    assert frame["decision"].tolist() == ["undecided", "worse"]
    assert frame["at_least"].tolist() == [0, pytest.approx(0.008396274, abs=2e-6)]


@pytest.mark.parametrize("sizes", [(2, 2, 2, 2), (5, 3, 3, 4)])
def test_agrees_with_scipys_dunnett(sizes):
    draw = rng(3)
    values = [0.1 + 0.01 * draw.normal(i / 2, 1, n) for i, n in enumerate(sizes)]
    expected = scipy_stats.dunnett(*values[1:], control=values[0], rng=rng())
    frame = compare({str(i): v for i, v in enumerate(values)}).frame
    # scipy integrates at random, to about 1e-3 here.
    assert frame["p"].tolist() == pytest.approx(expected.pvalue.tolist(), abs=2e-3)
    ends = np.transpose(expected.confidence_interval(0.95))
    assert frame[["low", "high"]].to_numpy() == pytest.approx(ends, abs=2e-4)


@pytest.mark.parametrize(("k", "df", "d"), [(2, 10, 2.57), (3, 10, 2.76), (9, 20, 2.95)])
def test_critical_values_of_dunnetts_table(k, df, d):
    found = dunnett.critical_value(((3, ((3, k),)),), df, 0.95)
    assert found == pytest.approx(d, abs=0.006)


@pytest.mark.parametrize("df", [1, 2, 21, 5000])
def test_one_contrast_is_students_t(df):
    bounds = np.array([0.5, 2, 10])
    inside = dunnett.within(bounds, ((2, ((5, 1),)),), df)
    assert 1 - inside == pytest.approx(2 * scipy_stats.t.sf(bounds, df), abs=1e-12)


def test_two_families_are_the_multivariate_t_of_both():
    families = ((2, ((2, 1), (3, 2))), (3, ((3, 1),)))
    networks = [(2, 2), (3, 2), (3, 2), (3, 3)]  # seeds of each and of its control
    corr = np.eye(4)
    for i, (n, c) in enumerate(networks):
        for j, (m, d) in enumerate(networks):
            if i != j and c == d:
                corr[i, j] = math.sqrt(n / (n + c) * m / (m + d))
    expected = scipy_stats.multivariate_t.cdf(
        np.full(4, 2.4), shape=corr, df=9, lower_limit=np.full(4, -2.4), random_state=rng()
    )
    assert dunnett.within(np.array([2.4]), families, 9)[0] == pytest.approx(expected, abs=1e-3)


# The decision


def test_equivalence_is_statsmodels_tost_at_half_the_level_a_side():
    pair = {"plain": EQUAL["plain"], "b": EQUAL["b"]}
    for margin in (0.004, 0.008, 0.03):
        (row,) = compare(pair, margin=margin).frame.to_dict("records")
        expected = ttost_ind(np.array(pair["b"]), np.array(pair["plain"]), -margin, margin)[0]
        assert row["p_equal"] == pytest.approx(min(1, 2 * expected), rel=1e-6)
        inside = -margin < row["low"] and row["high"] < margin
        assert (row["decision"] == "equal") == inside == (row["p_equal"] < 0.05)


def test_every_decision_and_its_bounds():
    found = compare({**EQUAL, "a": (0.103, 0.105, 0.107), "d": (0.08, 0.081, 0.079)}, margin=0.006)
    rows = found.frame.set_index("model")
    assert rows["decision"].to_dict() == {
        "a": "undecided", "b": "equal", "c": "worse", "d": "better",
    }  # fmt: skip
    assert rows.loc["c", "at_least"] == rows.loc["c", "low"] > 0
    assert rows.loc["d", "at_least"] == -rows.loc["d", "high"] > 0
    assert rows.loc["b", "at_least"] == 0
    assert rows["more_seeds"].isna().to_dict() == {"a": False, "b": True, "c": True, "d": True}


def test_signs_stand_beside_on_shared_seeds():
    errors = {"plain": {0: 0.1, 1: 0.104, 2: 0.102}, "a": {1: 0.105, 2: 0.106, 3: 0.2}}
    (row,) = contrasts.compare(errors, {"a": "plain"}, rng=rng()).frame.to_dict("records")
    assert row["differences"] == {1: pytest.approx(0.001), 2: pytest.approx(0.004)}
    assert (row["n"], row["n_control"]) == (3, 3)
    assert row["p_sign"] == row["p_sign_floor"] == 0.5


def test_too_few_seeds_decide_nothing():
    found = compare({"plain": (0.1,), "a": (0.3,)})
    (row,) = found.frame.to_dict("records")
    assert row["difference"] == pytest.approx(0.2)
    assert row["decision"] == "undecided"
    assert all(math.isnan(row[name]) for name in ("low", "high", "p", "p_equal", "detectable"))
    assert pd.isna(row["more_seeds"])
    assert found.seeds_for(0.005) is None
    same = compare({"plain": (0.1, 0.1), "a": (0.3, 0.3)})  # and seeds that never vary
    assert (same.frame["decision"].tolist(), same.spread.sd) == (["undecided"], 0)
    assert same.seeds_for(0.005) is None  # what decides nothing today would not then
    frame = compare({"plain": (0.01, 0.9), "a": (0.02, 0.95)}).frame  # all a difference can be
    assert (frame["low"].item(), frame["high"].item()) == (-1, 1)


def test_a_single_seed_is_judged_by_the_others_spread():
    """Its difference has a standard error of sd sqrt(1 + 1/3). Networks without a control add
    degrees of freedom and no test."""
    more = {**EQUAL, "one": (0.15,), "alone": (0.3, 0.302, 0.305)}
    found = compare(more, dict.fromkeys(("a", "b", "c", "one"), "plain"))
    assert found.spread.df == 10
    bound = dunnett.critical_value(((3, ((1, 1), (3, 3))),), 10, 0.95)
    row = found.frame.set_index("model").loc["one"]
    half = bound * found.spread.sd * math.sqrt(1 + 1 / 3)
    assert row["high"] - row["difference"] == pytest.approx(half)
    assert row["decision"] == "worse"


# Power


def test_detectable_difference_has_the_power_said():
    """The noncentral t of scipy, at the critical value of Dunnett's interval."""
    found = compare(EQUAL)
    detectable = found.frame["detectable"].iloc[0]
    effect = detectable / (found.spread.sd * math.sqrt(2 / 3))
    critical = dunnett.critical_value(((3, ((3, 3),)),), 8, 0.95)
    assert scipy_stats.nct.sf(critical, 8, effect) == pytest.approx(0.8)


@pytest.mark.parametrize("alone", [(), ("a", "b", "c")])
def test_planned_seeds_are_the_fewest_that_suffice(alone):
    """Networks that have one seed today lend their degrees of freedom once they have more."""
    found, plan = compare(EQUAL | {name: EQUAL[name][:1] for name in alone}), []

    def power(n: int, difference: float) -> float:
        critical = dunnett.critical_value(((n, ((n, 3),)),), 4 * (n - 1), 0.95)
        effect = difference / (found.spread.sd * math.sqrt(2 / n))
        return scipy_stats.nct.sf(critical, 4 * (n - 1), effect)

    for difference in (0.0025, 0.005, 0.02):
        plan.append(n := found.seeds_for(difference))
        assert power(n, difference) >= 0.8
        assert n == 2 or power(n - 1, difference) < 0.8
    assert plan == sorted(plan, reverse=True)
    with pytest.raises(SenetError, match="cannot be planned for"):
        found.seeds_for(0)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"margin": 0}, "margin is 0"),
        ({"controls": {"a": "plian"}}, "plian has no seed"),
        ({"controls": {"a": "b", "b": "plain"}}, "b: a control cannot have a control itself"),
    ],
)
def test_what_cannot_be_compared_is_refused(wrong, says):
    with pytest.raises(SenetError, match=says):
        compare(EQUAL, **wrong)
