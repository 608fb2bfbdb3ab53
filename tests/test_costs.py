"""Costs by hand: blocks, memory and shares; times only as far as they must hold on any machine."""

import io
import time

import numpy as np
import pytest
import torch
from fake_runs import make_run
from torch import Tensor, nn

from senet_lib.analysis import speed
from senet_lib.analysis.counters import count_network
from senet_lib.analysis.literature import (
    CLAIMED_BLOCKS,
    EVIDENCE,
    PUBLISHED,
    PublishedPoint,
    published_table,
)
from senet_lib.errors import SenetError, UnknownNameError
from senet_lib.figures import costs as cost_plots
from senet_lib.models import create_model
from senet_lib.profiling import profile_model
from senet_lib.report import costs
from senet_lib.report.table import show

QUICK = {"device": "cpu", "threads": 1, "repeats": 3, "min_seconds": 0.0, "warm_up": 1}


class Slow(nn.Module):
    """Passes its input on after a while."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds
        self.weight = nn.Parameter(torch.ones(3))

    def forward(self, x: Tensor) -> Tensor:
        time.sleep(self.seconds)
        return x


class HalfAttention(nn.Module):
    """As long in its attention as outside of it."""

    def __init__(self) -> None:
        super().__init__()
        self.attention, self.rest = Slow(0.03), Slow(0.03)
        self.linear = nn.Linear(3, 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.rest(self.attention(x)).mean((2, 3)))


@pytest.fixture(scope="module")
def networks():
    return [count_network(name) for name in ("resnet20", "se_resnet20", "res2net29")]


@pytest.fixture(scope="module")
def measured():
    return speed.measure_networks(["resnet20", "se_resnet20"], [1, 2], **QUICK)


# Blocks


def test_blocks_by_arithmetic():
    table = costs.block_table().set_index("block")
    basic = 2 * 9 * 64**2  # two 3x3 convolutions
    streams = 2 * 64**2 + 3 * 9 * 16**2  # two 1x1, and 3x3 in three of four streams
    gate = 2 * 64 * 4  # 64 to 64 / 16 and back
    assert basic == 73_728
    weights = {
        "ResNet (2 conv)": (basic, 0),
        "SE-ResNet": (basic, gate),
        "Res2Net": (streams, 0),
        "SE-Res2Net": (streams, gate),
    }
    assert dict(table["weights"]) == {name: sum(parts) for name, parts in weights.items()}
    for name, (convolutions, gates) in weights.items():
        for size in (32, 16, 8):
            assert table.loc[name, f"macs_{size}"] == convolutions * size**2 + gates
    # weight and bias of each normalised channel
    norms = {"ResNet": 2 * 2 * 64, "Res2Net": 2 * (64 + 3 * 16 + 64)}
    assert list(table["norm_params"]) == [norms["ResNet"]] * 2 + [norms["Res2Net"]] * 2
    assert (table["num_params"] == table["weights"] + table["norm_params"]).all()


def test_the_claimed_blocks_stand_beside_ours():
    blocks = costs.block_table()
    assert set(CLAIMED_BLOCKS) == set(blocks["block"])
    view = costs.block_table_view(blocks, CLAIMED_BLOCKS).frame.set_index("block")
    assert view.loc["ResNet (2 conv)", "claimed"] == "0.18 M"
    assert view.loc["ResNet (2 conv)", "factor"] == "2.4"  # 180,000 / 73,984
    assert view.loc["SE-Res2Net", "factor"] == "12.5"  # 200,000 / 15,968
    assert view.loc["SE-ResNet", "claimed FLOPs"] == "68 M"
    assert "claimed" not in costs.block_table_view(blocks).frame


# Time, memory and shares


def test_a_pass_takes_as_long_as_it_must():
    found = speed.measure_speed(Slow(0.02), (3, 4, 4), 5, **QUICK)
    assert 20 <= found.latency_ms_low <= found.latency_ms <= found.latency_ms_high
    assert found.images_per_second == pytest.approx(5000 / found.latency_ms)
    assert (found.num_timed, found.threads, found.device) == (3, 1, "cpu")


def test_passes_go_on_until_the_time_is_over():
    found = speed.measure_speed(
        Slow(0.01), (3, 4, 4), 1, **{**QUICK, "repeats": 1, "min_seconds": 0.1}
    )
    assert 2 <= found.num_timed <= 11


def test_peak_memory_by_hand():
    image = 3 * 16 * 16 * 4  # bytes
    conv = nn.Conv2d(3, 3, 1, bias=False)  # 36 bytes
    model = nn.Sequential(nn.ReLU(), nn.ReLU(), conv, nn.ReLU())
    # A layer's input is let go when the next one has run: two maps beside the batch and weights.
    found = speed.measure_speed(model, (3, 16, 16), 2, **QUICK)
    assert found.peak_memory_mib * 2**20 == 3 * 2 * image + 36
    # In place, no further map is needed; a view needs none either.
    model = nn.Sequential(nn.ReLU(inplace=True), nn.Unflatten(1, (3, 1)))
    found = speed.measure_speed(model, (3, 16, 16), 1, **QUICK)
    assert found.peak_memory_mib * 2**20 == image


def test_peak_memory_is_what_the_allocator_says():
    """Of a whole network, weights and batch apart: 41,943,168 bytes by torch's CPU allocator."""
    model = create_model("se_resnet20")
    held = sum(t.nbytes for t in [*model.parameters(), *model.buffers()]) + 128 * 3 * 32 * 32 * 4
    found = speed.measure_speed(model, (3, 32, 32), 128, **{**QUICK, "repeats": 1, "warm_up": 0})
    assert found.peak_memory_mib * 2**20 - held == pytest.approx(41_943_168, rel=1e-4)


def test_the_share_of_attention_by_hand():
    share = speed.se_share(HalfAttention(), (3, 4, 4), 1, **QUICK)
    assert share.num_modules == 1
    assert share.params == 3 / (3 + 3 + 6)
    assert share.macs == 0
    assert share.time == pytest.approx(0.5, abs=0.1)
    assert share.time_low <= share.time <= share.time_high


def test_the_share_of_se_is_what_it_adds():
    plain, gated = (profile_model(create_model(n)) for n in ("resnet20", "se_resnet20"))
    share = speed.se_share(create_model("se_resnet20"), (3, 32, 32), 1, **QUICK)
    assert share.num_modules == 9
    added = 3 * 2 * (16 * 1 + 32 * 2 + 64 * 4)  # three blocks a stage, C to C / 16 and back
    assert gated.num_params - plain.num_params == added
    assert share.params == added / gated.num_params
    assert share.macs == added / gated.macs
    assert 0 < share.time < 1


def test_a_plain_network_has_no_attention():
    share = speed.se_share(create_model("resnet20"), (3, 32, 32), 1, **QUICK)
    assert (share.num_modules, share.params, share.macs, share.time) == (0, 0, 0, 0)


@pytest.mark.parametrize("name", ["se_res2net29_last", "se_preact_resnet110", "resnet20"])
def test_attention_is_found_by_path(name):
    paths = speed.attention_paths(create_model(name))
    assert len(paths) == {"se_res2net29_last": 9, "se_preact_resnet110": 54, "resnet20": 0}[name]
    assert all(path.endswith(".attention") for path in paths)


@pytest.mark.parametrize("measure", [speed.measure_speed, speed.se_share])
def test_measuring_leaves_model_and_threads_as_they_were(measure):
    model = create_model("se_resnet20").train().double()
    strides = [p.stride() for p in model.parameters()]
    before = torch.get_num_threads()
    measure(model, (3, 32, 32), 1, **{**QUICK, "threads": before + 1})
    assert torch.get_num_threads() == before
    assert all(m.training and not m._forward_hooks for m in model.modules())
    assert [p.stride() for p in model.parameters()] == strides
    assert next(model.parameters()).dtype == torch.float64


@pytest.mark.parametrize(
    ("batch", "change"), [(0, {}), (1, {"repeats": 0}), (1, {"warm_up": -1}), (1, {"device": "x"})]
)
def test_numbers_out_of_range_are_refused(batch, change):
    with pytest.raises(SenetError):
        speed.measure_speed(nn.ReLU(), (3, 4, 4), batch, **{**QUICK, **change})


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_memory_and_time_on_a_gpu():
    model = create_model("se_resnet20")
    found = speed.measure_speed(model, (3, 32, 32), 128, **{**QUICK, "device": "cuda"})
    assert found.device == "cuda"
    assert found.peak_memory_mib > 128 * 3 * 32 * 32 * 4 / 2**20
    share = found.se_share(model, (3, 32, 32), 128, **{**QUICK, "device": "cuda"})
    assert 0 < share.time < 1


# Tables


def test_the_cost_table_sets_a_variant_against_its_plain_network(networks):
    frame = costs.cost_table(networks).frame.set_index("network")
    assert frame.loc["se_resnet20", "parameters"] == "274,490"
    assert frame.loc["se_resnet20", "over plain"] == "+0.74 %"  # 2,016 of 272,474
    assert frame.loc["resnet20", "over plain"] == ""
    assert frame.loc["resnet20", "MACs"] == frame.loc["resnet20", "MACs by fvcore"] == "40,813,184"
    assert "they differ by" not in frame


def test_settings_in_a_name_do_not_hide_its_plain_network():
    names = ["resnet20", "resnet20+attention=ge", "se_resnet20+reduction=8"]
    frame = costs.cost_table([count_network(name) for name in names]).frame
    # r = 8: 3 * 2 * (16 * 2 + 32 * 4 + 64 * 8) = 4,032 of 272,474
    assert list(frame["over plain"]) == ["", "+0.00 %", "+1.48 %"]


def test_the_conventions_are_named_with_their_totals(networks):
    frame = costs.convention_table(networks).frame.set_index("network")
    assert list(frame.loc["res2net29"]) == [
        *("99.58 M", "99,578,922", "101.58 M", "103.61 M", "199.16 M")
    ]
    text = costs.convention_text(networks[2]).markdown
    assert "199.16 M, 2.00 times as many" in text
    left = costs.left_out_table(networks).frame.set_index("network")
    assert "sigmoid 9" in left.loc["se_resnet20", "left out by fvcore"]
    assert "batch_norm 21" in left.loc["resnet20", "left out of the closed form"]


def test_tables_of_what_was_measured(measured):
    assert list(measured["model"]) == ["resnet20"] * 2 + ["se_resnet20"] * 2
    assert list(measured["batch_size"]) == [1, 2, 1, 2]
    assert len(costs.speed_table(measured).frame) == 4
    assert f"torch {torch.__version__}, 1 CPU thread, fp32" in costs.speed_table(measured).caption
    shares = costs.share_table(measured).frame
    assert list(shares["network"]) == ["se_resnet20"] * 2
    assert list(shares["of parameters"]) == ["0.73 %"] * 2  # 2,016 of 274,490


def test_the_answer_takes_its_numbers_from_what_was_counted(networks, measured):
    text = costs.answer(networks, measured).markdown
    assert "parameters grow by 0.74 %" in text
    assert "At batch 1 the median time" in text
    assert "At batch 2 the median time" in text
    alone = costs.answer(networks[2:], measured).markdown
    assert "no cost can be compared" in alone


def test_empty_tables_say_so():
    import pandas as pd

    for table in (costs.cost_table([]), costs.convention_table([]), costs.left_out_table([])):
        assert "No network was named." in table._repr_html_()
    assert "Nothing was measured." in costs.speed_table(pd.DataFrame())._repr_html_()
    assert "None of these networks" in costs.share_table(pd.DataFrame())._repr_html_()


# Published points and the figure


@pytest.mark.parametrize(
    ("network", "model", "options"),
    [
        *((f"ResNet-{n}", f"resnet{n}", {"shortcut": s}) for n in (20, 56, 110) for s in "AB"),
        ("SE-ResNet-20", "se_resnet20", {"gate_bias": True}),
        ("SE-ResNet-56", "se_resnet56", {"gate_bias": True}),
        ("SE-ResNet-110", "se_resnet110", {"gate_bias": True}),
        ("DenseNet-BC-100-12", "densenet_bc100_12", {}),
        ("ResNet-18", "resnet18", {}),
        ("WRN-16-8", "wrn16_8", {}),
    ],
)
def test_published_sizes_are_those_of_the_same_networks_here(network, model, options):
    profile = profile_model(create_model(model, **options))
    points = [p for p in PUBLISHED if p.network == network and p.num_params == profile.num_params]
    assert points
    assert {p.macs for p in points} <= {None, profile.macs}


def test_published_points_are_complete_and_plausible():
    assert all(p.evidence in EVIDENCE and p.source and p.recipe for p in PUBLISHED)
    assert all(0.02 < p.error < 0.10 for p in PUBLISHED)
    assert {p.error for p in PUBLISHED if p.network == "SE-ResNet-110"} == {
        *(0.0521, 0.0530, 0.0519, 0.0363)
    }
    frame = published_table().frame
    assert frame["source"].str.startswith("He et al. 2015 (arXiv:1512.03385): ").sum() == 1
    html = published_table()._repr_html_().replace("\u00a0", " ").replace("\u2011", "-")
    assert "ResNet-20 8.75" in html
    assert "SE-ResNet-164 4.39" in html


SIZES = {"resnet20": (1.0, 40.0), "se_resnet20": (2.0, 41.0), "resnet56": (3.0, 125.0)}


@pytest.fixture
def runs(tmp_path):
    errors = {"resnet20": (0.5, 0.6), "se_resnet20": (0.4, 0.45), "resnet56": (0.45, 0.5)}
    return [
        make_run(tmp_path, name, seed, error,
                 num_params=int(1e6 * SIZES[name][0]), macs=int(1e6 * SIZES[name][1]))
        for name, pair in errors.items() for seed, error in enumerate(pair)
    ]  # fmt: skip


@pytest.mark.parametrize(("x", "column"), [("num_params", 0), ("macs", 1)])
def test_the_front_is_of_ours_alone(runs, x, column):
    figure = cost_plots.pareto(runs, PUBLISHED, x=x)
    (axes,) = figure.axes
    lines = {line.get_label(): line for line in axes.lines}
    step = lines["no other of ours is both cheaper and better"]
    assert step.get_drawstyle() == "steps-post"
    expected = [(SIZES["resnet20"][column], 55.0), (SIZES["se_resnet20"][column], 42.5)]
    assert np.allclose(step.get_xydata(), expected)  # resnet56 is dearer and no better
    assert "both cheaper and better than resnet20, se_resnet20." in figure.get_label()
    drawn = np.concatenate([line.get_xydata() for line in axes.lines])
    for run in runs:
        assert (np.abs(drawn - [getattr(run, x) / 1e6, 100 * run.test_error]) < 1e-9).all(1).any()


def test_published_points_are_drawn_apart_where_their_cost_is_known(runs):
    figure = cost_plots.pareto(runs, PUBLISHED, x="macs")
    (axes,) = figure.axes
    theirs = [line for line in axes.lines if line.get_marker() == "D"]
    assert sum(len(line.get_xdata()) for line in theirs) == sum(
        p.macs is not None for p in PUBLISHED
    )
    assert {line.get_markerfacecolor() for line in theirs} == {"none"}
    assert "trained for hundreds of epochs" in figure.get_label()
    legend = {text.get_text() for text in figure.legends[0].get_texts()}
    assert "published by others, trained for hundreds of epochs" in legend


def test_names_in_the_figure_cover_neither_points_nor_each_other(runs):
    from matplotlib.text import Text

    figure = cost_plots.pareto(runs, PUBLISHED, x="num_params")
    (axes,) = figure.axes
    figure.savefig(io.BytesIO(), format="png")
    boxes = [Text.get_window_extent(text) for text in axes.texts]
    assert len(boxes) > 10
    assert {"resnet20", "se_resnet20", "resnet56"} <= {text.get_text() for text in axes.texts}
    for i, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[i + 1 :])
        for line in (line for line in axes.lines if line.get_marker() not in ("None", "")):
            for x, y in axes.transData.transform(line.get_xydata()):
                assert not box.contains(x, y)


def test_the_figure_without_published_points_and_with_one_run(runs, capsys):
    figure = cost_plots.pareto(runs[:1], (), x="macs")
    assert "ublished" not in figure.get_label()
    show(figure)


def test_a_point_of_unknown_cost_is_left_out(runs):
    point = PublishedPoint(
        network="Elsewhere", error=0.05, num_params=None, macs=10_000_000, source="a page",
        evidence="read", recipe="",
    )  # fmt: skip
    assert "Elsewhere" not in cost_plots.pareto(runs, [point], x="num_params").get_label()
    assert "Elsewhere 10 million, 5.00 %" in cost_plots.pareto(runs, [point], x="macs").get_label()


def test_an_unknown_cost_is_refused(runs):
    with pytest.raises(UnknownNameError, match="unknown cost 'flops'"):
        cost_plots.pareto(runs, x="flops")


def test_points_published_for_cifar_stand_beside_no_other_data(runs, tmp_path):
    labels = cost_plots.pareto(runs).axes[0].get_legend_handles_labels()[1]
    assert not any(label.startswith("published") for label in labels)
    alone = cost_plots.pareto(runs).get_label()
    on_cifar = make_run(tmp_path / "cifar", "resnet20", 0, 0.1, data="cifar10")
    assert "ResNet-110" in cost_plots.pareto([on_cifar]).get_label()
    assert "ResNet-110" not in alone
