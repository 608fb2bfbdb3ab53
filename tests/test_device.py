"""Where and how the arithmetic is done, on machines that are not at hand."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from senet_lib.device import Setup, memory_format
from senet_lib.errors import RecipeError


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


def test_what_torch_compile_lacks_on_cuda_is_said(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (6, 1))
    monkeypatch.setattr("shutil.which", lambda name: name)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    monkeypatch.setattr(Path, "is_file", lambda path: True)
    for lacks in ("capability", "Triton", "header", "compiler"):
        if lacks == "Triton":
            monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        elif lacks == "header":
            monkeypatch.setattr(Path, "is_file", lambda path: False)
        elif lacks == "compiler":
            monkeypatch.setattr("shutil.which", lambda name: None)
        setup = _choose(monkeypatch, "cuda")
        assert (setup.device, setup.precision, setup.compile) == ("cuda", "bf16", False)
        assert lacks in setup.kernels_missing
        assert _choose(monkeypatch, "cuda", compile="off").kernels_missing == ""
        with pytest.raises(RecipeError, match=f"{lacks}.*--compile off"):
            _choose(monkeypatch, "cuda", compile="on")


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


SWITCHES = """
import os
import torch
from senet_lib.device import rounding

b = torch.backends
NEWER = (b.cudnn.conv, b.cudnn.rnn, b.cuda.matmul, b.mkldnn.conv, b.mkldnn.matmul)

def read(switch):
    try: return switch()
    except RuntimeError: return "refused"

def look():
    older = (lambda: b.cudnn.allow_tf32), (lambda: b.cuda.matmul.allow_tf32)
    older = [*map(read, older), read(torch.get_float32_matmul_precision)]
    return older, [switch.fp32_precision for switch in NEWER], b.fp32_precision

for start in (
    "", "b.cudnn.conv.fp32_precision = 'ieee'", "b.fp32_precision = 'tf32'",
    "b.cudnn.fp32_precision = 'tf32'", "b.cuda.matmul.fp32_precision = 'tf32'",
    "b.cudnn.allow_tf32 = False", "b.cuda.matmul.allow_tf32 = True",
    "b.cudnn.allow_tf32 = False; b.cudnn.conv.fp32_precision = 'tf32'",
    "torch.set_float32_matmul_precision('high')", "torch.set_float32_matmul_precision('medium')",
):
    if child := os.fork():  # which leaves the switches of this process alone
        assert os.waitpid(child, 0)[1] == 0, start
        continue
    exec(start)
    before = look()
    with rounding(tf32=True):
        assert look() == before
    with rounding(tf32=False), rounding(tf32=False):
        older, newer, _ = look()
    assert (older, {*newer} - {"none"}) == ([False, False, "highest"], {"ieee"}), (older, newer)
    assert look() == before, (before, look())
    if start.endswith("conv.fp32_precision = 'tf32'"):
        b.cudnn.rnn.fp32_precision = "tf32"
        assert read(lambda: b.cudnn.allow_tf32) == "refused"  # it was False, and is
    os._exit(0)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes cannot be copied here")
@pytest.mark.parametrize("override", ["", "1"])
def test_fp32_is_fp32_by_whichever_switch_it_was_rounded_and_the_switches_are_left(override):
    here = {"PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    here |= {"TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": override}
    python = [sys.executable, "-c", SWITCHES]
    done = subprocess.run(python, env={**os.environ, **here}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


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
