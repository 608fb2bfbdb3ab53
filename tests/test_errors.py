"""Errors of a study's runs, compared with their controls."""

import numpy as np
import pandas as pd
import pytest
from fake_runs import make_run
from scipy.stats import t
from statsmodels.formula.api import ols

from senet_lib.analysis import errors
from senet_lib.analysis.ablation import find_axes
from senet_lib.analysis.corruptions import corrupt
from senet_lib.analysis.dunnett import critical_value
from senet_lib.analysis.predictions import correct_matrix
from senet_lib.errors import RecordError, SenetError, UnknownNameError
from senet_lib.recipe import Recipe
from senet_lib.runs.records import list_runs

PLAIN, SE, LAST = (0.30, 0.33, 0.31), (0.28, 0.29, 0.30), (0.10, 0.11, 0.12)


@pytest.fixture
def runs(tmp_path):
    studied = {
        "resnet20": PLAIN,
        "se_resnet20": SE,
        "se_resnet20+reduction=4": LAST,
        "resnet20+attention=eca": (0.31,),
        "se_resnet110": (0.2, 0.21),  # without its plain network
    }
    return [
        make_run(tmp_path, model, seed, error)
        for model, values in studied.items()
        for seed, error in enumerate(values)
    ]


def test_each_network_has_the_control_of_its_family():
    models = [
        "resnet20", "se_resnet20", "se_resnet20+reduction=4", "resnet20+attention=eca",
        "res2net29", "se_res2net29", "se_res2net29_last", "se_resnet110",
        "resnet20+shortcut=A", "se_resnet20+shortcut=A", "se_resnet20+reduction=4+shortcut=A",
        "se_res2net29+scale=2",
    ]  # fmt: skip
    assert errors.controls(models) == {
        "se_resnet20": "resnet20",
        "se_resnet20+reduction=4": "resnet20",
        "resnet20+attention=eca": "resnet20",
        "se_res2net29": "res2net29",
        "se_res2net29_last": "res2net29",
        "se_resnet20+shortcut=A": "resnet20+shortcut=A",
        "se_resnet20+reduction=4+shortcut=A": "resnet20+shortcut=A",
    }
    assert errors.controls(models, "se") == {
        "resnet20": "se_resnet20",
        "se_resnet20+reduction=4": "se_resnet20",
        "resnet20+attention=eca": "se_resnet20",
        "res2net29": "se_res2net29",
        "se_res2net29_last": "se_res2net29",
        "resnet20+shortcut=A": "se_resnet20+shortcut=A",
        "se_resnet20+reduction=4+shortcut=A": "se_resnet20+shortcut=A",
    }
    placed = ["se_res2net29", "se_res2net29_last"]  # without the plain one
    assert errors.controls(placed, "se") == {"se_res2net29_last": "se_res2net29"}
    with pytest.raises(UnknownNameError, match="plain"):
        errors.controls(models, "plian")


def test_all_runs_lend_their_spread_and_seeds_may_differ(runs):
    found = errors.compare_runs(runs, rng=np.random.default_rng(0))
    rows = found.frame.set_index("model")
    assert rows["n"].to_dict() == {
        "resnet20+attention=eca": 1,
        "se_resnet20": 3,
        "se_resnet20+reduction=4": 3,
    }
    squares = [np.var(values) * 3 for values in (PLAIN, SE, LAST)] + [0.01**2 / 2]
    assert found.spread.df == 7
    assert found.spread.sd**2 == pytest.approx(sum(squares) / 7)
    assert rows.loc["se_resnet20", "difference"] == pytest.approx(-0.07 / 3)
    assert rows.loc["se_resnet20+reduction=4", "decision"] == "better"
    other = errors.compare_runs(runs, rng=np.random.default_rng(0), against="se").frame
    assert set(other["control"]) == {"se_resnet20"}
    assert other.set_index("model").loc["resnet20", "difference"] == pytest.approx(0.07 / 3)


def test_what_the_arithmetic_changes_is_told_from_networks_that_had_both(runs, tmp_path):
    assert len(errors.by_arithmetic(runs)) == 1
    others = {"resnet20": (0.34, 0.36), "se_resnet20": (0.30,), "se_resnet44": (0.5,)}
    runs += [
        make_run(tmp_path / "bf16", model, seed, error, precision="bf16")
        for model, values in others.items()
        for seed, error in enumerate(values, start=10)
    ]
    found = errors.by_arithmetic(runs)
    assert list(found.index) == ["cpu, fp32", f"cpu, bf16, {runs[0].hardware['cpu']}"]
    assert found["runs"].tolist() == [12, 4]
    assert np.isnan(found["difference"].iloc[0])
    row = found.iloc[1]
    assert row["networks"] == 2
    assert row["difference"] == pytest.approx(((0.35 - 0.94 / 3) + (0.30 - 0.29)) / 2)
    squares = [np.var(values) * 3 for values in (PLAIN, SE, LAST)] + [0.01**2 / 2, 0.02**2 / 2]
    sd = np.sqrt(sum(squares) / 8)
    each = np.sqrt((1 / 2 + 1 / 3 + 1 + 1 / 3) / 4)
    assert row["reach"] == pytest.approx(t.ppf(0.975, 8) * sd * each)
    alike = [make_run(tmp_path / "alike", "resnet20", seed, 0.1) for seed in (0, 1)]
    alike.append(make_run(tmp_path / "odd", "resnet20", 2, 0.2, precision="bf16"))
    row = errors.by_arithmetic(alike).iloc[1]
    assert row["difference"] == pytest.approx(0.1)
    assert np.isnan(row["reach"])  # none varies


def test_a_difference_beside_the_arithmetic_is_that_of_runs_computed_alike(tmp_path):
    intel = {"cpu": "Intel", "instructions": "AVX512 and AMX"}
    computed = {0: {}, 1: {"precision": "bf16"}, 2: {"precision": "bf16", "hardware": intel}}
    effect, noise = {0: 0.0, 1: 0.1, 2: 0.2}, {0: 0.0, 1: 0.005, 2: -0.005}
    ways = {"resnet20": (0, 0, 1, 2), "se_resnet20": (1, 1, 2), "resnet20+attention=eca": (0, 0)}
    level = {"resnet20": 0.3, "se_resnet20": 0.25, "resnet20+attention=eca": 0.35}
    runs = [
        make_run(tmp_path, model, k, level[model] + effect[way] + noise[k % 3], **computed[way])
        for model, these in ways.items()
        for k, way in enumerate(these)
    ]
    assert {run.arithmetic for run in runs} == {
        "cpu, fp32", f"cpu, bf16, {runs[0].hardware['cpu']}", "cpu, bf16, Intel with AMX"
    }  # fmt: skip
    compared = errors.compare_runs(runs, rng=np.random.default_rng(0))
    found = errors.beside_arithmetic(runs, compared)
    rows = [(run.test_error, run.network, run.arithmetic) for run in runs]
    fit = ols("y ~ C(m, Treatment('resnet20')) + w", pd.DataFrame(rows, columns=list("ymw"))).fit()
    for model, row in found.iterrows():
        term = f"C(m, Treatment('resnet20'))[T.{model}]"
        assert row["difference"] == pytest.approx(fit.params[term])
        half = critical_value(compared.families, int(fit.df_resid), 0.95) * fit.bse[term]
        assert row["high"] - row["difference"] == pytest.approx(half)
    apart = [r for r in runs if r.network != "resnet20" or r.arithmetic == "cpu, fp32"]
    compared = errors.compare_runs(apart, rng=np.random.default_rng(0))
    found = errors.beside_arithmetic(apart, compared)
    numbers = ["difference", "low", "high"]
    assert found.loc["se_resnet20", numbers].isna().all()
    assert found.loc["se_resnet20", "decision"] == "undecided"
    assert found.loc["resnet20+attention=eca", numbers].notna().all()


def test_a_decision_that_the_processor_made_does_not_stand_beside_it(tmp_path):
    noise = (0.001, -0.001)
    cells = {"resnet20": {"fp32": 0.2, "bf16": 0.1}, "se_resnet20": {"bf16": 0.1}}
    runs = [
        make_run(tmp_path, model, seed, error + noise[seed % 2], precision=precision)
        for model, found in cells.items()
        for seed, (precision, error) in enumerate([*found.items()] * 2)
    ]
    compared = errors.compare_runs(runs, rng=np.random.default_rng(0), margin=0.05)
    assert compared.frame["decision"].tolist() == ["undecided"]  # of so wide a spread
    alike = errors.beside_arithmetic(runs, compared, 0.05).loc["se_resnet20"]
    assert alike["decision"] == "equal"
    assert errors.beside_arithmetic(runs, compared, 1e-4)["decision"].tolist() == ["undecided"]


def test_a_record_that_does_not_say_whether_there_was_amx_is_a_way_of_its_own(tmp_path):
    xeon = {"cpu": "Intel Xeon"}
    ways = [
        make_run(tmp_path, "resnet20", seed, 0.1, precision="bf16", hardware=hardware).arithmetic
        for seed, hardware in enumerate(
            (xeon, xeon | {"instructions": None}, xeon | {"instructions": "AVX512"}, {})
        )
    ]
    first = "cpu, bf16, Intel Xeon with or without AMX"
    assert ways == [first, first, "cpu, bf16, Intel Xeon", "cpu, bf16, unknown"]


def test_the_leaderboards_interval_is_of_the_pooled_spread(runs, tmp_path):
    board = errors.leaderboard(runs)
    assert board["model"].iloc[0] == "se_resnet20+reduction=4"
    assert board["mean_error"].is_monotonic_increasing
    sd = errors.compare_runs(runs, rng=np.random.default_rng(0)).spread.sd
    row = board.set_index("model").loc["resnet20+attention=eca"]
    assert row["high"] - row["mean_error"] == pytest.approx(t.ppf(0.975, 7) * sd)
    assert np.isnan(row["sd_error"])
    wild = [make_run(tmp_path / "wild", "resnet20", seed, e) for seed, e in enumerate((0.1, 0.9))]
    assert errors.leaderboard(wild)[["low", "high"]].iloc[0].tolist() == [0, 1]
    equal = [make_run(tmp_path / "equal", "resnet20", seed, 0.1) for seed in (0, 1)]
    for few in (wild[:1], equal):  # as of `statistics.interval`
        assert errors.leaderboard(few)[["low", "high"]].isna().all(axis=None)


def test_runs_that_do_not_compare_are_refused(runs, tmp_path):
    """Runs of two kinds, one seed of a network twice, and what is no list of records."""
    compared = errors.compare_runs(runs, rng=np.random.default_rng(0))
    ways = (
        errors.leaderboard,
        lambda runs: errors.compare_runs(runs, rng=np.random.default_rng(0)),
        errors.by_arithmetic,
        lambda runs: errors.beside_arithmetic(runs, compared),
    )
    other, again = tmp_path / "other", make_run(tmp_path / "again", "resnet20", 1, 0.3)
    odd = [
        make_run(other, "resnet20", seed, 0.1, **changes)
        for seed, changes in enumerate(
            ({"recipe": Recipe(epochs=3)}, {"data_fingerprint": "cd" * 32}, {"num_val": 5}), start=7
        )
    ]
    for way in ways:
        for run in odd:
            with pytest.raises(RecordError, match="mix 2 recipes or datasets"):
                way([*runs, run])
        with pytest.raises(RecordError, match=f"resnet20 seed 1, .*{again.path}"):
            way([*runs, again])
    for way in (*ways, find_axes, correct_matrix):
        for wrong in (list_runs(tmp_path), [*runs, runs[0].path], iter(runs), runs[0]):
            with pytest.raises(RecordError, match="list of records"):
                way(wrong)


def test_a_seed_is_no_generator(runs):
    for way in (
        lambda rng: errors.compare_runs(runs, rng=rng),
        lambda rng: corrupt(np.zeros((1, 2, 2, 3), np.uint8), "noise", 0.1, rng=rng),
    ):
        for rng in (0, np.random):
            with pytest.raises(SenetError, match="default_rng"):
                way(rng)
