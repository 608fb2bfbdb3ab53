"""Claims: each has a computed verdict; arithmetic needs no run, and a deleted run is missed."""

import json
import math
import shlex
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from fake_runs import make_run
from scipy.stats import ttest_rel
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.weightstats import DescrStatsW

from senet_lib.analysis.scores import read_scores
from senet_lib.claims import arithmetic, equivalence, widths
from senet_lib.claims import judge as claims
from senet_lib.claims import measures as verdicts
from senet_lib.claims.claim import CLAIMS, load_claims, load_protocol, tolerance
from senet_lib.claims.evidence import claim_runs
from senet_lib.claims.judge import (
    CONTRADICTED,
    DEPENDS,
    NOT_MEASURED,
    NOT_REPRODUCED,
    REPRODUCED,
    claims_frame,
    counts,
    facts,
    judge,
)
from senet_lib.cli import main, make_parser, train_settings
from senet_lib.data.datasets import CIFAR10_FINGERPRINT
from senet_lib.errors import UnknownNameError
from senet_lib.models import create_model
from senet_lib.recipe import Recipe, load_study
from senet_lib.runs.records import RunRecord

ROOT = Path(__file__).parent.parent
# 97.5 % points of Student's t with 2 and 4 degrees of freedom, from a printed table
T_2, T_4 = 4.302653, 2.776445
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
        "b-densenet_bc100_12-flops", "b-se_resnet110-params", "b-se_res2net29-flops",
        "b-cohens-d", "b-flop-overhead", "b-efficiency-se_resnet110-dparams",
        "b-efficiency-se_resnet110",
    }  # fmt: skip
    for i in ruled_out:
        assert without_runs[i].derivation, i
        assert not without_runs[i].commands, i


def test_fifteen_contradictions_rest_on_six_facts(without_runs):
    found = facts(list(without_runs.values()))
    assert {fact: len(ids) for fact, ids in found.items()} == {
        "block-weights": 4, "block-macs": 4, "deep-network": 3, "densenet-macs": 1,
        "gate-macs": 2, "effect-size": 1,
    }  # fmt: skip
    assert found.keys() == arithmetic.FACTS.keys()


def test_a_last_zero_that_may_be_no_digit_makes_a_near_miss(without_runs):
    """250 to two digits holds 253.2, and 0.8 holds 0.769; 0.2 does not hold 0.016."""
    near = {i for i, j in without_runs.items() if j.near_miss}
    assert near == {"b-se_resnet110-flops", "b-densenet_bc100_12-params"}
    assert {without_runs[i].verdict for i in near} == {NOT_REPRODUCED}
    (rounded,) = load_claims("b-se_resnet110-flops")
    assert rounded.loose == (245, 255)
    assert load_claims("b-resnet56-flops")[0].loose == (124.5, 125.5)


# Widths


def test_two_choices_of_widths_print_the_sources_totals():
    """The closed form against the networks that the library builds, and two witnesses by hand."""
    ours = widths.res2net_sizes(np.array(16), [np.array(w) for w in (13, 26, 52)])
    for column, model in (("params", "res2net29"), ("se_params", "se_res2net29"),
                          ("last_params", "se_res2net29_last"),
                          ("first2_half_params", "se_res2net29_first2")):  # fmt: skip
        assert ours[column] == arithmetic.cost(model).num_params
    assert ours["macs"] == arithmetic.cost("res2net29").macs
    assert ours["se_macs"] == arithmetic.cost("se_res2net29").macs
    assert ours["first2_params"] == 652_099  # gates that squeeze the whole of Z
    for stem, *w in ((16, 15, 21, 54), (32, 14, 23, 53)):
        found = widths.res2net_sizes(np.array(stem), [np.array(x) for x in w])
        printed = [f"{found[name] / 1e6:.2f}" for name in ("params", "se_params")]
        assert [*printed, f"{found['macs'] / 1e6:.0f}"] == ["0.63", "0.65", "100"]
    fitting = widths.fitting_widths()
    assert len(fitting) >= 19
    rows = set(fitting[["stem", "w1", "w2", "w3"]].itertuples(index=False, name=None))
    assert {(16, 15, 21, 54), (32, 14, 23, 53)} <= rows
    assert (16, 13, 26, 52) not in rows


def test_a_wider_stage_is_counted_as_the_library_counts_it():
    """The closed form for a width of every stage that is not ours: all three double from 7."""
    model = create_model("res2net29", base_width=7)
    found = widths.res2net_sizes(np.array(16), [np.array(w) for w in (7, 14, 28)])
    assert found["params"] == sum(p.numel() for p in model.parameters())


def test_what_depends_on_our_widths_is_neither_reproduced_nor_refuted(without_runs):
    depends = {i for i, j in without_runs.items() if j.verdict == DEPENDS}
    assert depends == {
        "b-res2net29-params", "b-res2net29-flops", "b-se_res2net29-params", "b-param-overhead",
        "b-efficiency-se_res2net29-dparams", "b-efficiency-se_res2net29",
        "b-ablation-res2net29-params", "b-ablation-se_res2net29_last-params",
        "b-ablation-se_res2net29_first2-params", "b-ablation-se_res2net29-params",
    }  # fmt: skip
    low, high = without_runs["b-param-overhead"].family
    assert low < 3.15 < 3.25 < high  # some choices print +3.2, some do not
    for i in depends:
        low, high = without_runs[i].family
        assert low < high
        assert "other choices of widths" in without_runs[i].remark
        assert without_runs[i].if_false == 1


def test_gates_that_squeeze_all_of_z_explain_the_first_two_streams(without_runs):
    """0.635 + 3/4 (0.655 - 0.625) reaches 0.65; a quarter does not."""
    text = without_runs["b-ablation-se_res2net29_first2-params"].derivation
    for part in ("0.6425 M at most", "0.6575 M at most", "652,099, which prints 0.65"):
        assert part in text


def test_one_network_answers_for_a_row(without_runs):
    """0.86 is that of shortcut B and 125 that of shortcut A; thop, which is named, gives 127.9."""
    params, macs = without_runs["b-resnet56-params"], without_runs["b-resnet56-flops"]
    assert (params.verdict, params.number) == (REPRODUCED, pytest.approx(0.855770))
    assert (macs.verdict, macs.number) == (NOT_REPRODUCED, pytest.approx(125.747840))
    assert "127.9 M in all" in macs.remark
    assert arithmetic.thop_total("resnet56") == pytest.approx(127.9e6, abs=0.05e6)
    assert arithmetic.thop_total("resnet56+shortcut=A") == pytest.approx(127.6e6, abs=0.05e6)


def test_what_needs_training_waits_for_it_and_nothing_else_does(without_runs):
    waiting = {i for i, j in without_runs.items() if j.verdict == NOT_MEASURED}
    assert waiting == {c.id for c in load_claims() if c.protocol and c.measure != "efficiency"}
    assert len(waiting) == 29
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
        # 2 / (16 * 64)
        # 102.5 / 1.015 = 100.985
        ("b-se_res2net29-flops", ["0.195 %", "100.99 M at most", "101.2 M", "20,904 MACs"]),
        # 3 (52 * 1024 + 104 * 256 + 208 * 64) = 279,552 products over 99,578,912 MACs
        ("b-flop-overhead", ["0.195 %", "20,904", "0.021 %", "0.28 %", "not +2 %"]),
        ("b-param-overhead", ["3.17 %", "from 2.4 to 4.0 %"]),  # .02/.63, .015/.635, .025/.625
        # 1,727,962 - 855,770 = 872,192, over at most 1.075 pp
        ("b-efficiency-se_resnet110-dparams", ["872,192", "the gates add 12,096", "another depth"]),
        ("b-efficiency-se_resnet110", ["0.85/1.07 = 0.794", "872,192", "0.811 M/pp at least"]),
        ("b-efficiency-se_res2net29", ["0.043 M/pp", "0.032 to 0.054"]),
    ],
)  # fmt: skip
def test_derivations_have_the_numbers_of_hand_arithmetic(without_runs, name, says):
    text = without_runs[name].derivation
    for part in says:
        assert part in text, text


def test_the_printed_p_has_a_witness_and_the_printed_d_has_none(without_runs):
    """Six errors that print the table's means and SDs and have p = 0.005, and McNemar's figure;
    d = 0.47 / sqrt((0.0025 + 0.0016) / 2)."""
    plain, gated = np.array((3.41, 3.43, 3.51)), np.array((3.01, 2.94, 3.00))
    printed = [f"{e.mean():.2f} {e.std(ddof=1):.2f}" for e in (plain, gated)]
    assert printed == ["3.45 0.05", "2.98 0.04"]
    assert round(ttest_rel(plain, gated).pvalue, 3) == 0.005
    # Of 10,000 images 47 more are right with gates: 158 against 111.
    assert round(mcnemar([[0, 158], [111, 0]]).pvalue, 3) == 0.005
    found = without_runs["b-p-value"]
    assert found.verdict == NOT_MEASURED
    assert {model for model, _ in found.missing} == {"res2net29", "se_res2net29"}
    for part in ("p = 0.00022", "p = 0.0052", "269 images", "d = 8.1"):
        assert part in found.derivation
    d = 0.47 / math.sqrt((0.05**2 + 0.04**2) / 2)
    assert without_runs["b-cohens-d"].number == pytest.approx(d)
    for part in ("= 10.4", "9.2 at least", "4.6 at least"):  # .46/.05025, .46/.1
        assert part in without_runs["b-cohens-d"].derivation


def test_thops_unit_is_settled_for_every_count(without_runs):
    for name, factor in (("b-resnet56-flops", "251.5 M FLOPs"), ("b-res2net29-flops", "199.2 M")):
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
        ("b-densenet_bc100_12-params", NOT_REPRODUCED, 0.769162),
        ("b-res2net29-params", DEPENDS, 0.636421),
        ("b-efficiency-se_res2net29", DEPENDS, 0.020904 / 0.47),
    ],
)
def test_counts_are_measured_without_training(without_runs, name, verdict, number):
    judgement = without_runs[name]
    assert judgement.number == pytest.approx(number, rel=1e-4)
    assert judgement.verdict == verdict
    assert judgement.n == 0


def test_the_reconstruction_is_named(without_runs):
    assert "reconstruction" not in without_runs["b-resnet56-params"].remark
    rebuilt = {c.id for c in load_claims() if c.reconstructed}
    assert rebuilt == {c.id for c in load_claims() if any("res2net29" in m for m in c.models)}


def test_every_verdict_has_its_chance_were_the_claim_false(without_runs):
    """A count anywhere within a factor of two prints 0.86 with ln(.865 / .855) / ln 4."""
    assert without_runs["b-resnet56-params"].if_false == pytest.approx(
        math.log(0.865 / 0.855) / math.log(4)
    )
    for judgement in without_runs.values():
        if judgement.verdict == REPRODUCED:
            assert judgement.if_false < 0.07
        elif judgement.verdict == NOT_REPRODUCED:
            assert judgement.if_false > 0.93
        elif judgement.verdict == NOT_MEASURED:
            assert judgement.if_false is None
        else:
            assert judgement.if_false == 1


# Runs


def test_an_error_is_reproduced_if_its_90_percent_interval_is_within_the_margin(tmp_path):
    errors = (0.0581, 0.0588, 0.0586)  # mean 5.85 %, SD 0.036 pp
    judgement = judged("b-resnet56-error", runs(tmp_path, "resnet56", errors))
    se = math.sqrt((0.04**2 + 0.03**2 + 0.01**2) / 2 / 3)
    assert judgement.verdict == REPRODUCED
    assert judgement.number == pytest.approx(5.85)
    half = T_2 * se
    assert judgement.interval == pytest.approx((5.85 - half, 5.85 + half), abs=1e-5)
    assert (judgement.n, len(judgement.runs)) == (3, 3)
    assert judgement.measured == f"5.85 % [{5.85 - half:.2f}, {5.85 + half:.2f}]"
    assert 0 < judgement.if_false < 0.05


@pytest.mark.parametrize("se", [0.02, 0.05, 0.1])
def test_equivalence_is_that_of_statsmodels(se):
    """On three values with this standard error, against the printed figure and its margin."""
    (claim,) = load_claims("b-resnet56-error")
    for mean in (5.7, 5.82, 5.9, 6.0, 6.1):
        values = mean + np.array((-1, 0, 1)) * se * math.sqrt(3)
        expected = DescrStatsW(values).ttost_mean(5.82 - 0.2, 5.82 + 0.2)[0] < 0.05
        found = equivalence.Estimate(number=mean, se=se, df=2)
        assert (equivalence.agrees(claim, found) is True) == expected


def test_a_mean_0_47_points_off_is_hardly_ever_reproduced_and_a_double_sigma_neither():
    """Of 600 simulated sets of seeds; at n = 3 and the spreads that small networks have."""
    (mean,) = load_claims("b-res2net29-error")
    (sigma,) = load_claims("b-se_res2net29-sigma")
    draw = np.random.default_rng(0)
    for sd in (0.05, 0.15, 0.3):
        means, ses = 3.45 + 0.47 + sd * draw.normal(size=600) / math.sqrt(3), sd / math.sqrt(3)
        spreads = ses * np.sqrt(draw.chisquare(2, 600) / 2)
        passed = [
            equivalence.agrees(mean, equivalence.Estimate(number=m, se=s, df=2)) is True
            for m, s in zip(means, spreads, strict=True)
        ]
        assert np.mean(passed) < 0.02
    sds = 0.08 * np.sqrt(draw.chisquare(2, 600) / 2)
    assert np.mean([equivalence.spread_agrees(sigma, sd, 2) is True for sd in sds]) == 0
    many = 0.08 * np.sqrt(draw.chisquare(39, 600) / 39)
    passed = np.mean([equivalence.spread_agrees(sigma, sd, 39) is True for sd in many])
    assert passed == pytest.approx(equivalence.spread_if_false(sigma, 39, True), abs=0.02)


@pytest.mark.parametrize("verdict", [True, False])
def test_the_chance_of_a_verdict_is_that_of_simulated_seeds(verdict):
    """True mean 0.4 away, twice the margin; 1,500 draws have a standard error below 0.013."""
    (claim,) = load_claims("b-resnet56-error")
    se, df, draw = 0.12, 4, np.random.default_rng(1)
    means = claim.middle + 0.4 + se * draw.normal(size=1_500)
    ses = se * np.sqrt(draw.chisquare(df, 1_500) / df)
    answers = [
        equivalence.agrees(claim, equivalence.Estimate(number=m, se=s, df=df))
        for m, s in zip(means, ses, strict=True)
    ]
    expected = equivalence.mean_if_false(
        claim, equivalence.Estimate(number=5.82, se=se, df=df), verdict
    )
    assert np.mean([answer is verdict for answer in answers]) == pytest.approx(expected, abs=0.04)


def test_an_error_is_not_reproduced_if_the_interval_stays_away(tmp_path):
    found = runs(tmp_path, "resnet56", (0.0630, 0.0631, 0.0632))  # 6.31 +- 0.025
    assert judged("b-resnet56-error", found).verdict == NOT_REPRODUCED
    assert judged("b-densenet_bc100_12-error", found).verdict == NOT_MEASURED


def test_deleting_a_run_makes_its_claims_unmeasured_with_the_command_that_mends_it(tmp_path):
    for model in ("res2net29", "se_res2net29"):
        runs(tmp_path, model, (0.0344, 0.0345, 0.0346))
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
    assert len(found) == 2
    judgement = judged("b-resnet56-error", found)
    assert judgement.verdict == NOT_MEASURED
    assert judgement.n == 2
    assert judgement.missing == (("resnet56", 2),)
    assert "2 of 3 seeds so far" in judgement.remark


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


def test_seeds_that_leave_it_open_call_for_more(tmp_path):
    found = runs(tmp_path, "resnet56", (0.0560, 0.0585, 0.0601))  # 5.82 +- 0.35
    judgement = judged("b-resnet56-error", found)
    assert judgement.verdict == NOT_MEASURED
    assert judgement.missing == (("resnet56", 3),)
    assert "3 seeds leave it undecided" in judgement.remark


@pytest.mark.parametrize(
    ("errors", "verdict"),
    [((0.14, 0.15, 0.16), REPRODUCED), ((0.12, 0.125, 0.135), NOT_MEASURED),
     ((0.05, 0.051, 0.052), NOT_REPRODUCED)],
)  # fmt: skip
def test_a_claimed_range_is_its_own_margin(tmp_path, errors, verdict):
    """Of 82 to 88: 85 +- 1.7 (90 %) lies within, 87.3 +- 1.3 reaches beyond, 94.9 +- 0.2 is far."""
    found = runs(tmp_path, "resnet18", errors, "source_a")
    assert judged("a-resnet18-acc", found).verdict == verdict


def test_a_difference_is_of_independent_networks(tmp_path):
    plain = runs(tmp_path, "res2net29", (0.0600, 0.0604, 0.0602))
    variant = runs(tmp_path, "se_res2net29", (0.0553, 0.0555, 0.0557))
    half = T_4 * math.sqrt(2 * 0.02**2 / 3)
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
    assert judgement.verdict == DEPENDS
    assert judgement.measured == "no drop to pay for"
    json.dumps(judgement.to_dict(), allow_nan=False)


@pytest.mark.parametrize(
    ("seeds", "verdict"),
    [((3.41, 3.43, 3.51), REPRODUCED), ((3.40, 3.45, 3.50), NOT_REPRODUCED), ((), NOT_MEASURED)],
)
def test_the_p_value_is_that_of_the_paired_test(tmp_path, seeds, verdict):
    found = runs(tmp_path, "res2net29", [e / 100 for e in seeds])
    found += runs(tmp_path, "se_res2net29", (0.0301, 0.0294, 0.0300))
    judgement = judged("b-p-value", found)
    assert judgement.verdict == verdict
    if seeds:
        assert judgement.number == pytest.approx(ttest_rel(seeds, (3.01, 2.94, 3.00)).pvalue)


def test_a_standard_deviation_has_its_chi_square_interval(tmp_path):
    far = runs(tmp_path / "far", "resnet56", (0.05, 0.06, 0.07))
    judgement = judged("b-resnet56-sigma", far)
    ends = [1.0 * math.sqrt(2 / q) for q in reversed(CHI_2)]
    assert judgement.number == pytest.approx(1.0)
    assert judgement.interval == pytest.approx(ends, rel=1e-5)
    assert judgement.verdict == NOT_REPRODUCED  # from 0.52 pp
    near = judged("b-resnet56-sigma", runs(tmp_path, "resnet56", (0.060, 0.0612, 0.0624)))
    assert near.verdict == NOT_MEASURED  # three seeds fit too much: 0.06 to 0.75
    assert "3 seeds leave it undecided" in near.remark
    errors = [0.06 + 0.0012 * x for x in np.random.default_rng(0).normal(size=60)]
    many = runs(tmp_path / "many", "resnet56", errors)
    assert judged("b-resnet56-sigma", many).verdict == REPRODUCED


def test_figures_after_an_epoch_are_read_from_the_history(tmp_path):
    found = runs(tmp_path, "se_resnet18", (0.014, 0.015, 0.016), "source_a")
    # make_run: test error of epoch e is error * (21 - e), training loss 1.5 / e
    first = judged("a-epoch5-acc", found)  # SD 0.1 pp * 16
    assert "76.00 %" in first.remark
    assert first.verdict == NOT_MEASURED  # one more run may be 76 +- 7.9, which reaches 70.2
    assert judged("a-epoch1-loss", found).number == pytest.approx(1.5)
    assert judged("a-epoch1-loss", found).verdict == REPRODUCED  # 1.50 in all three, margin 0.02
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
    [((0.10, 0.11, 0.12), REPRODUCED), ((0.17, 0.18, 0.19), NOT_REPRODUCED),
     ((0.10, 0.13, 0.16), NOT_MEASURED)],
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
     ((0.0268, 0.0269, 0.0270), NOT_REPRODUCED)],
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
    """Scores beside a report: each network's IoU at half the maximum, and by another definition
    what is claimed, one file a seed."""
    folder.mkdir(parents=True)
    for seed in range(3):
        rows = [
            {"model": model, "trial": where, "metric": metric, "score": score + seed / 1000,
             "chance": 0.14, "cases": 8, "zero": 0}
            for model, value in values.items()
            for where, metric, score in (
                (trial, "iou_at_half", value), ("grid3", "iou_at_area", CLAIMED_IOU[model])
            )
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
    assert "2 definitions" in remark
    assert "2 give the claimed order" in remark


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
def test_an_iou_holds_where_the_chosen_definition_gives_value_and_order(tmp_path, values, verdicts):
    found = iou_verdicts(map_scores(tmp_path / "a", load_protocol("paper").recipe, values))
    expected = [NOT_REPRODUCED if v == "n" else v for v in verdicts]
    assert [found[model].verdict for model in CLAIMED_IOU] == expected
    assert not any(judgement.commands for judgement in found.values())
    for judgement in found.values():
        assert "of 1 other definition, which are exploration, 1 give" in judgement.remark
        reproduced = judgement.verdict == REPRODUCED
        assert judgement.if_false < 1 / 6 if reproduced else judgement.if_false > 5 / 6


def test_no_other_definition_stands_in_for_the_chosen_one(tmp_path):
    scores = map_scores(tmp_path / "a", load_protocol("paper").recipe, CLAIMED_IOU, trial="mosaic")
    assert {j.verdict for j in iou_verdicts(scores).values()} == {NOT_MEASURED}


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


def test_the_frame_holds_every_claim(without_runs):
    frame = claims_frame(list(without_runs.values())).set_index("id")
    assert len(frame) == 60
    assert frame["verdict"].value_counts()[DEPENDS] == 10
    assert frame.loc["b-param-overhead", ["family_low", "family_high"]].notna().all()
    assert frame.loc["b-resnet56-error", ["number", "low", "if_false"]].isna().all()
    assert frame["command"].str.contains("senet train").any()


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
