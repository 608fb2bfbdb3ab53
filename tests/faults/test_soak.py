"""A study whose workflow and runs are killed again and again ends as one that was left alone."""

import os
import random
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from checkout import MODELS, assert_as_undisturbed, checkout, undisturbed
from victims import SOAK

from senet_lib.recipe import Recipe

STUDIES = 10
KILLS = 4  # of a study
RECIPE = Recipe(epochs=20, batch_size=16, lr=0.05, schedule=())
MOST_CALLS = 30
LEFT = {"record.json", "history.csv", "test_logits.npz", "weights.safetensors", "train.ipynb",
        "train.html"}  # fmt: skip
PATIENCE = 1200  # seconds for a call, and for what outlives a killed one


def processes_of(mark: str) -> dict[int, str]:
    """Every process that has inherited the mark, with its command line."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if mark.encode() in (folder / "environ").read_bytes():
                words = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                if words:  # an ended one that nobody has waited for has none
                    found[int(folder.name)] = words
    return found


def call(study: Path, mark: str, *words: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "snakemake", "--cores", "2", "--configfile", "tiny.yaml"]
    environment = {**os.environ, "SENET_SOAK": mark, "PYTHONPATH": str(study)}
    with (study / "out.txt").open("a") as out:
        return subprocess.Popen([*command, *words], cwd=study, env=environment, stdout=out,
                                stderr=out, start_new_session=True)  # fmt: skip


def comes(study: Path, workflow: subprocess.Popen, chance: random.Random) -> bool:
    """Wait for a random moment, by the clock or by a run's epochs; False if all ended before."""
    until, epoch = time.monotonic() + chance.uniform(2, 40), chance.randint(1, RECIPE.epochs)
    by_epoch = chance.random() < 0.6

    def now() -> bool:
        logs = (study / "outputs/logs/tiny").glob("*.log")
        if by_epoch:
            return any(f"Epoch {epoch} " in path.read_text() for path in logs)
        return time.monotonic() > until

    while workflow.poll() is None and not now():
        time.sleep(0.1)
    return workflow.poll() is None


def disturb(workflow: subprocess.Popen, mark: str, chance: random.Random) -> str:
    """Kill the workflow, interrupt all of it as Ctrl-C does, or kill one of its processes."""
    kind = chance.choice(("workflow", "interrupt", "run", "run"))
    with suppress(ProcessLookupError):
        if kind == "interrupt":
            os.killpg(workflow.pid, signal.SIGINT)
        elif kind == "workflow":
            workflow.kill()
        else:
            runs = [pid for pid, words in processes_of(mark).items()
                    if re.search("senet_lib.cli|ipykernel", words)]  # fmt: skip
            os.kill(chance.choice(runs or [workflow.pid]), signal.SIGKILL)
    return kind


def wait_until_alone(mark: str) -> None:
    """A killed workflow's runs go on to their end, or end with what they belong to."""
    deadline = time.monotonic() + PATIENCE
    while found := processes_of(mark):
        assert time.monotonic() < deadline, found
        time.sleep(0.5)


@pytest.mark.skipif(not SOAK, reason="SENET_FAULTS=soak kills ten studies, for an hour")
def test_a_study_that_is_killed_again_and_again_ends_as_one_left_alone(tmp_path, tiny_data):
    clean = undisturbed(tmp_path / "clean", tiny_data, RECIPE)
    chance, kinds = random.Random(0), []
    for number in range(STUDIES):
        study = checkout(tmp_path / str(number), tiny_data, RECIPE)
        mark, code, calls = f"{study}", None, 0
        while code != 0:
            calls += 1
            assert calls < MOST_CALLS, (study / "out.txt").read_text()
            call(study, mark, "--unlock").wait(PATIENCE)
            workflow = call(study, mark)
            if len(kinds) < KILLS * (number + 1) and comes(study, workflow, chance):
                kinds.append(disturb(workflow, mark, chance))
            code = workflow.wait(PATIENCE)
            if chance.random() < 0.5:  # else the next call meets what is still running
                wait_until_alone(mark)
        wait_until_alone(mark)
        assert_as_undisturbed(study, clean)
        for model in MODELS:
            folder = study / "outputs/runs/tiny" / model / "seed0"
            assert {path.name for path in folder.iterdir()} == LEFT
        left = [str(path) for path in (study / "outputs").rglob("*")
                if re.search(r"partial|lock|checkpoint|failed|incomplete", path.name)]  # fmt: skip
        assert left == []
        assert not list((study / ".snakemake/locks").glob("*"))
        assert (study / "outputs/reports/tiny/index.html").is_file()
    assert len(kinds) > STUDIES
    print(f"{STUDIES} studies, {len(kinds)} kills ({', '.join(sorted(kinds))}), all as left alone")
