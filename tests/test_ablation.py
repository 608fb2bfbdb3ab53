"""The ablation: which runs form an axis, and what is said of it."""

import numpy as np
import pytest
from fake_runs import make_run
from scipy.stats import kendalltau

from senet_lib.analysis import ablation
from senet_lib.analysis.errors import compare_runs
from senet_lib.errors import UnknownNameError
from senet_lib.figures import ablation as ablation_plots
from senet_lib.recipe import AXES
from senet_lib.runs.records import load_run
from senet_lib.runs.study import collect

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
    assert (found.plain, found.reference) == ("resnet20", "se_resnet20")
    assert found.frame[["value", "model"]].values.tolist()[1:] == [
        [4, "se_resnet20+reduction=4"],
        [16, "se_resnet20"],
        [32, "se_resnet20+reduction=32"],
    ]
    assert found.frame["label"].tolist() == ["no attention", "4", "16", "32"]
    assert ablate(runs, "attention").frame["value"].tolist() == [None, "se", "eca"]


def test_numbers_are_those_of_the_whole_studys_comparison(runs):
    found = ablate(runs, "reduction")
    assert found.frame["mean_error"].tolist() == pytest.approx([0.31, 0.27, 0.29, 0.32])
    everything = compare_runs(runs, rng=np.random.default_rng(0))
    for rows, whole, models in (
        (found.against_plain, everything, found.frame["model"][1:]),
        (
            found.against_reference,
            compare_runs(runs, rng=np.random.default_rng(0), against="se"),
            [m for m in found.frame["model"][1:] if m != "se_resnet20"],
        ),
    ):
        assert rows["model"].tolist() == list(models)
        expected = whole.frame.set_index("model").loc[models]
        assert rows["low"].tolist() == pytest.approx(expected["low"].tolist())
    assert found.comparison.spread.df == everything.spread.df == 16
    rows = ablation.axis_table(found).frame.set_index("reduction")
    assert rows.loc["4", "parameters"] == "1,400 (+40.00 %)"
    assert rows.loc["4", "parameters a point"] == "100"  # 400 more for 4 points less
    assert rows.loc["16", "decision"] == "undecided"
    assert rows.loc["16", "parameters a point"] == ""  # of a difference that may be none
    assert rows.loc["no attention", "error %"] == "31.00"
    assert rows.loc["4", "published %"] == "22.25"
    assert rows.loc["4", "from SE"] == "−2.00"


def test_the_answer_names_order_protocol_and_agreement(runs):
    found = ablate(runs, "reduction")
    said = ablation.axis_answer(found).markdown
    assert "2 epochs over all images of shapes" in said
    assert "**4** has the lowest mean error (27.00 %) and 32 the highest (32.00 %)" in said
    tau = kendalltau([0.2225, 0.2228, 0.2272], [0.27, 0.29, 0.32])
    assert f"tau is {tau.statistic:+.2f} (p = {tau.pvalue:.2f}" in said
    assert ablation.rank_agreement(ablate(runs, "squeeze")) is None  # two values have no order
    assert "ImageNet" not in ablation.axis_answer(ablate(runs, "attention")).markdown


def test_two_seeds_are_said_to_be_too_few(runs):
    few = [run for run in runs if run.seed < 2]
    said = ablation.axis_answer(ablate(few, "squeeze")).markdown
    assert "With 2 seeds a network" in said


def test_without_the_plain_network_or_a_second_value_there_is_no_axis(runs):
    assert ablate([r for r in runs if r.model != "resnet20"], "reduction") is None
    only = [r for r in runs if r.model in ("resnet20", "se_resnet20")]
    assert ablation.find_axes(only) == []
    assert ablate(only, "gate") is None
    assert "nothing to compare" in ablation.axis_answer(None).markdown
    assert "nothing to compare" in repr(ablation.axis_table(None))
    with pytest.raises(UnknownNameError, match="reduction"):
        ablate(only, "reductoin")


def test_the_gates_places_in_a_res2net_are_an_axis(tmp_path):
    models = ("res2net29", "se_res2net29_last", "se_res2net29", "se_res2net29+gate_at=output")
    runs = [make_run(tmp_path, m, s, 0.3 + 0.01 * s) for m in models for s in (0, 1)]
    found = ablate(runs, "gate_at")
    assert found.frame["value"].tolist()[1:] == ["last", "fused", "output"]
    assert found.plain == "res2net29"


def test_every_axis_has_words_and_the_reference_among_its_values():
    assert tuple(ablation.AXES) == AXES
    for key, axis in ablation.AXES.items():
        assert axis.reference in axis.order
        assert axis.published.keys() <= set(axis.order)
        assert axis.title in ablation.question(key).markdown


def test_the_figure_shows_every_seed_and_describes_itself(runs):
    found = ablate(runs, "reduction")
    figure = ablation_plots.axis(found)
    left, right = figure.axes
    shown = sorted(
        round(float(x), 6)
        for line in left.lines
        if line.get_marker() == "o"
        for x in line.get_xdata()
    )
    wanted = [e for name in found.frame["model"] for e in ERRORS[name]]
    assert shown == sorted(round(100 * e, 6) for e in wanted)
    assert [t.get_text() for t in left.get_yticklabels()] == ["no attention", "4", "16", "32"]
    assert "4 -4.00; 16 -2.00; 32 +1.00" in figure.get_label()
    assert np.isclose(right.get_xlim()[0], -right.get_xlim()[1])


def test_all_axes_of_a_study_are_shown_with_their_sources(runs, tmp_path, capsys):
    folder = tmp_path / "page"
    folder.mkdir()
    (folder / "ablation-reduction.html").write_text("x")
    study = collect("demo", "", tmp_path, folder, tmp_path)
    ablation.show_all(study)
    said = capsys.readouterr().out
    for key in ("reduction", "squeeze", "attention"):
        assert ablation.AXES[key].title in said
    found = ablate(study.runs, "reduction")
    text = ablation.sources(study, found).markdown
    assert "12 runs" in text
    assert "[ablation-reduction.html](ablation-reduction.html)" in text
    assert load_run(study.runs[0].path) == study.runs[0]
