"""Costs by hand: blocks, memory and shares; times only as far as they must hold on any machine."""

import time
from collections import OrderedDict

import pytest
import torch
from fake_runs import make_run
from notebook_cells import run_cells
from torch import Tensor, nn

from senet_lib.analysis import speed
from senet_lib.analysis.literature import PUBLISHED
from senet_lib.analysis.speed import measure
from senet_lib.errors import SenetError
from senet_lib.models import create_model
from senet_lib.profiling import profile_model

QUICK = {"device": "cpu", "threads": 1, "repeats": 3, "min_seconds": 0.0}


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


def test_a_pass_takes_as_long_as_it_must():
    found = measure(Slow(0.02), (3, 4, 4), 5, **QUICK)
    assert 20 <= found["latency_ms_low"] <= found["latency_ms"] <= found["latency_ms_high"]
    assert found["images_per_second"] == pytest.approx(5000 / found["latency_ms"])
    assert (found["threads"], found["device"]) == (1, "cpu")
    assert 2 <= found["num_timed"] <= 10  # a block of ten where a call's own cost is high
    found = measure(Slow(0.01), (3, 4, 4), 1, **{**QUICK, "repeats": 1, "min_seconds": 0.1})
    assert 2 <= found["num_timed"] <= 11  # until the time is over


IMAGE = 3 * 16 * 16 * 4  # bytes
CONV = nn.Conv2d(3, 3, 1, bias=False)  # 36 bytes
SE = create_model("se_resnet20")
HELD = sum(t.nbytes for t in [*SE.parameters(), *SE.buffers()]) + 128 * 3 * 32 * 32 * 4


@pytest.mark.parametrize(
    ("model", "side", "batch", "expected"),
    [
        # A layer's input is let go when the next one has run: two maps beside batch and weights.
        (nn.Sequential(nn.ReLU(), nn.ReLU(), CONV, nn.ReLU()), 16, 2, 3 * 2 * IMAGE + 36),
        # In place, no further map is needed; a view needs none either.
        (nn.Sequential(nn.ReLU(inplace=True), nn.Unflatten(1, (3, 1))), 16, 1, IMAGE),
        (SE, 32, 128, HELD + 41_943_168),  # as torch's CPU allocator has it
    ],
)
def test_peak_memory_by_hand_and_by_the_allocator(model, side, batch, expected):
    found = measure(model, (3, side, side), batch, **QUICK)["peak_memory_mib"] * 2**20
    assert found == pytest.approx(expected, rel=1e-4 if model is SE else 0)


def test_on_a_gpu_the_memory_of_others_does_not_count(monkeypatch):
    held, others = 16 * 4 + 6 * 4, 1000  # weights, bias and batch of 2; what the process has beside
    allocator = {
        "memory_allocated": lambda _: held + others,
        "reset_peak_memory_stats": lambda _: None,
        "max_memory_allocated": lambda _: held + others + 32,  # and the output
    }
    for name, does in allocator.items():
        monkeypatch.setattr(torch.accelerator, name, does)
    monkeypatch.setattr(speed, "KEEP_PEAKS", ("cpu",))
    assert speed._peak_bytes(nn.Linear(3, 4), torch.zeros(2, 3)) == held + 32


def test_the_share_of_attention_by_hand():
    found = measure(HalfAttention(), (3, 4, 4), 1, **QUICK)
    assert (found["attention_num_modules"], found["attention_macs"]) == (1, 0)
    assert found["attention_params"] == 3 / (3 + 3 + 6)
    assert found["attention_time"] == pytest.approx(0.5, abs=0.1)
    assert found["attention_time_low"] <= found["attention_time"] <= found["attention_time_high"]
    around = HalfAttention()  # one in another is timed and counted once
    around.attention = nn.Sequential(OrderedDict(attention=around.attention))
    again = measure(around, (3, 4, 4), 1, **QUICK)
    assert again["attention_time"] == pytest.approx(0.5, abs=0.1)
    assert again["attention_params"] == found["attention_params"]
    found = measure(create_model("resnet20"), (3, 32, 32), 1, **QUICK)
    names = ("num_modules", "params", "macs", "time")
    assert [found[f"attention_{name}"] for name in names] == [0, 0, 0, 0]


def test_a_networks_share_is_what_se_adds_and_it_is_left_as_it_was(untouched):
    model = create_model("se_resnet20").train().double()
    before = torch.get_num_threads()
    with untouched(model):
        found = measure(model, (3, 32, 32), 1, **{**QUICK, "threads": before + 1})
    assert (found["threads"], torch.get_num_threads()) == (before + 1, before)
    added = 3 * 2 * (16 * 1 + 32 * 2 + 64 * 4)  # three blocks a stage, C to C / 16 and back
    gated = profile_model(create_model("se_resnet20"))
    assert found["attention_num_modules"] == 9
    assert found["attention_params"] == added / gated.num_params
    assert found["attention_macs"] == added / gated.macs
    assert 0 < found["attention_time"] < 1


@pytest.mark.parametrize(("batch", "change"), [(0, {}), (1, {"repeats": 0}), (1, {"device": "x"})])
def test_numbers_out_of_range_are_refused(batch, change):
    with pytest.raises(SenetError):
        measure(nn.ReLU(), (3, 4, 4), batch, **{**QUICK, **change})


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_memory_and_time_on_a_gpu():
    found = measure(create_model("se_resnet20"), (3, 32, 32), 128, **{**QUICK, "device": "cuda"})
    assert found["peak_memory_mib"] > 128 * 3 * 32 * 32 * 4 / 2**20
    assert 0 < found["attention_time"] < 1


# Published points and the figure


DEPTHS = (20, 32, 44, 56, 110)


@pytest.mark.parametrize(
    ("network", "model", "options"),
    [
        *((f"ResNet-{n}", f"resnet{n}", {"shortcut": s}) for n in DEPTHS for s in "AB"),
        *((f"SE-ResNet-{n}", f"se_resnet{n}", {"gate_bias": True}) for n in (20, 56, 110)),
        ("DenseNet-BC-100-12", "densenet_bc100_12", {}),
        ("ResNet-18", "resnet18", {}),
        ("WRN-16-8", "wrn16_8", {}),
    ],
)
def test_published_sizes_are_those_of_the_same_networks_here(network, model, options):
    profile = profile_model(create_model(model, **options))
    points = PUBLISHED.query("network == @network and num_params == @profile.num_params")
    assert len(points)
    assert set(points["macs"].dropna()) <= {profile.macs}
    assert points["error"].between(0.02, 0.10).all()
    assert points["evidence"].isin(["read", "second hand"]).all()


# The notebook


def test_the_notebook_counts_measures_and_compares(tmp_path, monkeypatch):
    for name, error in (("resnet20", 0.5), ("se_resnet20", 0.4)):
        for seed in (0, 1):
            make_run(tmp_path, name, seed, error + 0.1 * seed)
    figures = []
    monkeypatch.setattr("IPython.display.display", lambda *a, **k: figures.append(a[0]))
    names = run_cells("profile", models=["resnet20", "se_resnet20", "resnet20"], study="demo",
                      runs_root=tmp_path, batch_sizes=[1], threads=1, repeats=2)  # fmt: skip
    shown = [o for o in names["outputs"] if hasattr(o, "caption")]
    tables = {" ".join(o.caption.split()[:2]): o.data for o in shown}
    cost = tables["Parameters, and"].loc["se_resnet20"]
    fewer = 6 * (64 + 1)  # parameters: of the runs' four classes, not ten
    assert (cost["parameters"], cost["MACs"]) == (274_490 - fewer, cost["MACs by fvcore"])
    assert cost["over plain %"] == pytest.approx(100 * 2_016 / (272_474 - fewer))
    assert "0.74 %" in "\n".join(map(str, names["outputs"]))
    totals = tables["One network"].loc["resnet20", ["closed form", "with biases"]]
    assert totals.tolist() == pytest.approx([40.812800, 40.812804])  # four outputs have a bias
    left = tables["Operators that"]
    assert "sigmoid 9" in left.loc["se_resnet20", "left out by fvcore"]
    assert "batch_norm 21" in left.loc["resnet20", "left out of the closed form"]
    blocks = tables["One block"]
    assert blocks.loc["ResNet (2 conv)", "parameters"] == 2 * 9 * 64**2 + 2 * 2 * 64
    assert blocks.loc["SE-Res2Net", "factor"] == pytest.approx(200_000 / 15_968)
    assert tables["Forward pass"]["network"].tolist() == ["resnet20", "se_resnet20"]
    share = 100 * 2_016 / (274_490 - fewer)
    assert tables["Share of"]["of parameters %"].tolist() == pytest.approx([share])
    assert "resnet20 55.00; " in figures[-1]["text/plain"] + "; "
    literal = ["res2net29", "se_res2net29", "se_res2net29+gate_at=literal"]
    pairs = run_cells("profile", "measure", models=literal)["plain"]
    assert dict(pairs) == {"se_res2net29": "res2net29"}  # the literal block lacks a convolution
    empty = "\n".join(map(str, run_cells("profile", models=[])["outputs"]))
    assert empty.count("No") >= 2  # without networks: no cost, no measurement
