"""The ablation: which runs form an axis, and what is said of it."""

import numpy as np
import pytest
from fake_runs import make_run
from notebook_cells import run_cells

from senet_lib.analysis import ablation
from senet_lib.analysis.axes import AXES
from senet_lib.analysis.errors import compare_runs
from senet_lib.models.attention import list_attentions
from senet_lib.models.res2net import GATE_PLACES
from senet_lib.recipe import AXES as STUDIED

ERRORS = {
    "resnet20": (0.30, 0.32, 0.31),
    "se_resnet20": (0.28, 0.29, 0.30),
    "se_resnet20+reduction=4": (0.26, 0.28, 0.27),
    "se_resnet20+reduction=32": (0.31, 0.33, 0.32),
    "se_resnet20+squeeze=max": (0.29, 0.30, 0.32),
    "resnet20+attention=eca": (0.30, 0.31, 0.31),
    "se_resnet20+reduction=4+squeeze=max": (0.2, 0.2, 0.2),  # two changes: on no axis
    "se_resnet32": (0.2, 0.2, 0.2),  # another network
}
PARAMS = {"resnet20": 1000, "se_resnet20": 1100, "se_resnet20+reduction=4": 1400}


def ablate(runs, key):
    return ablation.ablate(runs, key, rng=np.random.default_rng(0))


@pytest.fixture
def runs(tmp_path):
    return [
        make_run(tmp_path, model, seed, error, num_params=PARAMS.get(model, 1200))
        for model, errors in ERRORS.items()
        for seed, error in enumerate(errors)
    ]


def test_an_axis_is_one_setting_changed_from_the_usual_se(runs):
    assert ablation.find_axes(runs) == ["reduction", "squeeze", "attention"]
    found = ablate(runs, "reduction")
    assert found.frame[["value", "model"]].values.tolist() == [
        [None, "resnet20"],
        [4, "se_resnet20+reduction=4"],
        [16, "se_resnet20"],
        [32, "se_resnet20+reduction=32"],
    ]
    assert found.frame["label"].tolist() == ["no attention", "4", "16", "32"]
    assert ablate(runs, "attention").frame["value"].tolist() == [None, "se", "eca"]


def test_numbers_are_those_of_the_whole_studys_comparison(runs):
    found = ablate(runs, "reduction")
    frame = found.frame.set_index("label")
    assert frame["mean_error"].tolist() == pytest.approx([0.31, 0.27, 0.29, 0.32])
    assert frame["added_params"].tolist() == pytest.approx([0, 0.4, 0.1, 0.2])
    for prefix, against in (("", "plain"), ("se_", "se")):
        whole = compare_runs(runs, rng=np.random.default_rng(0), against=against)
        rows = frame.dropna(subset=f"{prefix}difference")
        expected = whole.frame.set_index("model").loc[rows["model"]]
        for column in ("difference", "low", "high"):
            assert rows[prefix + column].tolist() == pytest.approx(expected[column].tolist())
    assert np.isnan(frame.loc["no attention", "difference"])
    assert np.isnan(frame.loc["16", "se_difference"])  # it is the reference
    assert frame.loc["4", "se_difference"] == pytest.approx(-0.02)
    assert found.comparison.spread.df == 16
    assert frame.loc["4", "published"] == 0.2225
    assert frame["decision"].tolist() == ["", "better", "undecided", "undecided"]
    assert frame.loc["4", "params_a_point"] == pytest.approx(100)  # 400 more for 4 points less
    assert frame["params_a_point"].isna().tolist() == [True, False, True, True]


def test_an_axis_needs_no_run_of_the_usual_se(tmp_path):
    models = ("resnet20", "se_resnet20+reduction=4", "se_resnet20+reduction=8")
    runs = [make_run(tmp_path, m, s, 0.3 + 0.01 * s) for m in models for s in (0, 1)]
    assert ablation.find_axes(runs) == ["reduction"]
    found = ablate(runs, "reduction")
    assert found.frame["value"].tolist() == [None, 4, 8]
    assert found.frame["se_decision"].tolist() == ["", "", ""]
    both = ("resnet20", "resnet20+attention=eca", "resnet20+attention=cbam")
    runs = [make_run(tmp_path / "both", m, s, 0.3 + 0.01 * s) for m in both for s in (0, 1)]
    assert ablate(runs, "attention").frame["value"].tolist() == [None, "eca", "cbam"]


def test_the_gates_places_in_a_res2net_are_an_axis(tmp_path):
    places = ("_last", "", "+gate_at=output", "+gate_at=literal")
    models = ("res2net29", *(f"se_res2net29{place}" for place in places))
    runs = [make_run(tmp_path, m, s, 0.3 + 0.01 * s) for m in models for s in (0, 1)]
    found = ablate(runs, "gate_at")
    assert found.frame["value"].tolist()[1:] == ["last", "fused", "output", "literal"]
    # The literal block has no last convolution: the plain network is not what it is without gates.
    assert found.frame["difference"].isna().tolist() == [True, False, False, False, True]
    assert found.frame["se_difference"].isna().tolist() == [False, False, True, False, False]
    assert found.frame["model"].iloc[0] == "res2net29"
    assert tuple(AXES) == STUDIED
    assert all(axis.reference in axis.values for axis in AXES.values())
    assert set(AXES["gate_at"].values) == set(GATE_PLACES)
    assert {"none", *AXES["attention"].values} == set(list_attentions())


def test_the_notebook_shows_values_seeds_and_decisions(runs, tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr("IPython.display.display", lambda *a, **k: figures.append(a[0]))
    outputs = run_cells("ablation", study="demo", runs_root=tmp_path, axis="reduction")["outputs"]
    against_plain, against_se, cost = (o.data for o in outputs if hasattr(o, "caption"))
    assert against_plain["error %"].tolist() == pytest.approx([31, 27, 29, 32])
    assert against_plain.loc["4", "decision"] == "better"
    assert against_se.loc["4", "difference"] == pytest.approx(-2)
    assert cost.loc["4", "parameters a point"] == pytest.approx(100)
    assert "4 -4.00; 16 -2.00; 32 +1.00" in figures[0]["text/plain"]
    nothing = run_cells("ablation", study="demo", runs_root=tmp_path, axis="gate")["outputs"]
    assert not [o for o in nothing if hasattr(o, "caption")]
    assert not [o for o in nothing if "was not trained" in str(o)]  # it was, in `runs`
