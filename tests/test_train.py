"""Training: determinism, stopping and resuming, and what a run leaves behind."""

import copy
import dataclasses
import errno
import gc
import json
import os
import shutil
import signal
import socket
import sys
import weakref
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fake_runs import save_shapes
from torch import nn

from senet_lib import kernels
from senet_lib.data.augment import crop_flip, draw_epoch, normalise, pad_images
from senet_lib.data.datasets import load_data
from senet_lib.device import DTYPES, Setup, rounding
from senet_lib.errors import (
    NonFiniteLossError,
    OutOfMemoryError,
    RecipeError,
    RecordError,
    RunExistsError,
    RunStopped,
    SenetError,
)
from senet_lib.models import create_model, registry
from senet_lib.models.cnn import WhiteningStem
from senet_lib.recipe import Recipe, learning_rate
from senet_lib.runs.lock import locked
from senet_lib.runs.records import RECORD, load_run
from senet_lib.runs.weights import CHECKPOINT, WEIGHTS, load_network
from senet_lib.training import plan as plan_module
from senet_lib.training.engine import Engine, _Average
from senet_lib.training.fit import fit

RECIPE = Recipe(epochs=2, batch_size=32, lr=0.05, lr_policy="one_cycle")
LEFT = {"record.json", "history.csv", "test_logits.npz", "weights.safetensors"}
AVERAGED = {"recipe": dataclasses.replace(RECIPE, ema=0.9, cutout=8), "seed": 5}
PLAIN = Setup(device="cpu", precision="fp32", compile=False, threads=1)


@pytest.fixture(scope="session")
def small_data(tmp_path_factory):
    """A file with 192 training and 64 test images."""
    return save_shapes(tmp_path_factory.mktemp("data") / "small.npz", 192, 64)


@pytest.fixture(scope="module")
def options(small_data):
    """Arguments of fit: the small data in fp32."""
    return {
        "model": "resnet20", "recipe": RECIPE, "data": small_data, "device": "cpu",
        "precision": "fp32", "compile": "off", "progress": "none",
    }  # fmt: skip


@pytest.fixture
def train(options, tmp_path):
    """Calls fit in a folder of this test."""
    return lambda folder="run", **changes: fit(**{**options, "out": tmp_path / folder, **changes})


@pytest.fixture(scope="module")
def whole(options, tmp_path_factory):
    """A run that nothing happened to, which no test changes."""
    return fit(**options, out=tmp_path_factory.mktemp("whole") / "run")


@pytest.fixture(scope="module")
def averaged(options, tmp_path_factory):
    """One with an average of the weights, and cutout."""
    return fit(**{**options, **AVERAGED, "out": tmp_path_factory.mktemp("averaged") / "run"})


@pytest.fixture
def threads_kept():
    """A run that sets the threads sets them for the process."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def weights(folder):
    model, _ = load_network(folder / WEIGHTS)
    return model.state_dict()


def assert_same_weights(a, b):
    first, second = weights(a), weights(b)
    assert first.keys() == second.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


def test_a_run_leaves_a_whole_record(whole, small_data):
    assert whole == load_run(whole.path)
    assert {path.name for path in whole.path.iterdir()} == LEFT
    promised = (
        "status study protocol model seed recipe device precision test_error num_params macs "
        "images_per_second wall_seconds peak_memory_mib data_fingerprint git_commit versions"
    )
    assert set(json.loads((whole.path / RECORD).read_text("utf-8"))) >= set(promised.split())
    assert (whole.status, whole.protocol) == ("finished", "custom")
    assert (whole.num_params, whole.macs) == (272_474, 40_813_184)
    assert whole.recipe == RECIPE.to_dict()
    assert whole.wall_seconds > 0
    assert whole.peak_memory_mib > 0
    assert list(whole.history.epoch) == [1, 2]
    assert whole.history.test_error.iloc[-1] == whole.test_error
    logits, labels = whole.test_logits()
    assert logits.shape == (64, 10)
    assert labels.tolist() == load_data(small_data).y_test.tolist()
    assert float((logits.argmax(1) != labels).mean()) == whole.test_error


def losses_of(train, folder="run", **changes):
    """The loss of each step of a run."""
    losses = []
    train(folder, **changes, on_epoch=lambda _, result, *__: losses.append(result.step_losses))
    return torch.cat(losses)


def test_the_same_seed_gives_the_identical_loss_trace(train):
    a, b, c = (losses_of(train, name, seed=seed) for name, seed in (("a", 3), ("b", 3), ("c", 4)))
    assert a.shape == (2 * 6,)
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_losses_equal_those_of_a_loop_written_plainly(train, small_data):
    """The paper's update, written out: crop, flip, normalise, SGD with momentum and decay."""
    recipe = dataclasses.replace(RECIPE, lr_policy="step", schedule=(1,), epochs=4)
    trace = losses_of(train, recipe=recipe, seed=5)
    data = load_data(small_data)
    torch.manual_seed(5)
    model = create_model("resnet20").to(memory_format=torch.channels_last)  # rounding follows it
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4)
    padded = pad_images(torch.from_numpy(data.x_train), 4)
    labels = torch.from_numpy(data.y_train)
    losses = []
    for epoch in range(4):
        plan = draw_epoch(192, 5, epoch, 4, 0.5)
        for step in range(6):
            rows = slice(32 * step, 32 * step + 32)
            index = plan.order[rows]
            images = crop_flip(
                padded, index, plan.offset_y[rows], plan.offset_x[rows], plan.flipped[rows]
            )
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(recipe, 6 * epoch + step, 6)
            optimizer.zero_grad()
            loss = F.cross_entropy(model(normalise(images, data.mean, data.std)), labels[index])
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    assert len(losses) == 24
    assert trace.tolist() == pytest.approx(losses, abs=1e-5)


def test_the_average_of_the_weights_is_what_is_evaluated_and_kept(averaged, small_data):
    """ema and cutout against the same steps and the same average, written out."""
    recipe = AVERAGED["recipe"]
    data = load_data(small_data)
    torch.manual_seed(5)
    model = create_model("resnet20").to(memory_format=torch.channels_last)
    engine = Engine(model, data, dataclasses.replace(recipe, ema=0.0), 5, PLAIN)
    state = model.state_dict()
    average = {k: v.clone() for k, v in state.items() if v.is_floating_point()}
    count = 0
    for epoch in range(2):
        model.train()
        for step, images, labels in engine.batches(epoch):
            plain = next(iter(Engine(model, data, RECIPE, 5, PLAIN).batches(epoch, step)))[1]
            changed = (images != plain).any(-1)  # (B, H, W)
            assert changed.any((1, 2)).all()
            assert changed.sum((1, 2)).max() <= 64
            engine.train_step(images, labels, learning_rate(recipe, 6 * epoch + step, 6), step)
            past = min(0.9, (1 + count) / (10 + count))
            count += 1
            for name, value in average.items():
                average[name] = past * value + (1 - past) * state[name]
    kept = weights(averaged.path)
    for name, value in average.items():
        torch.testing.assert_close(kept[name], value, rtol=1e-4, atol=1e-6)
    assert (kept["head.linear.weight"] - state["head.linear.weight"]).abs().max() > 1e-4


def test_biases_of_normalisations_learn_faster_and_decay_as_before(small_data):
    """One step of lr .5, wd .2 and a factor of 8: b - 8 lr g - lr wd b, all else as without it."""
    found, data = [], load_data(small_data)
    for factor in (1.0, 8.0):
        torch.manual_seed(0)
        model = create_model("resnet20")
        biases = [f"{k}.bias" for k, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)]
        with torch.no_grad():
            for name in biases:
                model.get_parameter(name).fill_(1.0)
        recipe = Recipe(batch_size=64, weight_decay=0.2, momentum=0.0, norm_bias_lr=factor)
        engine = Engine(model, data, recipe, 0, PLAIN)
        step, images, labels = next(iter(engine.batches(0)))
        engine.train_step(images, labels, 0.5, step)
        found.append(dict(model.named_parameters()))
    usual, fast = found
    for name in usual:
        expected = usual[name]
        if name in biases:
            decayed = 1 - 0.5 * 0.2
            expected = decayed + 8 * (usual[name] - decayed)
        torch.testing.assert_close(fast[name], expected, rtol=1e-4, atol=1e-6)
    assert max((usual[name] - fast[name]).abs().max() for name in biases) > 1e-3


def test_the_test_images_are_looked_at_every_so_many_epochs_and_at_the_end(train):
    recipe = dataclasses.replace(RECIPE, epochs=3)
    every, some = train("every", recipe=recipe), train("some", recipe=recipe, test_every=2)
    assert list(some.history.test_error.isna()) == [True, False, False]
    assert list(some.history.test_error[1:]) == list(every.history.test_error[1:])
    assert some.test_error == every.test_error
    assert_same_weights(every.path, some.path)


def test_a_finished_run_is_not_trained_again(train, whole, tmp_path, monkeypatch):
    folder = shutil.copytree(whole.path, tmp_path / "run")
    first, before = load_run(folder), (folder / WEIGHTS).stat().st_mtime_ns
    for name in ("checkpoint.pt", "checkpoint.previous.pt", ".lock", ".record.json.h.1.partial"):
        (folder / name).touch()  # what a process killed after its record left
    assert train() == train(precision="auto") == first
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "pandas", None)  # it is not needed to train
        assert train() == first
    assert {path.name for path in folder.iterdir()} == LEFT
    for change, says in (  # and another one is refused
        ({"recipe": dataclasses.replace(RECIPE, epochs=3)}, "epochs: 2 there, 3 asked"),
        ({"seed": 1}, "seed: 0 there, 1 asked"),
        ({"model": "se_resnet20"}, "model: resnet20 there, se_resnet20 asked"),
        ({"precision": "bf16"}, "precision: fp32 there, bf16 asked"),
        ({"num_val": 10}, "num_val: 0 there, 10 asked"),
    ):
        with pytest.raises(RunExistsError, match=says):
            train(**change)
    assert load_run(folder) == first
    assert (folder / WEIGHTS).stat().st_mtime_ns == before
    content = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(RecordError, match=r"weights\.safetensors was changed"):
        train()


def test_a_finished_run_is_the_same_with_its_stages_in_a_tuple_or_a_list(train):
    how = {"model": "se_resnet20", "recipe": dataclasses.replace(RECIPE, epochs=1)}
    first = train("run", **how, overrides={"stages": (1, 3)})
    assert train("run", **how, overrides={"stages": (1, 3)}) == first
    assert train("run", **how, overrides={"stages": [1, 3]}) == first


def test_a_run_that_stopped_has_a_network_goes_on_with_its_own_recipe_and_ends(
    train, whole, tmp_path, capsys
):
    with pytest.raises(RunStopped):
        train("parts", on_epoch=stop_by(signal.SIGINT))
    capsys.readouterr()
    assert (tmp_path / "parts" / CHECKPOINT).is_file()
    assert not (tmp_path / "parts" / RECORD).exists()
    for path in (tmp_path / "parts", tmp_path / "parts" / CHECKPOINT):
        model, spec = load_network(path)
        assert (spec.model, model.training) == ("resnet20", False)
        assert spec.data_fingerprint == whole.data_fingerprint
        assert "has not ended: 1 whole epoch\n" in capsys.readouterr().err
    with pytest.raises(RunExistsError, match=r"lr: 0\.05 there, 0.1 asked"):
        train("parts", recipe=dataclasses.replace(RECIPE, lr=0.1))
    assert list(train("parts").history.test_error) == list(whole.history.test_error)
    assert not (tmp_path / "parts" / CHECKPOINT).exists()
    one = dataclasses.replace(RECIPE, epochs=1, batch_size=192)  # its one step is the last
    assert train("one", recipe=one, max_minutes=1e-6).status == "finished"


def stop_by(*signals):
    """Raises signals at each epoch's end."""
    return lambda *_: [signal.raise_signal(number) for number in signals]


def test_a_sigint_that_follows_a_sigterm_does_not_cost_the_checkpoint(train, tmp_path):
    """A job that is cancelled gets the one, and its notebook then sends its kernel the other."""
    with pytest.raises(RunStopped, match=r"SIGTERM.*epoch 2 of 2 after step 0"):
        train(on_epoch=stop_by(signal.SIGTERM, signal.SIGINT))
    assert (tmp_path / "run" / CHECKPOINT).is_file()


def test_a_signal_that_comes_too_late_to_act_on_is_handed_on(train, tmp_path):
    """Or a next run would begin: of the last epoch, and where `on_epoch` ends the run."""

    def late(history, *_):
        if len(history) == 2:
            signal.raise_signal(signal.SIGINT)

    def failing(*_):
        signal.raise_signal(signal.SIGTERM)
        raise LookupError

    seen = []
    before = signal.signal(signal.SIGTERM, lambda number, _: seen.append(number))
    try:
        with pytest.raises(LookupError):
            train("failed", on_epoch=failing)
        assert seen == [signal.SIGTERM]
        with pytest.raises(RunStopped):
            train("stopped", on_epoch=stop_by(signal.SIGTERM))
        assert seen == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)
    with pytest.raises(KeyboardInterrupt):
        train(on_epoch=late)
    assert load_run(tmp_path / "run").status == "finished"


def test_two_processes_cannot_train_in_one_folder(train, tmp_path):
    with locked(tmp_path / "run" / ".lock", ""), pytest.raises(RunExistsError, match="another"):
        train()


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_no_obstacle_and_a_second_host_is_noticed(
    tmp_path, monkeypatch, number
):
    fcntl = pytest.importorskip("fcntl")

    def refuse(file, operation):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    path = tmp_path / "run" / ".lock"
    with locked(path, "busy"):
        assert path.read_text().split()[:2] == [str(os.getpid()), socket.gethostname()]
        with pytest.raises(RunExistsError, match="busy"), locked(path, "busy"):
            pass
    assert not path.parent.exists()
    path.parent.mkdir()
    path.write_text("7\nanother-host\n")
    with pytest.raises(RunExistsError, match=r"busy.*another-host"), locked(path, "busy"):
        pass
    path.write_text(f"4194303\n{socket.gethostname()}\n")  # no such process: it has died
    with locked(path, "busy"):
        pass


def test_a_closed_terminal_is_a_stop_unless_it_is_to_be_ignored(train, tmp_path):
    hang_up = stop_by(signal.SIGHUP)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        assert train("ignored", on_epoch=hang_up).status == "finished"
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        with pytest.raises(RunStopped, match="SIGHUP"):
            train("heard", on_epoch=hang_up)
    finally:
        signal.signal(signal.SIGHUP, before)
    assert (tmp_path / "heard" / CHECKPOINT).is_file()


def test_a_signal_during_planning_stops_before_anything_is_written(train, monkeypatch, tmp_path):
    def interrupted(data):
        signal.raise_signal(signal.SIGTERM)
        return load_data(data)

    monkeypatch.setattr(plan_module, "load_data", interrupted)
    with pytest.raises(RunStopped, match="SIGTERM"):
        train()
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("recipe", "step"),
    [
        # One step, and it is the last.
        (Recipe(epochs=1, batch_size=192, lr=1e30, schedule=()), "1"),
        (dataclasses.replace(RECIPE, lr=1e20, lr_policy="step", weight_decay=1.0), r"\d+"),
    ],
)
def test_a_diverging_loss_ends_the_run_and_names_the_step(train, tmp_path, recipe, step):
    with pytest.raises(NonFiniteLossError, match=f"epoch 1, step {step}") as caught:
        train(recipe=recipe)
    assert caught.value.epoch == 1
    assert not (tmp_path / "run" / RECORD).exists()


CUBLAS = RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")
OUT = torch.OutOfMemoryError("CUDA out of memory.")


@pytest.mark.parametrize("error", [MemoryError(), OUT, CUBLAS])
def test_too_little_memory_is_one_line_that_names_the_run(train, tmp_path, monkeypatch, error):
    def fail(*arguments):
        raise error

    monkeypatch.setattr(Engine, "train_step", fail)
    with pytest.raises(OutOfMemoryError, match=f"resnet20 in {tmp_path / 'run'}") as caught:
        train()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("few", [{"batch_size": 1}, {"train_images": 1}])
def test_a_step_of_too_few_images_for_a_normalisation_is_one_line(train, tmp_path, few):
    recipe = Recipe(epochs=1, **few)
    with pytest.raises(RecipeError, match=r"resnet50 .*batch_size above 1"):
        train(model="resnet50", recipe=recipe)  # at 32 pixels its last maps have one
    assert not (tmp_path / "run").exists()


def test_bf16_and_held_out_images_are_recorded(train):
    record = train(precision="bf16", num_val=48)
    assert (record.precision, record.evaluated_on, record.num_val) == ("bf16", "val", 48)
    assert [len(part) for part in record.test_logits()] == [48, 48]
    assert np.isfinite(record.history.train_loss).all()
    assert weights(record.path)["stem.conv.weight"].dtype == torch.float32


def test_epochs_are_told_and_on_disk_as_they_come_and_the_process_is_left_as_it_was(
    train, tmp_path, capsys
):
    cudnn, lengths, seen = torch.backends.cudnn, [], []

    def look(*_):
        seen.append(cudnn.allow_tf32)
        lengths.append(len((tmp_path / "run" / "history.csv").read_text().splitlines()) - 1)

    with rounding(tf32=True):
        record = train(progress="log", on_epoch=look)
        assert cudnn.allow_tf32
    assert seen == [False] * 2  # fp32 means fp32
    assert lengths == [1, 2]
    last = record.history.iloc[-1]
    accuracy = 100 * (1 - last.test_error)
    line = capsys.readouterr().out.splitlines()[-1]
    assert line == f"Epoch 2 - Loss: {last.train_loss:.2f} | Test Acc: {accuracy:.1f}%"


def test_what_no_record_could_say_is_refused_before_the_first_step(small_data, tmp_path):
    """And a path is as good as its text."""
    asked = {"model": "resnet20", "recipe": RECIPE, "seed": 0, "out": None, "study": None,
             "protocol": None, "overrides": {}, "num_val": 0, "data": Path(small_data)}  # fmt: skip
    assert plan_module.make_job(**asked).spec.data == small_data
    for name, value in (("num_val", np.int64(8)), ("num_val", 8.0), ("recipe", {"epochs": 1})):
        with pytest.raises(RecipeError, match=name):
            plan_module.make_job(**{**asked, name: value})


def test_a_network_meant_for_one_channel_is_trained_on_three(small_data, monkeypatch, prints):
    monkeypatch.setattr(registry, "_MODELS", dict(registry._MODELS))

    @registry.register_model("grey", summary="the mean colour", input_size=(1, 16, 16))
    def grey(num_classes: int, in_channels: int) -> nn.Module:
        layers = nn.AdaptiveAvgPool2d(1), nn.Flatten()
        return nn.Sequential(*layers, nn.Linear(in_channels, num_classes))

    asked = {"seed": 0, "out": None, "study": None, "protocol": None, "overrides": {}, "num_val": 0}
    job = plan_module.make_job("grey", RECIPE, data=small_data, **asked)
    assert (job.num_params, job.macs) == (40, 30)
    assert prints("profile", "--model", "grey").splitlines()[1].split()[1:3] == ["20", "10"]


def test_what_is_no_classifier_or_cannot_be_kept_is_one_line(small_data, monkeypatch):
    monkeypatch.setattr(registry, "_MODELS", dict(registry._MODELS))
    pooled = nn.AdaptiveAvgPool2d(1), nn.Flatten()

    class Pair(nn.Sequential):
        def forward(self, x):
            return super().forward(x), x

    class Stateful(nn.Linear):
        def get_extra_state(self):
            return {"seen": 3}

    made = {
        r"makes \(1, 15\) of one image; a classifier of 10 classes makes \(1, 10\)": nn.Linear(
            3, 15
        ),
        "makes a tuple of one image": Pair(nn.Linear(3, 10)),
        "no parameter that can be trained": nn.Linear(3, 10).requires_grad_(False),
        "lazy layers": nn.LazyLinear(10),
        "get_extra_state": Stateful(3, 10),
    }
    asked = {"seed": 0, "out": None, "study": None, "protocol": None, "overrides": {}, "num_val": 0}
    for number, (said, last) in enumerate(made.items()):
        build = registry.register_model(f"own{number}", summary="own", input_size=(3, 32, 32))
        build(lambda num_classes, in_channels, last=last: nn.Sequential(*pooled, last))
        with pytest.raises(SenetError, match=said):
            plan_module.make_job(f"own{number}", RECIPE, data=small_data, **asked)


def test_an_average_takes_shared_and_complex_values_once_and_counts_as_they_are():
    network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.BatchNorm1d(2))
    network[1].weight = network[0].weight
    network.phase = nn.Parameter(torch.zeros(3, dtype=torch.complex64))
    average = _Average(network, 0.9)
    average.steps = 10**6
    before = [value.clone() for value in average.network.parameters()]
    with torch.no_grad():
        for value in (*network.parameters(), *network.buffers()):
            value += 1
    average.update()
    for was, value in zip(before, average.network.parameters(), strict=True):
        torch.testing.assert_close(value, was + 0.1)
    assert average.network[2].num_batches_tracked == 1


def test_weights_of_five_dimensions_complex_ones_and_shared_biases_are_trained(small_data):
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.turn = nn.Parameter(torch.ones(3, dtype=torch.complex64))
            self.deep, self.last = nn.Conv3d(1, 1, 3, padding=1), nn.Linear(3, 10)
            self.norms = nn.ModuleList([nn.BatchNorm2d(3), nn.BatchNorm2d(3)])
            self.norms[1].bias = self.norms[0].bias

        def forward(self, x):
            x = self.norms[1](self.norms[0](self.deep(x[:, None])[:, 0]))
            return self.last((x.mean((2, 3)) * self.turn).real)

    moved = []
    for factor in (1.0, 4.0):
        torch.manual_seed(0)
        recipe = Recipe(batch_size=64, momentum=0.0, weight_decay=0.0, norm_bias_lr=factor)
        engine = Engine(
            Odd(), load_data(small_data), recipe, 0, dataclasses.replace(PLAIN, fused=True)
        )
        step, images, labels = next(engine.batches(0))
        engine.train_step(images, labels, 0.1, step)
        assert (engine.model.turn != 1).any()
        moved.append(engine.model.norms[0].bias.detach())
    torch.testing.assert_close(moved[1], 4 * moved[0])


def test_a_run_made_below_the_top_names_its_data_as_the_top_sees_it(
    small_data, tmp_path, monkeypatch
):
    (tmp_path / "Snakefile").touch()
    for name in ("senet_lib", "mine"):
        (tmp_path / name).mkdir()
    for place in ("mine/few.npz", "more.npz", "shapes"):
        shutil.copy(small_data, tmp_path / place)
    asked = {"seed": 0, "out": None, "study": None, "protocol": None, "overrides": {}, "num_val": 0}
    for folder, data, named in (
        ("mine", "few.npz", "mine/few.npz"), ("mine", "../more.npz", "more.npz"),
        ("mine", "mine/few.npz", "mine/few.npz"), (".", "./more.npz", "./more.npz"),
        ("mine", "../shapes", "./shapes"), ("mine", small_data, small_data),
    ):  # fmt: skip
        monkeypatch.chdir(tmp_path / folder)
        assert plan_module.make_job("resnet20", RECIPE, data=data, **asked).spec.data == named


def test_a_study_without_a_name_is_called_alike_by_every_version(small_data):
    """Or a run that was stopped would not be found after an update."""
    asked = {"seed": 0, "out": None, "study": None, "protocol": None, "overrides": {}}
    job = plan_module.make_job("resnet20", RECIPE, data=small_data, num_val=8, **asked)
    assert job.study == "small-9e25a0"  # a field that is added later, with its default, is not seen


def test_an_epoch_uses_every_full_batch_once(small_data):
    data = load_data(small_data)
    engine = Engine(create_model("resnet20"), data, Recipe(batch_size=50, padding=0), 0, PLAIN)
    seen = []
    engine.train_step = lambda images, labels, lr, step: seen.append((images, labels))
    engine.run_epoch(0, 0, lambda step: None)
    assert engine.steps_per_epoch == 3
    images = torch.cat([images for images, _ in seen]).numpy()
    assert images.shape == (150, 32, 32, 3)
    known = {image.tobytes() for image in (*data.x_train, *data.x_train[:, :, ::-1])}
    shown = {image.tobytes() for image in images}
    assert len(shown) == 150
    assert shown <= known
    engine = Engine(create_model("resnet20"), data, Recipe(batch_size=1000), 0, PLAIN)
    assert (engine.batch_size, engine.steps_per_epoch) == (192, 1)  # more than there are


def test_what_a_network_draws_and_how_it_is_updated_outlive_a_stop(small_data):
    """Dropout, and the optimiser's own arithmetic, which is the setup's and no checkpoint's."""
    data = load_data(small_data)

    def engine() -> Engine:
        torch.manual_seed(0)
        layers = (nn.Flatten(), nn.Dropout(), nn.Linear(3072, 10))
        return Engine(nn.Sequential(*layers), data, Recipe(batch_size=32), 0, PLAIN)

    whole, first, rest = engine(), engine(), engine()
    whole.run_epoch(0, 0, lambda step: None)

    def stop(step: int) -> None:
        if step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        first.run_epoch(0, 0, stop)
    state = copy.deepcopy(first.state())
    state["optimizer"]["param_groups"][0]["fused"] = True
    rest.load_state(state)
    rest.run_epoch(0, 2, lambda step: None)
    assert not rest.optimizer.param_groups[0]["fused"]
    for ours, theirs in zip(rest.model.parameters(), whole.model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_a_gpu_has_whitening_from_the_cpu_and_the_update_that_pytorch_takes(
    small_data, monkeypatch
):
    data, seen = load_data(small_data), []
    monkeypatch.setattr(WhiteningStem, "fit_to_images", lambda _, some: seen.append(some.device))
    for device, precision, fused in (("meta", "fp32", None), ("cpu", "fp32", False),
                                     ("meta", "bf16", None), ("cpu", "bf16", True)):  # fmt: skip
        setup = dataclasses.replace(PLAIN, device=device, precision=precision)
        engine = Engine(create_model("cnn7"), data, Recipe(), 0, setup)
        assert engine.optimizer.param_groups[0]["fused"] is fused
    assert seen == [torch.device("cpu")] * 4


def test_every_network_of_a_process_is_compiled(small_data, monkeypatch):
    graphs = []

    def backend(graph, _):
        graphs.append(graph)
        return graph.forward

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    setup = dataclasses.replace(PLAIN, compile=True)
    with torch._dynamo.config.patch(recompile_limit=2):
        for width in range(1, 5):
            layers = (nn.Flatten(), nn.Linear(3072, width), nn.Linear(width, 10))
            args = load_data(small_data), Recipe(batch_size=32), 0, setup
            engine = Engine(nn.Sequential(*layers), *args)
            step, images, labels = next(engine.batches(0))
            engine.train_step(images, labels, 0.1, step)
            assert len(graphs) == width


def test_momentum_lies_as_the_weights_do_wherever_it_comes_from(small_data):
    data, setup = load_data(small_data), dataclasses.replace(PLAIN, precision="bf16")

    def engine() -> Engine:
        torch.manual_seed(0)
        layers = (nn.Conv2d(3, 4, 5), nn.Flatten(), nn.Linear(4 * 28 * 28, 10))
        return Engine(nn.Sequential(*layers), data, Recipe(batch_size=64), 0, setup)

    def step_from(state: dict) -> list[torch.Tensor]:
        made = engine()
        made.load_state(copy.deepcopy(state))
        made.run_epoch(1, 0, lambda step: None)
        return list(made.model.parameters())

    first = engine()
    first.run_epoch(0, 0, lambda step: None)
    state = copy.deepcopy(first.state())
    plain = copy.deepcopy(state)
    for held in plain["optimizer"]["state"].values():  # as Apple's GPUs have it
        held["momentum_buffer"] = held["momentum_buffer"].contiguous()
    for ours, theirs in zip(step_from(plain), step_from(state), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_a_run_holds_no_memory_when_the_next_begins(train, monkeypatch):
    there, make = weakref.WeakSet(), Engine.__init__

    def watched(self, *args):
        assert len(there) == 0
        there.add(self)
        make(self, *args)

    monkeypatch.setattr(Engine, "__init__", watched)
    gc.disable()
    try:
        for folder in ("first", "second"):
            train(folder, recipe=dataclasses.replace(RECIPE, epochs=1))
    finally:
        gc.enable()


KERNELS = {"compile": "auto", "threads": 1, "model": "se_resnet20"}


@pytest.mark.parametrize(
    "settings",
    [
        {},
        AVERAGED,
        {**KERNELS, "precision": "fp32"},
        # Half a minute where a processor has no bf16 of its own.
        pytest.param({**KERNELS, "precision": "bf16"}, marks=pytest.mark.slow),
    ],
)
def test_stops_within_an_epoch_and_after_it_change_no_weight(train, threads_kept, settings):
    fused = "compile" in settings
    if fused and (why := kernels.missing(DTYPES[settings["precision"]])):
        pytest.skip(why)
    whole = train("whole", **settings)
    for where, how in (
        ("epoch 1 of 2 after step 1", {"max_minutes": 1e-6}),
        ("epoch 1 of 2 after step 2", {"max_minutes": 1e-6}),
        ("epoch 2 of 2 after step 0", {"on_epoch": stop_by(signal.SIGINT)}),
        ("epoch 2 of 2 after step 1", {"max_minutes": 1e-6}),
    ):
        with pytest.raises(RunStopped, match=where):
            train("parts", **settings, **how)
    parts = train("parts", **settings)
    assert whole.fused == parts.fused == fused
    assert_same_weights(whole.path, parts.path)
    assert list(parts.history.train_loss) == list(whole.history.train_loss)
