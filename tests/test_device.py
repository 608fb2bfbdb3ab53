"""Where and how the arithmetic is done, on machines that are not at hand."""

import os
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from senet_lib.analysis.faithfulness import removal_curve
from senet_lib.analysis.interventions import channel_importance
from senet_lib.device import Setup, memory_format
from senet_lib.errors import RecipeError
from senet_lib.evaluation import error_and_loss
from senet_lib.models.attention import AttentionSpec, build_attention


def _choose(monkeypatch, here, **asked):
    found = torch.device(here) if here else None
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available: found)
    auto = {"device": "auto", "precision": "auto", "compile": "auto", "threads": 0}
    return Setup.choose(**{**auto, **asked})


def test_a_known_accelerator_is_taken_with_plain_arithmetic(monkeypatch):
    for here in ("mps", "xpu"):
        setup = _choose(monkeypatch, here)
        assert (setup.device, setup.precision) == (here, "fp32")
        assert {setup.compile, setup.fused} == {False}
        assert _choose(monkeypatch, here, device="cpu").device == "cpu"
        assert _choose(monkeypatch, here, precision="bf16").precision == "bf16"
    for here in ("hpu", None):
        assert _choose(monkeypatch, here).device == "cpu"


@pytest.mark.parametrize(("here", "asked"), [("mps", "cuda"), (None, "xpu"), ("xpu", "mps")])
def test_one_that_is_not_there_is_refused(monkeypatch, here, asked):
    with pytest.raises(RecipeError, match=f"no {asked} device.*--device {here or 'cpu'}"):
        _choose(monkeypatch, here, device=asked)


def test_no_number_of_threads_is_what_it_was_before_another_was_asked_for():
    def chosen(threads):
        return Setup.choose(device="cpu", precision="fp32", compile="off", threads=threads).threads

    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        assert [chosen(n) for n in (0, 1, 2, 0, 0)] == [3, 1, 2, 3, 3]
    finally:
        torch.set_num_threads(before)


def test_maps_lie_row_by_row_on_apples_gpus():
    assert memory_format("mps") is torch.contiguous_format
    assert {memory_format(kind) for kind in ("cpu", "cuda", "xpu")} == {torch.channels_last}


class NoFloat64(TorchFunctionMode):
    """What was not brought to the CPU cannot be float64, as on Apple's GPUs."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        here = any(getattr(value, "brought", False) for value in args)
        if func is torch.Tensor.double and not here:
            raise TypeError("the MPS framework doesn't support float64")
        found = func(*args, **(kwargs or {}))
        if isinstance(found, torch.Tensor):
            found.brought = here or func is torch.Tensor.cpu
        return found


def test_nothing_is_float64_before_it_is_on_the_cpu():
    attention = build_attention(3, AttentionSpec(attention="se", reduction=1))
    parts = {"attention": attention, "flat": nn.Flatten(), "head": nn.Linear(48, 4)}
    model = nn.Sequential(OrderedDict(parts)).eval()
    images, labels = torch.rand(2, 3, 4, 4), torch.tensor([0, 1])
    maps = np.random.default_rng(0).random((2, 4, 4))
    rng = np.random.default_rng(0)
    with NoFloat64():
        error, _ = error_and_loss(torch.eye(4)[[0, 3]], labels)
        channel_importance(model, images, labels.numpy(), "attention")
        removal_curve(model, images, 0 * images, maps, labels, rng=rng, steps=2)
    assert error == 0.5


def test_a_user_without_a_home_folder_computes_without_kernels_and_names_the_data(tmp_path):
    code = (
        "import os; os.getuid = lambda: 2**31 - 2; os.environ.pop('HOME', '')\n"
        "from senet_lib import data, kernels, workflow\n"
        "from senet_lib.errors import DataError\n"
        "import torch\n"
        "print(kernels.missing(torch.float32), workflow._cache())\n"
        "try: data.load_data('cifar10')\n"
        "except DataError as error: print(error)\n"
    )
    without = {k: v for k, v in os.environ.items() if k not in ("SENET_DATA", "XDG_CACHE_HOME")}
    without["PYTHONPATH"] = str(Path(__file__).resolve().parents[1])
    python = [sys.executable, "-c", code]
    done = subprocess.run(python, cwd=tmp_path, env=without, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert "no home folder" in first
    assert str(tmp_path / ".snakemake") in first
    assert "SENET_DATA" in second
    assert list(tmp_path.iterdir()) == []
