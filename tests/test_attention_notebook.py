"""The lesson on attention runs without CIFAR-10 and says what its equations give."""

import re

import nbformat
import pytest
import torch
from fake_runs import data_fields, make_run, save_network
from notebook_cells import run_cells

from senet_lib.analysis.gates import layer_table, record_gates
from senet_lib.data.augment import normalise
from senet_lib.data.datasets import load_data
from senet_lib.errors import SenetError
from senet_lib.models import create_model
from senet_lib.models.attention import ExciteGate
from senet_lib.report.batch import execute
from senet_lib.report.table import Text
from senet_lib.runs.published import find_pretrained

FAST = {"steps": 3, "num_images": 20, "channels": 3}


def test_the_lesson_runs_without_cifar10_and_its_numbers_are_right(tmp_path, monkeypatch):
    monkeypatch.setenv("SENET_DATA", str(tmp_path / "nothing"))
    out = execute("attention", tmp_path / "a.ipynb", FAST, html=tmp_path / "a.html")
    cells = [c for c in nbformat.read(out, as_version=4).cells if c.cell_type == "code"]
    given = [output["data"] for cell in cells for output in cell.outputs if "data" in output]
    answer = next(data["text/markdown"] for data in reversed(given) if "text/markdown" in data)
    assert float(re.search(r"differ by at most (\S+)\. ", answer)[1]) < 1e-6
    weights = int(re.search(r"adds ([\d,]+) weights", answer)[1].replace(",", ""))
    assert weights == 3 * 2 * (16 * 1 + 32 * 2 + 64 * 4)  # 3 blocks a stage, 2 C max(C // 16, 1)
    low, high = map(float, re.search(r"between (0\.\d+) and (0\.\d+)\.", answer).groups())
    assert 0 < low < high < 1
    assert sum("image/svg+xml" in data for data in given) == 5  # none of them twice
    page = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert page.count("<math") > 10
    assert "$" not in re.sub(r"<(pre|script|style)\b.*?</\1>", "", page, flags=re.DOTALL)


@pytest.mark.parametrize(
    "model",
    [
        "resnet20",
        "resnet20+attention=eca",
        "resnet20+attention=cbam",
        "se_res2net29+gate_at=last_from_z",
    ],
)
def test_a_network_without_se_is_named_in_one_line(model, monkeypatch, tmp_path):
    monkeypatch.setenv("SENET_DATA", str(tmp_path / "nothing"))
    with pytest.raises(SenetError, match="no SE of the usual form; take one such as se_resnet20"):
        run_cells("attention", model=model)


def test_a_layer_that_is_asleep_is_not_looked_at(tmp_path):
    torch.manual_seed(0)
    network = create_model("se_resnet20")
    for name in (f"stage{s}.{b}" for s in (1, 2, 3) for b in range(3)):
        reduce, expand = network.get_submodule(name).attention.gate.parameters()
        with torch.no_grad():
            reduce.abs_()  # of means of a relu or near zero
            reduce *= 0 if name in ("stage2.2", "stage1.0") else 1
            expand *= 10
    run = make_run(tmp_path, "se_resnet20", 0, 0.5, **data_fields(load_data("shapes")))
    save_network(run, network)
    asked = {"run": str(run.path), "layer": "stage2.2"}
    found = run_cells("attention", "45f726e2", **asked, num_images=20, channels=3)
    assert set(found["asleep"]) >= {"stage2.2", "stage1.0"}
    assert found["layer"] not in found["asleep"]
    assert found["table"].std(0).max() == pytest.approx(found["spread"].max())
    assert found["spread"].max() > 0.01
    assert any("stage2.2" in t.markdown for t in found["outputs"] if isinstance(t, Text))
    asked |= {"layer": "stage3.1", "channels": 99}
    awake = run_cells("attention", "2b2ffca3", **asked)
    assert awake["layer"] == "stage3.1"
    assert sorted(awake["shown"]) == list(range(64))  # each once


def test_a_layer_is_asleep_by_the_same_rule_as_in_the_notebook_excitation(monkeypatch, tmp_path):
    monkeypatch.setenv("SENET_DATA", str(tmp_path / "nothing"))
    found = run_cells("attention", "a5eef016")
    run, data = find_pretrained("se_resnet20", 0, "smoke"), load_data("shapes")
    images = normalise(torch.from_numpy(data.x_test[:100]), run.mean, run.std)
    rows = layer_table(record_gates(run.load_model(), images), data.y_test[:100])
    still = rows["layer"][rows["constant_share"] == 1].str.removesuffix(".attention")
    assert found["asleep"] == still.tolist()


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"seed": 1}, "seed 1, are not published"),  # its record is, its weights are not
        ({"layer": "stage9.1"}, "unknown attention layer 'stage9.1'; did you mean .*stage2.1"),
    ],
)
def test_what_cannot_be_had_is_an_error(asked, said, monkeypatch, tmp_path):
    monkeypatch.setenv("SENET_DATA", str(tmp_path / "nothing"))
    with pytest.raises(SenetError, match=said):
        run_cells("attention", "a5eef016", **asked)


def test_a_network_whose_weights_nobody_published_is_untrained(monkeypatch, tmp_path):
    monkeypatch.setenv("SENET_DATA", str(tmp_path / "nothing"))
    found = run_cells("attention", "asleep", model="se_resnet20+reduction=4")
    assert found["record"] is None
    assert found["taught"] == "untrained"


@pytest.mark.slow
def test_a_run_of_another_network_is_set_against_its_own_plain_form(tmp_path):
    name, own = "se_res2net29+stages=2,3", {"base_width": 8}  # a stage has no SE
    run = make_run(tmp_path, name, 0, 0.5, overrides=own, **data_fields(load_data("shapes")))
    torch.manual_seed(0)
    network = create_model(name, **own)
    for part in network.modules():
        if isinstance(part, ExciteGate):
            torch.nn.init.uniform_(part.reduce.weight)  # none is asleep
    save_network(run, network)
    asked = {"run": str(run.path), "layer": "stage3.0", "num_images": 20, "channels": 3}
    found = run_cells("attention", "862c2252", **asked)
    plain = create_model("res2net29+base_width=8")
    counts = [sum(p.numel() for p in net.parameters()) for net in (plain, network)]
    assert found["num_params"] == counts
    assert found["costs"]["C"].tolist() == [64] * 3 + [128] * 3
