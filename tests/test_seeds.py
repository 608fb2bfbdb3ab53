"""Several seeds with one command."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fake_runs import save_shapes

from senet_lib.cli import main
from senet_lib.errors import RecipeError
from senet_lib.runs.records import RECORD, load_run
from senet_lib.training import seeds as seeds_module
from senet_lib.training.seeds import side_by_side, train_seeds


@pytest.fixture
def words(tmp_path, monkeypatch):
    """The rest of a `senet train` that takes seconds, in a folder of this test."""
    monkeypatch.chdir(tmp_path)
    short = "--model resnet20 --batch-size 32 --device cpu --precision fp32 --study tiny"
    return [*short.split(), "--data", save_shapes(tmp_path / "tiny.npz", 64, 32)]


def folder(seed):
    return Path("outputs/runs/tiny/resnet20", f"seed{seed}")


def test_each_seed_is_the_run_it_would_be_alone(words, tmp_path, capfd):
    assert main(["train", *words, "--epochs", "1", "--seeds", "0", "1", "--at-once", "2"]) == 0
    together = [load_run(folder(seed)) for seed in (0, 1)]
    printed = capfd.readouterr().out.splitlines()
    assert all(line.startswith(("seed 0: ", "seed 1: ")) for line in printed)
    assert sum("the record is in" in line for line in printed) == 2
    alone = ["train", *words, "--epochs", "1", "--seed", "1", "--threads", "1"]
    assert main([*alone, "--out", str(tmp_path / "alone")]) == 0
    assert load_run(tmp_path / "alone").test_loss == together[1].test_loss
    assert together[0].test_loss != together[1].test_loss


@pytest.mark.parametrize(
    ("threads", "cores", "seeds", "at_once", "each"),
    [
        (None, 4, 2, 2, 2),  # nothing said: the cores are shared out
        (1, 4, 2, 2, None),
        (2, 4, 3, 2, None),
        (0, 4, 2, 1, None),  # all cores for each, one after the other
        (8, 4, 2, 1, None),
    ],
)
def test_the_threads_asked_for_are_kept(monkeypatch, threads, cores, seeds, at_once, each):
    """A run rounds by them, so that it would be another one than the workflow's."""
    monkeypatch.setattr(seeds_module, "side_by_side", lambda *started: started)
    monkeypatch.setattr(seeds_module, "cores", lambda: cores)
    words = ["--model", "m"]
    commands, found, _ = train_seeds(words, range(seeds), device="cpu", threads=threads)
    assert (len(commands), found) == (seeds, at_once)
    for command in map(" ".join, commands.values()):
        assert re.findall(r"--threads (\d+)", command) == ([str(each)] if each else [])


@pytest.mark.parametrize(("asked", "at_once"), [(0, 3), (5, 5)])
def test_on_a_gpu_a_few_seeds_run_side_by_side_unless_told(monkeypatch, asked, at_once):
    monkeypatch.setattr(seeds_module, "side_by_side", lambda *started: started)
    monkeypatch.setattr(seeds_module, "accelerator", lambda: "cuda")
    for device in ("auto", "cuda"):
        commands, found, _ = train_seeds(["--model", "m"], range(7), asked, device=device)
        assert (len(commands), found) == (7, at_once)


@pytest.mark.slow
def test_a_stop_reaches_every_run_and_loses_nothing(words):
    command = [sys.executable, "-m", "senet_lib.cli", "train", *words, "--epochs", "2000"]
    process = subprocess.Popen([*command, "--seeds", "0", "1"], stdout=subprocess.PIPE, text=True)
    seen = set()
    for line in process.stdout:
        if "Epoch 1 " in line:
            seen.add(line.split(":")[0])
        if seen == {"seed 0", "seed 1"}:
            break
    process.send_signal(signal.SIGTERM)
    rest = process.stdout.read()
    assert process.wait(timeout=60) == 143
    assert rest.count("stopped (SIGTERM)") == 2
    for seed in (0, 1):
        assert (folder(seed) / "checkpoint.pt").is_file()
        assert not (folder(seed) / RECORD).exists()


def test_bytes_that_are_no_text_are_passed_on(tmp_path, capfd):
    (tmp_path / "odd.py").write_text(r"import os; os.write(1, b'\xe9\n')")
    assert (
        side_by_side({"seed 0": ["models", "--plugin", str(tmp_path / "odd.py"), "cnn7"]}, 1) == 0
    )
    assert r"seed 0: \xe9" in capfd.readouterr().out


def test_a_limit_of_time_is_of_all_seeds_together(tmp_path, monkeypatch, capfd):
    fake = tmp_path / "python"
    fake.write_text('#!/bin/sh\nsleep 0.3\necho "$@"\n')
    fake.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(fake))
    words = ["--model", "m"]
    assert train_seeds(words, [0, 1, 2], 1, device="cpu", max_minutes=0.5 / 60) == 0
    said = capfd.readouterr().out
    first, second = (float(m) for m in re.findall(r"--max-minutes (\S+)", said))
    assert second < first - 0.3 / 60 + 1e-4
    assert "seed 2: not begun within" in said
    with pytest.raises(RecipeError, match="max_minutes is -1; it must be above 0"):
        train_seeds(words, [0], max_minutes=-1)


def test_one_that_is_killed_is_named_and_no_success(tmp_path, capfd):
    (tmp_path / "die.py").write_text("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    killed = ["models", "--plugin", str(tmp_path / "die.py")]
    assert side_by_side({"seed 0": ["models", "resnet20"], "seed 1": killed}, 2) == 137
    assert capfd.readouterr().out.count("seed 1: ended by SIGKILL") == 1


def test_a_stop_reaches_a_process_that_is_just_being_started(tmp_path, monkeypatch):
    (tmp_path / "wait.py").write_text("import time; time.sleep(60)")

    def enter(process):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(1)  # the signal is dealt with meanwhile
        return process

    monkeypatch.setattr(subprocess.Popen, "__enter__", enter)
    began = time.monotonic()
    words = ["models", "--plugin", str(tmp_path / "wait.py")]
    assert side_by_side({"seed 0": words}, 1) == 128 + signal.SIGTERM
    assert time.monotonic() - began < 30


def test_a_wrong_list_of_seeds_is_refused_in_one_line(words, says):
    for more, wrong in (
        (["--seeds", "0", "0"], "once"),
        (["--seeds", "0", "1", "--at-once", "-1"], "at_once is -1"),
        (["--seeds", "0", "1", "--out", "x"], "--out"),
        (["--seeds", "0", "--seed", "1"], "--seed"),
    ):
        says(["train", *words, "--epochs", "1", *more], wrong)
