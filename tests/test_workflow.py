"""The study as a graph, driven by Snakemake itself on runs of one epoch over a few images."""

import json
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml

from senet_lib.recipe import Recipe, load_study

pytest.importorskip("snakemake")

REPOSITORY = Path(__file__).resolve().parent.parent
SWEEP = REPOSITORY / "configs" / "sweep.yaml"
TINY = {
    "study": "tiny",
    "protocol": "test",
    "data": "tiny.npz",
    "models": ["resnet20", "se_resnet20"],
    "seeds": [0],
    "gradcam": ["resnet20", "se_resnet20"],
    "excitation": ["se_resnet20"],
    "grids": 1,
    "threads": 1,
    "device": "cpu",
    "precision": "fp32",
    "compile": "off",
    "recipe": {"epochs": 1, "batch_size": 32, "lr": 0.05},
}


# Settings


@pytest.mark.parametrize(
    "path", sorted({*(REPOSITORY / "configs").glob("*.yaml")} - {SWEEP}), ids=lambda p: p.stem
)
def test_the_repositorys_studies_are_valid(path):
    study = load_study(path)
    from senet_lib.models import check_name

    for model in study.models:
        check_name(model)
    assert study.study == path.stem


# Snakemake


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy of what the workflow needs, so that a test may edit it, with tiny data."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("senet_lib", "notebooks", "profiles", "configs"):
        shutil.copytree(
            REPOSITORY / name, folder / name, ignore=shutil.ignore_patterns("__pycache__")
        )
    shutil.copy(REPOSITORY / "Snakefile", folder)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (96, 32, 32, 3), dtype=np.uint8)
    labels = np.arange(96) % 4
    np.savez(
        folder / "tiny.npz",
        x_train=images[:64],
        y_train=labels[:64],
        x_test=images[64:],
        y_test=labels[64:],
    )
    configure(folder, TINY)
    return folder


def configure(folder: Path, content: dict) -> None:
    (folder / "tiny.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")


def snakemake(folder, *words, config="tiny.yaml", python=sys.executable):
    """Run Snakemake in the copy; everything printed is in `.stdout`."""
    command = [python, "-m", "snakemake", "--cores", "2", *words]
    command += ["--configfile", config] if config else []
    both = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return subprocess.run(command, cwd=folder, text=True, timeout=300, **both)


def jobs(done: subprocess.CompletedProcess) -> dict[str, int]:
    """How many jobs of each rule a dry run lists."""
    return {rule: int(n) for rule, n in re.findall(r"^(train|report) +(\d+)$", done.stdout, re.M)}


def test_a_dry_run_without_a_config_lists_the_smoke_study(checkout):
    done = snakemake(checkout, "-n", config=None)
    smoke = load_study(REPOSITORY / "configs" / "smoke.yaml")
    assert done.returncode == 0, done.stdout
    assert jobs(done) == {"train": len(smoke.models) * len(smoke.seeds), "report": 1}


def test_a_config_replaces_the_default_one_and_flags_change_it(checkout):
    done = snakemake(checkout, "-n", "--printshellcmds", "--config", "seeds=[4, 5, 6]")
    assert done.returncode == 0, done.stdout
    assert jobs(done) == {"train": 6, "report": 1}
    assert "outputs/runs/tiny/se_resnet20/seed6/train.ipynb" in done.stdout
    command = next(line for line in done.stdout.splitlines() if "-p seed=4" in line)
    assert f"-p lr_policy={Recipe().lr_policy} " in command  # not the smoke study's
    assert "-p precision=fp32" in command


def test_an_environment_in_a_folder_with_a_space_is_quoted(checkout, tmp_path):
    (tmp_path / "my env").symlink_to(sys.prefix, target_is_directory=True)
    python = str(tmp_path / "my env" / "bin" / Path(sys.executable).name)
    done = snakemake(checkout, "-n", "--printshellcmds", python=python)
    said = re.findall("Shell command: (.* notebook .*)", done.stdout)
    commands = [shlex.split(line) for line in said]
    assert len(commands) == 6, done.stdout
    assert {words[words.index("-m") - 1] for words in commands} == {python}


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("modles=[resnet20]", "did you mean models?"),
        ("models=[resnet21]", "unknown model 'resnet21'; did you mean"),
        ("recipe={epochs: 0}", "epochs is 0; it must be a whole number"),
        ("data=cifar10", "fetch it first: senet data cifar10"),
        ("plugins=[no.py]", "there is no plugin no.py"),
    ],
)
def test_a_mistake_in_the_settings_ends_at_once_with_a_clear_line(
    checkout, word, says, monkeypatch, tmp_path
):
    monkeypatch.setenv("SENET_DATA", str(tmp_path))
    done = snakemake(checkout, "-n", "--config", word)
    assert done.returncode != 0
    assert says in done.stdout
    assert "Traceback" not in done.stdout


@pytest.mark.slow
def test_a_study_from_a_failing_run_to_its_repair(checkout):
    """One run fails and the other is made; the next call trains the missing one alone, although the
    code of the training has changed meanwhile; then nothing is left to do."""
    runs, page = checkout / "outputs/runs/tiny", checkout / "outputs/reports/tiny/index.html"
    blocked, good = runs / "se_resnet20/seed0", runs / "resnet20/seed0"
    blocked.mkdir(parents=True)
    (blocked / "record.json").write_text("{}")  # a record that is none: the run refuses to start

    done = snakemake(checkout)
    assert done.returncode == 1, done.stdout
    assert "Traceback" not in done.stdout
    assert (good / "record.json").is_file()
    assert (good / "train.html").is_file()
    assert (blocked / "train.partial.ipynb").is_file()
    assert json.loads((blocked / "failed.json").read_text())["error"] == "RecordError"
    assert (blocked / "record.json").read_text() == "{}"
    log = (checkout / "outputs/logs/tiny/se_resnet20-seed0.log").read_text()
    assert "RecordError" in log
    assert "Epoch 1 - Loss" in (checkout / "outputs/logs/tiny/resnet20-seed0.log").read_text()
    text = page.read_text(encoding="utf-8")
    assert "1 of 2 runs have finished" in text
    assert "damaged" in text
    assert not page.with_name("report.ipynb").exists()

    shutil.rmtree(blocked)
    before = {path: path.stat().st_mtime_ns for path in good.iterdir()}
    assert jobs(snakemake(checkout, "-n")) == {"train": 1, "report": 1}
    with (checkout / "senet_lib/training/fit.py").open("a") as file:
        file.write("# an edit\n")
    done = snakemake(checkout)
    assert done.returncode == 0, done.stdout
    assert "Epoch 1 - Loss" in (checkout / "outputs/logs/tiny/se_resnet20-seed0.log").read_text()
    assert "Epoch 1" not in (checkout / "outputs/logs/tiny/resnet20-seed0.log").read_text()
    assert "outputs/reports/tiny/index.html" in done.stdout
    assert "2 of 2 runs have finished" in page.read_text(encoding="utf-8")
    assert "Where the networks look" in page.read_text(encoding="utf-8")
    beside = ("gradcam-seed0.html", "localisation-seed0.json", "excitation-se_resnet20.html")
    assert all(page.with_name(name).is_file() for name in (*beside, "gates-se_resnet20.json"))
    redone = {path.name for path, then in before.items() if path.stat().st_mtime_ns != then}
    assert redone == {"train.ipynb", "train.html"}
    assert not page.with_name("incomplete.ipynb").exists()

    began = time.monotonic()
    done = snakemake(checkout)
    assert done.returncode == 0
    assert "Nothing to be done" in done.stdout
    assert time.monotonic() - began < 60  # quiet: 4 s; nothing is trained or drawn

    with (checkout / "senet_lib/claims/judge.py").open("a") as file:
        file.write("# an edit\n")
    assert jobs(snakemake(checkout, "-n")) == {"report": 1}
