"""Claims: each has a computed verdict; arithmetic needs no run, and a deleted run is missed."""

import json
import math
import shlex
import shutil
import time
from pathlib import Path

import pytest
import yaml
from fake_runs import make_run

from senet_lib.analysis.scores import read_scores
from senet_lib.claims import arithmetic
from senet_lib.claims import judge as claims
from senet_lib.claims import measures as verdicts
from senet_lib.claims.claim import CLAIMS, load_claims, load_protocol, tolerance
from senet_lib.claims.evidence import claim_runs
from senet_lib.claims.judge import (
    CONTRADICTED,
    NOT_MEASURED,
    NOT_REPRODUCED,
    REPRODUCED,
    claims_table,
    counts,
    judge,
)
from senet_lib.cli import main, make_parser, train_settings
from senet_lib.data.datasets import CIFAR10_FINGERPRINT
from senet_lib.errors import UnknownNameError
from senet_lib.models import create_model
from senet_lib.recipe import Recipe, load_study
from senet_lib.runs.records import RunRecord

ROOT = Path(__file__).parent.parent
T_2 = 4.302653  # 97.5 % point of Student's t with 2 degrees of freedom, from a printed table
CHI_2 = (0.0506356, 7.377759)  # 2.5 % and 97.5 % points of chi-square with 2, likewise


def run(root: Path, model: str, seed: int, error: float, kind: str = "paper", **changes):
    """A run of a protocol on CIFAR-10 with this test error in its record (any decimals)."""
    recipe = changes.pop("recipe", load_protocol(kind).recipe)
    fields = {"study": kind, "protocol": kind, "recipe": recipe, "data": "cifar10"}
    fields |= {"data_fingerprint": CIFAR10_FINGERPRINT, "test_error": error}
    return make_run(root, model, seed, error, **{**fields, **changes})


def runs(root: Path, model: str, errors, kind: str = "paper", **changes) -> list[RunRecord]:
    return [run(root, model, s, e, kind, **changes) for s, e in enumerate(errors)]


def judged(name: str, found=()):
    (judgement,) = judge(load_claims(name), found)
    return judgement


@pytest.fixture(scope="module")
def without_runs():
    return {j.claim.id: j for j in judge(load_claims(), [])}


# The claims


def test_every_claim_of_the_sources_has_a_row():
    """Nine figures of the first source; of the second, 8 block, 20 table, 6 beside the table, 6
    efficiency, 3 IoU and 8 ablation figures."""
    rows = load_claims()
    ids = [claim.id for claim in rows]
    assert len(ids) == len(set(ids)) == 60 == 9 + 8 + 20 + 6 + 6 + 3 + 8
    assert sum(i.startswith("a-") for i in ids) == 9
    assert {claim.source[:3] for claim in rows} == {"000", "003"}


def test_no_verdict_stands_in_the_file():
    content = yaml.safe_load(CLAIMS.read_text(encoding="utf-8"))
    keys = {key for row in content["claims"] for key in row}
    assert not keys & {"verdict", "measured", "derivation", "low", "high"}
    text = CLAIMS.read_text(encoding="utf-8").split("\nclaims:\n")[1]
    assert not any(verdict in text for verdict in claims.VERDICTS)


def test_rows_name_what_exists():
    for claim in load_claims():
        assert claim.measure in verdicts.MEASURES, claim.id
        assert not claim.arithmetic or claim.arithmetic in arithmetic.ARITHMETIC, claim.id
        for model in claim.models:
            create_model(model)
        if claim.protocol:
            load_protocol(claim.protocol)
    used = {claim.arithmetic for claim in load_claims()} - {""}
    assert used == arithmetic.ARITHMETIC.keys()
    assert {claim.measure for claim in load_claims()} == verdicts.MEASURES.keys()


def test_the_paper_protocol_is_the_one_of_the_settings():
    study, protocol = load_study(ROOT / "configs/paper.yaml"), load_protocol("paper")
    assert protocol.recipe == study.recipe
    assert (protocol.seeds, protocol.data) == (study.seeds, study.data)
    wanted = {m for c in load_claims() if c.protocol == "paper" for m in c.models}
    assert wanted <= set(study.models)
    with pytest.raises(UnknownNameError, match="unknown protocol 'papr'"):
        load_protocol("papr")


@pytest.mark.parametrize(
    ("printed", "low", "high"),
    [
        ("0.63", 0.625, 0.635),
        ("0.80", 0.795, 0.805),
        ("0.2", 0.15, 0.25),
        ("~11", 10.5, 11.5),
        ("~11.3", 11.25, 11.35),
        ("100", 99.5, 100.5),
        ("+3.2", 3.15, 3.25),
        ("-1.07", -1.075, -1.065),
        ("82-88", 82, 88),
        ("> 0 and small", 0, math.inf),
        ("0.005", 0.0045, 0.0055),
    ],
)
def test_the_printed_digits_say_how_far_a_figure_reaches(printed, low, high):
    assert tolerance(printed) == (low, high)


def test_a_figure_without_digits_is_refused():
    with pytest.raises(ValueError, match="'about ten' is no figure"):
        tolerance("about ten")


def test_a_rounded_figure_stops_short_of_the_next_and_a_range_does_not():
    (rounded,) = load_claims("b-res2net29-params")  # 0.63
    assert [rounded.holds(x) for x in (0.6249, 0.625, 0.6349, 0.635)] == [False, True, True, False]
    assert rounded.meets(0.60, 0.625)
    assert not rounded.meets(0.635, 0.70)
    (span,) = load_claims("a-resnet18-acc")  # 82-88
    assert [span.holds(x) for x in (81.99, 82, 88, 88.01)] == [False, True, True, False]


# Arithmetic, by hand


def test_what_arithmetic_rules_out_needs_no_run(without_runs):
    ruled_out = {i for i, j in without_runs.items() if j.verdict == CONTRADICTED}
    blocks = {i for i in without_runs if i.startswith("b-block-")}
    assert len(blocks) == 8
    assert ruled_out == blocks | {
        "b-densenet_bc100_12-flops", "b-se_resnet110-params", "b-se_resnet110-flops",
        "b-se_res2net29-flops", "b-p-value", "b-cohens-d", "b-flop-overhead",
        "b-efficiency-se_resnet110-dparams", "b-efficiency-se_resnet110",
        "b-ablation-se_res2net29_first2-params",
    }  # fmt: skip
    for i in ruled_out:
        assert without_runs[i].derivation, i
        assert not without_runs[i].commands, i


def test_what_needs_training_waits_for_it_and_nothing_else_does(without_runs):
    waiting = {i for i, j in without_runs.items() if j.verdict == NOT_MEASURED}
    assert waiting == {c.id for c in load_claims() if c.protocol and c.measure != "efficiency"}
    assert len(waiting) == 28
    assert all(without_runs[i].commands for i in waiting)
    assert "settles nothing" not in "".join(j.remark for j in without_runs.values())


@pytest.mark.parametrize(
    ("name", "says"),
    [
        # 9 * 64 * 64 = 36,864 weights a convolution; gates 64 * 4 + 4 * 64.
        ("b-block-resnet-basic-params", ["73,728", "256", "73,984", "not 0.18 M"]),
        ("b-block-se-resnet-basic-params", ["73,728", "512", "74,496", "not 0.36 M"]),
        # 2 * 64 * 64 + 3 * 9 * 16 * 16; the norms have 2 * (64 + 3 * 16 + 64).
        ("b-block-res2net-params", ["15,104", "352", "15,456", "not 0.19 M"]),
        ("b-block-se-res2net-params", ["15,104", "512", "15,968", "not 0.20 M"]),
        # 73,728 * 1024, * 256 and * 64; twice that in FLOPs.
        ("b-block-resnet-basic-flops", ["75.50 M MACs = 150.99 M", "18.87", "37.75", "4.72"]),
        # 67.5 / 34.5 and 1 + 512 / (64 * 73,728)
        ("b-block-se-resnet-basic-flops", ["at least 1.96", "1.00011 at most", "not 68 M"]),
        ("b-block-res2net-flops", ["15.47 M MACs", "30.93", "0.20 times", "1.03 times"]),
        ("b-block-se-res2net-flops", ["512", "3.87 M MACs", "1.06 times"]),
        ("b-se_resnet110-params", ["1,727,962", "1,730,714", "cannot have 1.71 M"]),
        ("b-se_resnet110-flops", ["252,887,680", "253,149,824"]),
        ("b-densenet_bc100_12-flops", ["287,929,692", "1.92 times 150 M"]),
        # 2 / (16 * 64); 100.5 * (1 + 1/512)
        ("b-se_res2net29-flops", ["0.195 %", "100.7 M at most", "20,904 MACs", "0.021 %"]),
        # 3 (52 * 1024 + 104 * 256 + 208 * 64) = 279,552 products over 99,578,912 MACs
        ("b-flop-overhead", ["0.195 %", "20,904", "0.021 %", "0.28 %", "not +2 %"]),
        ("b-param-overhead", ["3.17 %", "from 2.4 to 4.0 %"]),  # .02/.63, .015/.635, .025/.625
        # 1,727,962 - 855,770 = 872,192, over at most 1.075 pp
        ("b-efficiency-se_resnet110-dparams", ["872,192", "the gates add 12,096", "another depth"]),
        ("b-efficiency-se_resnet110", ["0.85/1.07 = 0.794", "872,192", "0.811 M/pp at least"]),
        ("b-efficiency-se_res2net29", ["0.043 M/pp", "0.032 to 0.054"]),
        # 0.635 + (0.655 - 0.625) / 4
        ("b-ablation-se_res2net29_first2-params", ["0.6425 M at most", "a quarter"]),
    ],
)  # fmt: skip
def test_derivations_have_the_numbers_of_hand_arithmetic(without_runs, name, says):
    text = without_runs[name].derivation
    for part in says:
        assert part in text, text


def test_significance_and_effect_size_follow_from_the_table(without_runs):
    """d = 0.47 / sqrt((0.0025 + 0.0016) / 2), t = d sqrt(3 / 2), df 4; p by the closed form of
    Student's distribution with 4 degrees of freedom."""
    d = 0.47 / math.sqrt((0.05**2 + 0.04**2) / 2)
    t = d * math.sqrt(3 / 2)
    x = t / math.sqrt(4 + t * t)
    p = 1 - x * (1 + (1 - x * x) / 2)  # two-sided
    assert (round(d, 1), round(t, 1)) == (10.4, 12.7)
    assert without_runs["b-cohens-d"].number == pytest.approx(d)
    assert without_runs["b-p-value"].number == pytest.approx(p)
    text = without_runs["b-p-value"].derivation
    assert f"= 12.7, df 4, p = {p:.5f}" in text
    # Paired, p = 0.005 needs t = 14.09 (df 2): SD 0.47 sqrt(3) / 14.09 = 0.0578, and with that
    # 0.0025 + 0.0016 - 2 rho 0.002 = 0.0578^2 gives rho = 0.19; d = 14.09 / sqrt(3) = 8.1.
    for part in ("correlate at 0.19", "t = 14.1", "d = 8.1", "p above 0.17"):
        assert part in text
    for part in ("= 10.4", "9.2 at least", "4.6 at least"):  # .46/.05025, .46/.1
        assert part in without_runs["b-cohens-d"].derivation


def test_thops_unit_is_settled_for_every_count(without_runs):
    for name, factor in (("b-resnet56-flops", "251.0 M FLOPs"), ("b-res2net29-flops", "199.2 M")):
        assert factor in without_runs[name].remark
    assert "125 M FLOPs would be 62.5 M MACs" in without_runs["b-resnet56-flops"].remark
    rows = [j for j in without_runs.values() if j.claim.measure == "macs"]
    assert len(rows) == 5
    assert all("thop counts multiply-adds" in row.remark for row in rows)


@pytest.mark.parametrize(
    ("name", "verdict", "number"),
    [  # counts from reference.md and design.md, in millions
        ("a-resnet18-params", REPRODUCED, 11.173962),
        ("a-se-resnet18-params", REPRODUCED, 11.261002),
        ("b-resnet56-params", REPRODUCED, 0.855770),
        ("b-resnet56-flops", REPRODUCED, 125.485696),  # shortcut A
        ("b-densenet_bc100_12-params", NOT_REPRODUCED, 0.769162),
        ("b-res2net29-params", NOT_REPRODUCED, 0.636421),
        ("b-res2net29-flops", REPRODUCED, 99.578912),
        ("b-efficiency-se_res2net29-dparams", REPRODUCED, 0.020904),
        ("b-param-overhead", NOT_REPRODUCED, 3.2846),
        ("b-efficiency-se_res2net29", REPRODUCED, 0.020904 / 0.47),
    ],
)
def test_counts_are_measured_without_training(without_runs, name, verdict, number):
    judgement = without_runs[name]
    assert judgement.number == pytest.approx(number, rel=1e-4)
    assert judgement.verdict == verdict
    assert judgement.n == 0


def test_a_match_of_the_reconstruction_is_called_no_evidence(without_runs):
    for name in ("b-res2net29-flops", "b-se_res2net29-params", "b-ablation-res2net29-params"):
        assert "neither agreement nor a near miss is evidence" in without_runs[name].remark
    assert "reconstruction" not in without_runs["b-resnet56-params"].remark
    rebuilt = {c.id for c in load_claims() if c.reconstructed}
    assert rebuilt == {c.id for c in load_claims() if any("res2net29" in m for m in c.models)}


# Runs


def test_an_error_is_reproduced_if_the_t_interval_of_the_mean_reaches_it(tmp_path):
    errors = (0.0570, 0.0600, 0.0615)  # mean 5.95 %, SD 0.229 pp
    judgement = judged("b-resnet56-error", runs(tmp_path, "resnet56", errors))
    half = T_2 * math.sqrt((0.25**2 + 0.05**2 + 0.20**2) / 2 / 3)
    assert judgement.verdict == REPRODUCED
    assert judgement.number == pytest.approx(5.95)
    assert judgement.interval == pytest.approx((5.95 - half, 5.95 + half), abs=1e-5)
    assert (judgement.n, len(judgement.runs)) == (3, 3)
    assert judgement.measured == f"5.95 % [{5.95 - half:.2f}, {5.95 + half:.2f}]"


def test_an_error_is_not_reproduced_if_the_interval_stays_away(tmp_path):
    found = runs(tmp_path, "resnet56", (0.0630, 0.0631, 0.0632))  # 6.31 +- 0.025
    assert judged("b-resnet56-error", found).verdict == NOT_REPRODUCED
    assert judged("b-densenet_bc100_12-error", found).verdict == NOT_MEASURED


def test_deleting_a_run_makes_its_claims_unmeasured_with_the_command_that_mends_it(tmp_path):
    for model in ("res2net29", "se_res2net29"):
        runs(tmp_path, model, (0.0340, 0.0345, 0.0350))
    pattern = "b-*res2net29-error"
    before = judge(load_claims(pattern), claim_runs(tmp_path))
    assert NOT_MEASURED not in {j.verdict for j in before}
    shutil.rmtree(tmp_path / "paper/res2net29/seed1")
    after = {j.claim.id: j for j in judge(load_claims(), claim_runs(tmp_path))}
    for name in ("b-res2net29-error", "b-res2net29-sigma", "b-ablation-res2net29-error",
                 "b-delta-error", "b-efficiency-se_res2net29-derror"):  # fmt: skip
        judgement = after[name]
        assert judgement.verdict == NOT_MEASURED, name
        assert judgement.missing == (("res2net29", 1),)
        words = shlex.split(judgement.command)
        assert words[:2] == ["senet", "train"]
        asked = make_parser().parse_args(words[1:])
        assert (asked.model, asked.seed) == ("res2net29", 1)
        assert "missing: res2net29 seed 1" in judgement.remark
    assert after["b-se_res2net29-error"].verdict == NOT_REPRODUCED


@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize("name", ["b-se_resnet110-error", "a-epoch5-acc", "a-se-gain"])
def test_the_commands_make_the_very_runs_that_are_missing(name, inside, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT if inside else tmp_path)  # with and without the settings' files
    judgement = judged(name)
    protocol, made = load_protocol(judgement.claim.protocol), set()
    for command in judgement.commands:
        asked = make_parser().parse_args(shlex.split(command)[1:])
        settings = train_settings(asked)
        assert settings["recipe"] == protocol.recipe
        assert settings.get("data", "cifar10") == "cifar10"
        made |= {(asked.model, seed) for seed in asked.seeds}
    assert made == {(m, s) for m in judgement.claim.models for s in (0, 1, 2)}


@pytest.mark.parametrize(
    "changes",
    [
        {"recipe": Recipe(epochs=299)},
        {"recipe": Recipe(train_images=10_000)},
        {"data_fingerprint": "ab" * 32},
        {"num_val": 5000, "evaluated_on": "val"},
        {"overrides": {"shortcut": "A"}},
    ],
)
def test_runs_of_other_recipes_images_and_networks_settle_nothing(tmp_path, changes):
    found = runs(tmp_path, "resnet56", (0.0581, 0.0582, 0.0583), **changes)
    judgement = judged("b-resnet56-error", found)
    assert judgement.verdict == NOT_MEASURED
    assert len(judgement.missing) == 3
    said = "another recipe (study paper: " in judgement.remark
    assert said == ("recipe" in changes)
    if said:
        assert "3 seeds), which settles nothing here" in judgement.remark
        assert "5.82 % (resnet56)" in judgement.remark


def test_the_name_of_a_protocol_does_not_make_it(tmp_path):
    found = runs(tmp_path, "resnet56", (0.0581, 0.0582, 0.0583), study="mine", protocol="custom")
    assert judged("b-resnet56-error", found).verdict == REPRODUCED


def test_a_run_in_both_folders_counts_once(tmp_path):
    for root in ("runs", "published"):
        runs(tmp_path / root, "resnet56", (0.0580, 0.0584))
    found = claim_runs(tmp_path / "runs", tmp_path / "published")
    assert len(found) == 4
    judgement = judged("b-resnet56-error", found)
    assert judgement.verdict == NOT_MEASURED
    assert judgement.n == 2
    assert judgement.missing == (("resnet56", 2),)
    assert "2 of 3 seeds so far, mean 5.82 %" in judgement.remark


def test_an_unreadable_run_is_no_run(tmp_path):
    kept = run(tmp_path, "resnet56", 0, 0.0582)
    broken = run(tmp_path, "resnet56", 1, 0.0582)
    (broken.path / "record.json").write_text("{")
    assert claim_runs(tmp_path) == [kept]


def test_a_folder_that_does_not_exist_is_said(capsys, tmp_path):
    assert main(["claims", "--runs", str(tmp_path / "none")]) == 2
    assert "none is no folder" in capsys.readouterr().err


def test_any_three_seeds_will_do(tmp_path):
    found = [run(tmp_path, "resnet56", s, 0.0582 + s / 1e5) for s in (5, 6, 7)]
    assert judged("b-resnet56-error", found).verdict == REPRODUCED
    judgement = judged("b-resnet56-error", found[:2])
    assert judgement.missing == (("resnet56", 0),)


def test_an_interval_that_fits_everything_decides_nothing(tmp_path):
    found = runs(tmp_path, "resnet56", (0.0500, 0.0560, 0.0600))
    judgement = judged("b-resnet56-error", found)
    assert judgement.verdict == NOT_MEASURED
    assert judgement.missing == (("resnet56", 3),)
    assert "too wide to decide anything with 3 seeds" in judgement.remark
    range_of_6_points = judged("a-resnet18-acc", runs(tmp_path, "resnet18", (0.13, 0.15, 0.17),
                                                      "source_a"))  # fmt: skip
    assert range_of_6_points.verdict == REPRODUCED  # 85 +- 4.97


def test_a_difference_is_paired_over_shared_seeds(tmp_path):
    plain = runs(tmp_path, "res2net29", (0.060, 0.070, 0.080))
    variant = runs(tmp_path, "se_res2net29", (0.0555, 0.0653, 0.0751))  # 0.45 0.47 0.49 less
    half = T_2 * 0.02 / math.sqrt(3)
    for name, sign in (("b-delta-error", 1), ("b-efficiency-se_res2net29-derror", -1)):
        judgement = judged(name, plain + variant)
        assert judgement.verdict == REPRODUCED
        assert judgement.number == pytest.approx(sign * 0.47)
        ends = sorted((sign * (0.47 - half), sign * (0.47 + half)))
        assert judgement.interval == pytest.approx(ends, abs=1e-6)
        assert len(judgement.runs) == 6
    price = judged("b-efficiency-se_res2net29", plain + variant)
    assert price.number == pytest.approx(0.020904 / 0.47)
    assert price.interval == pytest.approx((0.020904 / (0.47 + half), 0.020904 / (0.47 - half)))
    assert "measured drop" in price.remark


def test_no_drop_has_no_price(tmp_path):
    plain = runs(tmp_path, "res2net29", (0.060, 0.061, 0.062))
    worse = runs(tmp_path, "se_res2net29", (0.0605, 0.0616, 0.0624))
    judgement = judged("b-efficiency-se_res2net29", plain + worse)
    assert judgement.verdict == NOT_REPRODUCED
    json.dumps(judgement.to_dict(), allow_nan=False)
    assert judgement.to_dict()["interval"] == [None, None]


def test_a_standard_deviation_has_its_chi_square_interval(tmp_path):
    judgement = judged("b-resnet56-sigma", runs(tmp_path, "resnet56", (0.060, 0.062, 0.064)))
    ends = [0.2 * math.sqrt(2 / q) for q in reversed(CHI_2)]
    assert judgement.number == pytest.approx(0.2)
    assert judgement.interval == pytest.approx(ends, rel=1e-5)
    assert judgement.verdict == REPRODUCED  # 0.104 to 1.26 pp holds 0.12
    assert "spans a factor of 12" in judgement.remark
    far = runs(tmp_path / "far", "resnet56", (0.05, 0.06, 0.07))
    assert judged("b-resnet56-sigma", far).verdict == NOT_REPRODUCED  # from 0.52 pp


def test_figures_after_an_epoch_are_read_from_the_history(tmp_path):
    found = runs(tmp_path, "se_resnet18", (0.014, 0.015, 0.016), "source_a")
    # make_run: test error of epoch e is error * (21 - e), training loss 1.5 / e
    first = judged("a-epoch5-acc", found)
    half = T_2 * 1.6 * math.sqrt(1 + 1 / 3)  # of one more run; SD 0.1 pp * 16
    assert first.number == pytest.approx(100 - 16 * 1.5)
    assert first.interval == pytest.approx((76 - half, 76 + half), abs=1e-4)
    assert first.verdict == REPRODUCED  # 76 +- 7.9 reaches 70.2
    assert judged("a-epoch1-loss", found).number == pytest.approx(1.5)
    assert judged("a-epoch1-loss", found).verdict == NOT_REPRODUCED  # 1.50 in all three
    assert judged("a-epoch20-acc", found).verdict == NOT_REPRODUCED  # 98.5 +- 0.5


def test_a_run_not_evaluated_after_that_epoch_does_not_count(tmp_path):
    found = runs(tmp_path, "se_resnet18", (0.014, 0.015, 0.016), "source_a")
    path = found[1].path / "history.csv"
    lines = path.read_text().splitlines()
    head, fifth = lines[0].split(","), lines[5].split(",")
    fifth[head.index("test_error")] = "nan"
    path.write_text("\n".join([*lines[:5], ",".join(fifth), *lines[6:]]) + "\n")
    judgement = judged("a-epoch5-acc", found)
    assert judgement.verdict == NOT_MEASURED
    assert "1 run not evaluated after epoch 5" in judgement.remark
    assert judgement.missing == (("se_resnet18", 3),)
    assert judged("a-epoch1-acc", found).verdict != NOT_MEASURED


@pytest.mark.parametrize(
    ("errors", "verdict"),
    [((0.10, 0.11, 0.12), REPRODUCED), ((0.15, 0.16, 0.17), NOT_REPRODUCED),
     ((0.10, 0.13, 0.16), NOT_REPRODUCED)],
)  # fmt: skip
def test_a_gain_needs_its_whole_interval_above_zero(tmp_path, errors, verdict):
    plain = runs(tmp_path, "resnet18", (0.13, 0.141, 0.149), "source_a")
    gated = runs(tmp_path, "se_resnet18", errors, "source_a")
    judgement = judged("a-se-gain", plain + gated)
    assert judgement.verdict == verdict
    assert "+0.016 % MACs" in judgement.remark  # 87,040 of 555,422,720


@pytest.mark.parametrize(
    ("errors", "verdict"),
    [((0.0296, 0.0298, 0.0300), REPRODUCED), ((0.055, 0.056, 0.057), NOT_REPRODUCED),
     ((0.0288, 0.0289, 0.0290), NOT_REPRODUCED)],
)  # fmt: skip
def test_the_state_of_the_art_is_measured_at_like_size(tmp_path, errors, verdict):
    judgement = judged("b-sota", runs(tmp_path, "se_res2net29", errors))
    assert judgement.verdict == verdict
    assert "4.13 % (SE-ResNet-56, osmr/imgclsmob" in judgement.remark


def test_every_verdict_is_reached(tmp_path):
    found = runs(tmp_path, "resnet56", (0.0581, 0.0582, 0.0583))
    tally = counts(judge(load_claims(), found))
    assert list(tally) == list(claims.VERDICTS)
    assert sum(tally.values()) == 60
    assert all(tally.values())


CLAIMED_IOU = {"se_res2net29": 0.62, "res2net29": 0.48, "se_resnet110": 0.42}


def map_scores(folder, recipe, values, trial="grid2", data=CIFAR10_FINGERPRINT):
    """Scores beside a report: each network's IoU at the region's area, one file a seed."""
    folder.mkdir(parents=True)
    for seed in range(3):
        rows = [
            {"model": model, "trial": trial, "metric": "iou_at_area", "score": value + seed / 1000,
             "chance": 0.14, "cases": 8, "zero": 0}
            for model, value in values.items()
        ]  # fmt: skip
        content = {
            "study": "s", "protocol": "p", "recipe": recipe.to_dict(), "recipe_id": recipe.id,
            "data": "cifar10", "fingerprint": data, "seed": seed, "method": "gradcam",
            "layer": "last", "right": 900, "rows": rows,
        }  # fmt: skip
        (folder / f"localisation-seed{seed}.json").write_text(json.dumps(content))
    return [read_scores(folder)]


def iou_verdicts(scores):
    found = judge(load_claims("b-iou-*"), [], scores)
    return {judgement.claim.models[0]: judgement for judgement in found}


def test_an_iou_waits_for_maps_of_its_own_protocol(tmp_path):
    short = map_scores(tmp_path / "a", Recipe(epochs=8), CLAIMED_IOU)
    for found in (iou_verdicts([]), iou_verdicts(short)):
        for model, judgement in found.items():
            assert judgement.verdict == NOT_MEASURED
            assert "senet train" in judgement.commands[0]
            assert model in judgement.commands[0]
            assert sum("senet notebook gradcam" in c for c in judgement.commands) == 3
    # What the short networks score is said all the same, and that it settles nothing.
    remark = found["res2net29"].remark
    assert "settle nothing" in remark
    assert "1 definition" in remark
    assert "1 give the claimed order (IoU at the region's area, 2 × 2 grid)" in remark


@pytest.mark.parametrize(
    ("values", "verdicts"),
    [
        (CLAIMED_IOU, [REPRODUCED] * 3),
        # The order holds, one value does not.
        ({**CLAIMED_IOU, "se_res2net29": 0.9}, ["n", REPRODUCED, REPRODUCED]),
        # Every value holds but that two networks have changed places.
        ({**CLAIMED_IOU, "res2net29": 0.41}, [NOT_REPRODUCED] * 3),
    ],
)
def test_an_iou_holds_where_a_definition_gives_value_and_order(tmp_path, values, verdicts):
    found = iou_verdicts(map_scores(tmp_path / "a", load_protocol("paper").recipe, values))
    expected = [NOT_REPRODUCED if v == "n" else v for v in verdicts]
    assert [found[model].verdict for model in CLAIMED_IOU] == expected
    assert not any(judgement.commands for judgement in found.values())


def test_maps_of_other_images_settle_nothing(tmp_path):
    recipe = load_protocol("paper").recipe
    found = iou_verdicts(map_scores(tmp_path / "a", recipe, CLAIMED_IOU, data="ab" * 32))
    assert {judgement.verdict for judgement in found.values()} == {NOT_MEASURED}


def test_judging_leaves_the_random_state_alone_and_is_quick(without_runs):
    import torch

    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    arithmetic.cost.cache_clear()
    arithmetic.cost("resnet56")
    assert torch.equal(torch.rand(3), expected)
    judge(load_claims(), [])
    start = time.process_time()
    judge(load_claims(), [])
    assert time.process_time() - start < 3  # once each network has been counted


# What is shown


def test_the_table_shows_every_claim(without_runs):
    table = claims_table(list(without_runs.values()))
    html = table._repr_html_()
    assert html.count("<tr>") == 61
    assert "60 claims: 8 reproduced" in table.caption
    assert "senet train" in html


def test_json_is_a_list_of_objects(capsys, tmp_path):
    run(tmp_path, "resnet56", 0, 0.0582)
    assert main(["claims", "--json", "--runs", str(tmp_path)]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert len(rows) == 60
    (row,) = [row for row in rows if row["id"] == "b-resnet56-error"]
    assert row["verdict"] == NOT_MEASURED
    assert row["runs"] == [(tmp_path / "paper/resnet56/seed0").as_posix()]
    assert (row["low"], row["high"], row["n"]) == (5.815, 5.825, 1)
    assert len(row["commands"]) == 1
    (open_end,) = [row for row in rows if row["id"] == "a-se-gain"]
    assert (open_end["low"], open_end["high"]) == (0, None)


def test_the_command_prints_a_table_or_one_claim(capsys, tmp_path):
    assert main(["claims", "b-block-*", "--runs", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert printed.count(CONTRADICTED) == 9  # eight rows and the sum
    assert "8 claims: 0 reproduced" in printed
    assert main(["claims", "b-resnet56-error", "--runs", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "senet train" in printed
    assert "5.82 % (from 5.815 to 5.825)" in printed


@pytest.mark.parametrize(
    ("pattern", "says"), [("b-resnet65-error", "b-resnet56-error"), ("z*", "no claim matches 'z*'")]
)
def test_a_bad_pattern_ends_with_one_line_and_code_2(capsys, pattern, says):
    assert main(["claims", pattern]) == 2
    error = capsys.readouterr().err
    assert len(error.strip().splitlines()) == 1
    assert error.startswith("error: ")
    assert says in error
