"""Gates by hand: from a layer's own weights, on arrays small enough for paper, and left alone."""

import copy
import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fake_runs import RECIPE, data_fields, make_run, save_network
from notebook_cells import run_cells
from torch import Tensor, nn

from senet_lib.analysis import gates as excitation
from senet_lib.analysis import interventions
from senet_lib.analysis.gates import Gates, NoAttentionError
from senet_lib.device import Setup
from senet_lib.errors import (
    DataError,
    ParameterError,
    RecordError,
    SenetError,
    UnknownNameError,
)
from senet_lib.files import anchored
from senet_lib.models import create_model
from senet_lib.models.attention import AttentionSpec, ExciteGate, build_attention
from senet_lib.recipe import Recipe
from senet_lib.training.engine import Engine


class SmallNet(nn.Module):
    """1x1 conv - SE (r = 2) - mean - linear; only the attention has hooks to find."""

    def __init__(self, channels: int = 4, classes: int = 3, **options) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, channels, 1)
        spec = AttentionSpec(**{"attention": "se", "reduction": 2, **options})
        self.attention = build_attention(channels, spec)
        self.linear = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.attention(self.conv(x)).mean((2, 3)))


def noise(num: int, size: int = 8) -> Tensor:
    return torch.randn(num, 3, size, size, generator=torch.Generator().manual_seed(1))


def gates_of(values: list) -> Gates:
    return Gates(values={"stage1.0.attention": np.array(values, np.float32)})


def test_gates_are_what_the_layers_own_weights_give_in_any_batch(monkeypatch):
    model, images = SmallNet(), noise(7)
    found = excitation.record_gates(model, images)
    with torch.no_grad():
        squeezed = model.conv(images).mean((2, 3)).numpy()
    reduce, expand = (p.detach().numpy() for p in model.attention.gate.parameters())
    expected = 1 / (1 + np.exp(-np.maximum(squeezed @ reduce.T, 0) @ expand.T))
    assert found.layers == ["attention"]
    assert found.values["attention"] == pytest.approx(expected, abs=1e-6)
    monkeypatch.setattr(excitation, "BATCH", 3)
    parts = excitation.record_gates(model, images).values["attention"]
    assert parts == pytest.approx(expected, abs=1e-6)
    assert parts.base is None  # only gates are kept


def test_layers_are_named_by_path_in_the_order_they_run():
    class Reversed(nn.Module):
        """Runs its last block first."""

        def __init__(self) -> None:
            super().__init__()
            self.late, self.early = SmallNet(4, 3), nn.ModuleDict()
            self.early["attention"] = build_attention(3, AttentionSpec(attention="se"))

        def forward(self, x: Tensor) -> Tensor:
            return self.late(self.early["attention"](x))

    found = excitation.record_gates(Reversed(), noise(2))
    assert found.layers == ["early.attention", "late.attention"]
    found = excitation.record_gates(create_model("se_res2net29_last"), noise(1, size=32))
    assert found.layers == [f"stage{s}.{b}.attention" for s in (1, 2, 3) for b in range(3)]
    assert [found.stage(layer) for layer in found.layers] == [1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert found.ends == [f"stage{s}.2.attention" for s in (1, 2, 3)]


def test_a_stage_is_shown_by_its_last_layer_that_looks():
    """Or, where none does, by its last one, in the order of the stages."""
    looks, asleep = np.array([[0.2, 0.5], [0.8, 0.5]]), np.full((2, 2), 0.5)
    layers = {"stage1.0": looks, "stage1.1": looks, "stage1.2": asleep}
    layers |= {"stage2.0": asleep, "stage2.1": asleep, "stage3.0": looks}
    found = Gates(values={f"{name}.attention": v for name, v in layers.items()})
    assert found.ends == [f"stage{end}.attention" for end in ("1.1", "2.1", "3.0")]


@pytest.mark.parametrize("attention", ["se", "eca", "cbam", "scse", "ge", "scale"])
def test_every_attention_has_one_gate_an_image_and_channel(attention):
    reduction = 2 if attention in ("se", "cbam", "scse") else 16
    model, images = SmallNet(attention=attention, reduction=reduction), noise(3)
    seen = []
    model.attention.gate.register_forward_hook(lambda module, inputs, gate: seen.append(gate))
    found = excitation.record_gates(model, images)
    assert found.values["attention"].shape == (3, 4)
    expected = seen[0].detach().mean((2, 3)).numpy()
    assert found.values["attention"] == pytest.approx(expected, abs=1e-6)
    assert found.averaged == (("attention",) if attention == "scse" else ())


class Own(nn.Module):
    """x * gate(mean), whose gate gives (N, C); `flat` says whether."""

    def __init__(self, flat: bool) -> None:
        super().__init__()
        self.flat, self.gate = flat, nn.Sequential(nn.Linear(4, 4), nn.Sigmoid())
        if not flat:
            self.gate.append(nn.Unflatten(1, (4, 1, 1)))

    def forward(self, x: Tensor) -> Tensor:
        gates = self.gate(x.mean((2, 3)))
        return x * (gates[:, :, None, None] if self.flat else gates)


def test_gates_without_places_are_as_those_with_one():
    """And a parameter of the name is no gate, nor is what gives none to an image."""
    nets, found = [SmallNet(), SmallNet()], []
    images, labels = noise(3), np.array([0, 1, 1])
    for net, flat in zip(nets, (True, False), strict=True):
        net.attention = Own(flat)
        net.load_state_dict(nets[0].state_dict())
        gates = excitation.record_gates(net, images)
        fixed = {"attention": gates.values["attention"].mean(0)}
        found.append([
            gates.values["attention"], gates.averaged,
            interventions.channel_importance(net, images, labels, "attention").to_numpy(),
            interventions.fixed_gates(net, images, labels, fixed),
        ])  # fmt: skip
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)
    nets[0].attention.gate = nn.Flatten(0)
    with pytest.raises(SenetError, match="gate of attention"):
        excitation.record_gates(nets[0], images)
    del nets[0].attention.gate
    nets[0].attention.gate = nn.Parameter(torch.ones(4))
    with pytest.raises(NoAttentionError, match="attention, that has no submodule called gate"):
        excitation.record_gates(nets[0], images)


def test_images_may_be_an_array():
    net, images = SmallNet(), noise(3)
    ours, theirs = (excitation.record_gates(net, some).values for some in (images, images.numpy()))
    np.testing.assert_equal(ours, theirs)


def test_the_model_is_left_as_it_was(untouched):
    model = create_model("se_resnet20").train()
    model.stage2.eval()  # a mode that differs from submodule to submodule
    images, labels = noise(4, size=32), np.array([0, 1, 2, 3])
    with untouched(model):
        layer = excitation.record_gates(model, images).layers[-1]
        interventions.channel_importance(model, images, labels, layer)
        interventions.fixed_gates(model, images, labels, {layer: np.zeros(64)})
        with pytest.raises(RuntimeError):
            excitation.record_gates(model, torch.zeros(2, 5, 32, 32))


class Twice(SmallNet):
    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.attention(self.attention(self.conv(x))).mean((2, 3)))


def test_what_cannot_be_looked_at_is_refused_in_one_line():
    gates, images, labels = gates_of(PAPER), noise(2), np.array([0, 1])
    record = excitation.record_gates
    for error, says, look in (
        (NoAttentionError, "ResNet", lambda: record(create_model("resnet20"), noise(1, size=32))),
        (DataError, "floats", lambda: record(SmallNet(), noise(2)[0])),
        (DataError, "floats", lambda: record(SmallNet(), torch.zeros(2, 3, 8, 8).byte())),
        (DataError, "floats", lambda: record(SmallNet(), noise(2)[:0])),
        (DataError, "floats", lambda: record(SmallNet(), np.zeros((2, 3, 8, 8), np.uint8))),
        (SenetError, "twice", lambda: record(Twice(), noise(2))),
        (DataError, "4 images", lambda: excitation.class_means(gates, np.array([0, 1]))),
        (DataError, "4 images", lambda: excitation.class_means(gates, np.array([0, 1, 1, -1]))),
        (UnknownNameError, "did you mean attention",
         lambda: interventions.channel_importance(SmallNet(), images, labels, "atention")),
        (UnknownNameError, "a name, not a Identity",
         lambda: interventions.channel_importance(SmallNet(), images, labels, nn.Identity())),
        (UnknownNameError, "gate",
         lambda: interventions.fixed_gates(SmallNet(), images, labels, {"gate": np.ones(4)})),
    ):  # fmt: skip
        with pytest.raises(error, match=says):
            look()


PAPER = [[0.2, 0.5], [0.4, 0.5], [0.6, 0.5], [0.8, 0.5]]
LABELS = np.array([0, 0, 1, 1])


def test_class_means_on_paper():
    (means,) = excitation.class_means(gates_of(PAPER), LABELS).values()
    assert means == pytest.approx(np.array([[0.3, 0.5], [0.7, 0.5]]))
    (means,) = excitation.class_means(gates_of(PAPER), np.array([0, 0, 2, 2])).values()
    assert np.isnan(means[1]).all()
    assert means[2] == pytest.approx([0.7, 0.5])


def layer_row(values: list, labels: np.ndarray) -> dict:
    (row,) = excitation.layer_table(gates_of(values), labels).to_dict("records")
    return row


def test_the_share_of_variance_between_classes_on_paper():
    row = layer_row(PAPER, LABELS)
    # Class means 0.3 and 0.7 about 0.5: 0.2; gates 0.1 about their class; 0.04 / (0.04 + 0.01).
    assert row["class_share"] == pytest.approx(0.8)
    assert row["chance"] == pytest.approx(1 / 3)  # (2 - 1) / (4 - 1)
    # Channel 0: all between, variance 0.16; channel 1: all within, variance 0.04.
    values = [[0.1, 0.3], [0.1, 0.7], [0.9, 0.3], [0.9, 0.7]]
    share = layer_row(values, LABELS)["class_share"]
    assert share == pytest.approx(0.16 / (0.16 + 0.04), abs=1e-6)
    # Shuffled labels give the share of chance, within the standard error of 400 shares.
    rng = np.random.default_rng(0)
    row = layer_row(rng.random((60, 400)), rng.permutation(np.arange(60) % 5))
    assert row["chance"] == pytest.approx(4 / 59)
    assert row["class_share"] == pytest.approx(4 / 59, abs=0.01)


def test_counts_of_closed_open_and_constant_gates_on_paper():
    values = [[0.01, 0.5, 0.97], [0.04, 0.5, 0.94], [0.06, 0.5, 0.99], [0.20, 0.5, 0.96]]
    row = layer_row(values, LABELS)
    assert (row["near_zero"], row["near_one"], row["constant"]) == (2, 3, 1)
    assert (row["near_zero_share"], row["near_one_share"]) == (2 / 12, 3 / 12)
    assert row["constant_share"] == pytest.approx(1 / 3)
    assert (row["layer"], row["stage"], row["channels"]) == ("stage1.0.attention", 1, 3)
    assert row["mean"] == pytest.approx((0.31 + 2.0 + 3.86) / 12)
    assert layer_row([[-0.7]] * 4, LABELS)["near_zero"] == 0  # a sign turned is no channel closed


@pytest.mark.parametrize("attention", ["se", "scse"])
def test_importance_is_what_is_lost_without_the_channel(attention):
    model, images = SmallNet(attention=attention), noise(12)
    truth = torch.arange(12) % 3
    with torch.no_grad():
        model.linear.weight[:, 2] = 0  # a channel that the head ignores
        plain = model(images)
    found = interventions.channel_importance(model, images, truth.numpy(), "attention")
    assert found["channel"].tolist() == [0, 1, 2, 3]
    for row in found.itertuples():
        with torch.no_grad():
            maps = model.attention(model.conv(images))
            maps[:, row.channel] = 0
            gone = model.linear(maps.mean((2, 3)))
        expected = F.cross_entropy(gone, truth).item() - F.cross_entropy(plain, truth).item()
        assert (abs(expected) > 1e-5) == (row.channel != 2)
        assert row.loss_change == pytest.approx(expected, abs=1e-6)
        wrong = [(logits.argmax(1) != truth).double().mean().item() for logits in (gone, plain)]
        assert row.error_change == pytest.approx(wrong[0] - wrong[1])
    recorded = excitation.record_gates(model, images).values["attention"].mean(0)
    assert found["mean_gate"].to_numpy() == pytest.approx(recorded, abs=1e-6)


@pytest.mark.parametrize("name", ["se_res2net29", "se_resnet20"])
def test_running_the_first_blocks_once_changes_nothing(name):
    model, images, labels = create_model(name).eval(), noise(2, size=32), torch.tensor([3, 7])
    layer = "stage1.1.attention"
    found = interventions.channel_importance(model, images, labels.numpy(), layer)
    with torch.no_grad():
        plain = F.cross_entropy(model(images), labels).item()
        gate = model.get_submodule(layer).gate
        gate.register_forward_hook(lambda m, i, out: out.index_fill(1, torch.tensor([2]), 0))
        gone = F.cross_entropy(model(images), labels).item()
    assert found["loss_change"][2] == pytest.approx(gone - plain, abs=1e-5)


def test_the_change_of_loss_is_judged_image_by_image():
    plain = np.array([[0, 0, 1, 0], [1.0, 2.0, 3.0, 4.0]])
    worse = plain + np.array([[0] * 4, [0.1, 0.2, 0.3, 0.2]])
    # mean 0.2, standard error 0.0816 / 2, t(3) at 97.5 % is 3.1824
    row = interventions.fixed_table({"none": plain, "all": worse}).loc["all"]
    expected = pytest.approx([0.2, 0.0701, 0.3299], abs=1e-4)
    assert row[["loss_change", "low", "high"]].tolist() == expected
    one = interventions.fixed_table({"none": plain[:, :1], "all": worse[:, :1]}).loc["all"]
    assert one[["low", "high"]].tolist() == [-np.inf, np.inf]
    # That no prediction changes does not say by how much the error may.
    assert np.isnan(row["error_reach"])
    plain[0, 0] = 1
    row = interventions.fixed_table({"none": plain, "all": worse}).loc["all"]
    assert row["error_reach"] == pytest.approx(3.1824 * 0.25, abs=1e-4)


def test_the_telling_classes_are_the_extremes_and_their_neighbours():
    means = np.array([[0.0], [0.1], [0.5], [np.nan], [0.92], [1.0]])
    assert excitation.telling_classes(means) == [0, 1, 5, 4]
    assert excitation.telling_classes(means[:1]) == [0]
    assert excitation.telling_classes(means[:2]) == [0, 1]


@pytest.fixture
def look(tmp_path, shapes):
    """The notebook's variables for a run, what its gates are made of multiplied by factors."""

    def look(model="se_resnet20", by=(), page_folder=str(tmp_path), classes=None, **chosen):
        network = create_model(model)
        for name, value in network.named_parameters():
            if name.endswith("gate.scale"):
                torch.nn.init.uniform_(value)
        gates = [m for m in network.modules() if isinstance(m, ExciteGate)]
        for gate, factor in zip(gates, by, strict=False):
            gate.expand.weight.data *= factor
        about = data_fields(shapes) | {"classes": classes or shapes.classes}
        save_network(make_run(tmp_path, model, 0, 0.5, **about), network)
        asked = {"study": "demo", "model": model, "num_images": 60, "num_importance": 4}
        folders = {"runs_root": str(tmp_path), "page_folder": page_folder}
        return run_cells("excitation", **asked | folders | chosen)

    return look


def test_the_notebook_shows_these_numbers(look, tmp_path, shapes):
    found = look(by=[0, 0.01, *[20] * 7])
    assert found["fixed"].index.tolist() == ["none", "stage 1", "stage 2", "stage 3", "all"]
    by_hand = copy.deepcopy(found["network"])
    for layer, values in found["seen"].values.items():
        assert not np.allclose(found["untrained"].values[layer], values)
        fixed = torch.from_numpy(values.mean(0)).view(1, -1, 1, 1)
        gate = by_hand.get_submodule(layer).gate
        gate.register_forward_hook(lambda m, i, out, fixed=fixed: fixed.expand_as(out))
    with torch.no_grad():
        loss = F.cross_entropy(by_hand(found["images"]), torch.from_numpy(found["labels"]))
    assert found["fixed"].loc["all", "loss"] == pytest.approx(loss.item(), abs=1e-5)
    assert found["fixed"].loc["none", "loss_change"] == 0
    shares = 100 * excitation.layer_table(found["seen"], shapes.y_test[:60])["class_share"]
    assert np.isnan(shares[0])
    looks = found["layers"]["constant_share"] < 1
    assert not looks[:2].any()  # the share of what hardly varies says nothing
    drawn = shares.where(looks).tolist()
    assert found["share"]["trained"].tolist() == pytest.approx(drawn, nan_ok=True)
    assert (found["early"], found["late"]) == tuple(shares[looks].iloc[[0, -1]])
    assert found["chance"] == pytest.approx(100 * 9 / 59)  # (10 - 1) / (60 - 1)
    answer = found["outputs"][-1].markdown
    assert f"In {sum(~looks)} of 9 layers no gate moves" in answer
    sizes = [2 * c * max(c // 16, 1) for c in (16, 32, 64) for _ in range(3)]
    asleep = 100 * np.dot(sizes, ~looks) / sum(sizes)
    assert f"they hold {asleep:.1f} % of the weights" in answer
    assert f"{100 * found['fixed'].loc['all', 'error']:.2f} %" in answer
    kept = interventions.read_summaries(tmp_path).iloc[0]
    assert (kept["model"], kept["images"], kept["layers"]) == ("se_resnet20", 60, 9)
    assert (kept["recipe_id"], kept["varying"]) == (RECIPE.id, looks.sum())
    assert kept["fixed_error"] == found["fixed"].loc["all", "error"]
    stages = excitation.stage_table(found["layers"])
    assert kept["mean_last"] == pytest.approx(stages["mean"].iloc[-1])
    with pytest.raises(NoAttentionError):
        look("resnet20")


@pytest.mark.parametrize(
    ("by", "said"), [(0, "No layer's gates vary"), (20, "In stage3.2, the only layer whose gates")]
)
def test_gates_that_never_vary_know_no_class_and_by_hand_nothing_is_written(look, by, said):
    found = look(by=[*[0] * 8, by], page_folder="")
    assert said in found["outputs"][-1].markdown
    assert not anchored("outputs/reports/demo").exists()


@pytest.mark.parametrize("control", ["scale", "half"])
def test_a_control_that_never_looks_at_the_image_is_of_no_use_to_the_network(look, control):
    found = look(f"resnet20+attention={control}")
    assert (found["fixed"]["loss_change"] == 0).all()
    answer = found["outputs"][-1].markdown
    assert "of the single image is next to nothing" in answer
    assert "weights were zero" not in answer  # it has none


def test_classes_of_any_name_are_in_the_legend(look, monkeypatch, shapes):
    monkeypatch.setattr("senet_lib.runs.evaluate.images_of", lambda *_: shapes)
    names = [f"_{letter}$^$" for letter in "abcdefghij"]
    found = look(by=[20] * 9, classes=names)
    telling = [names[k] for k in found["looks"]]
    assert [text.get_text() for text in found["legend"].texts] == telling


def test_the_worth_of_channels_needs_two_halves_of_images(look):
    with pytest.raises(ParameterError, match="num_importance is 1; it must be at least 2"):
        look(num_importance=1)


@pytest.mark.parametrize("model", ["se_resnet20+squeeze=std", "resnet20+attention=cbam"])
def test_a_layer_counts_though_it_slept_before_and_gates_of_places_are_named(look, model):
    torch.manual_seed(1)  # other layers than those of the untrained network, of seed 0, are asleep
    found = look(model)
    assert len(found["known"]) == 9 - len(found["asleep"])
    cbam = "cbam" in model
    assert found["known"]["untrained"].isna().any() == (not cbam)
    assert ("gates of places stay free" in found["outputs"][-1].markdown) == cbam


def test_the_untrained_network_begins_where_a_training_does(tmp_path, shapes):
    run = make_run(tmp_path, "se_cnn7", 3, 0.5, **data_fields(shapes))
    torch.manual_seed(3)
    setup = Setup(device="cpu", precision="fp32", compile=False, threads=1)
    network = create_model("se_cnn7", num_classes=shapes.num_classes)
    begun = Engine(network, shapes, Recipe(), 3, setup).model
    found = excitation.untrained_network(run, shapes.x_train)
    for ours, theirs in zip(found.parameters(), begun.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_a_stage_whose_gates_hardly_vary_has_no_share_of_variance(tmp_path, shapes):
    still = 0.5 + 1e-4 * LABELS[:, None] * np.ones((1, 2))
    values = {"stage1.0.attention": still, "stage2.0.attention": np.array(PAPER)}
    table = excitation.layer_table(Gates(values=values), LABELS)
    fixed = interventions.fixed_table(dict.fromkeys(("none", "all"), np.zeros((2, 4))))
    run = make_run(tmp_path, "se_resnet20", 0, 0.5)
    interventions.write_summary(run, shapes, 4, table, fixed, str(tmp_path))
    kept = interventions.read_summaries(tmp_path).iloc[0]
    assert kept["data_fingerprint"] == shapes.fingerprint
    assert np.isnan(kept["fixed_reach"])
    assert (kept["mean_first"], kept["constant_share_first"]) == (still.mean(), 1)
    assert table["class_share"][0] > 0
    assert np.isnan(kept["class_share_first"])
    assert kept["class_share_last"] == pytest.approx(0.8)


def test_summaries_without_stages_have_no_ends_and_broken_ones_are_named(tmp_path):
    assert interventions.read_summaries(tmp_path).empty
    path = tmp_path / "gates-odd.json"
    content = dict.fromkeys(interventions.NEEDED, 1) | {"first": None, "last": None}
    path.write_text(json.dumps(content))
    assert np.isnan(interventions.read_summaries(tmp_path).loc[0, "mean_first"])
    for text in ("{", '{"model": "a"}'):
        path.write_text(text)
        with pytest.raises(RecordError, match=path.name):
            interventions.read_summaries(tmp_path)
