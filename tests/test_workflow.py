"""The study as a graph, driven by Snakemake itself on runs of one epoch over a few images."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fake_runs import make_run, save_shapes

from senet_lib.recipe import Recipe, load_study

pytest.importorskip("snakemake")

REPOSITORY = Path(__file__).resolve().parent.parent
TINY = """
study: tiny
protocol: test
data: tiny.npz
models: [resnet20, se_resnet20]
seeds: [0]
gradcam: [resnet20, se_resnet20]
excitation: [se_resnet20]
grids: 1
threads: 1
device: cpu
precision: fp32
compile: "off"
recipe: {epochs: 1, batch_size: 32, lr: 0.05}
"""


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy of what the workflow needs, so that a test may edit it, with tiny data."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("senet_lib", "notebooks", "profiles", "configs"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(REPOSITORY / name, folder / name, ignore=ignored)
    shutil.copy(REPOSITORY / "Snakefile", folder)
    save_shapes(folder / "tiny.npz", 80, 60)
    (folder / "tiny.yaml").write_text(TINY, encoding="utf-8")
    return folder


def snakemake(folder, *words, config="tiny.yaml", python=sys.executable):
    """Run Snakemake in the copy; everything printed is in `.stdout`."""
    command = [python, "-m", "snakemake", "--cores", "2", *words]
    command += ["--configfile", config] if config else []
    both = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return subprocess.run(command, cwd=folder, text=True, timeout=1200, **both)


def jobs(done: subprocess.CompletedProcess) -> dict[str, int]:
    """How many jobs of each rule a dry run lists."""
    return {rule: int(n) for rule, n in re.findall(r"^(train|report) +(\d+)$", done.stdout, re.M)}


def test_a_dry_run_lists_the_jobs_of_the_config_or_of_the_smoke_study(checkout, tmp_path):
    done = snakemake(checkout, "-n", config=None)
    smoke = load_study(REPOSITORY / "configs" / "smoke.yaml")
    assert done.returncode == 0, done.stdout
    assert jobs(done) == {"train": len(smoke.models) * len(smoke.seeds), "report": 1}
    # An environment in a folder with a space is quoted.
    (tmp_path / "my env").symlink_to(sys.prefix, target_is_directory=True)
    python = str(tmp_path / "my env" / "bin" / Path(sys.executable).name)
    words = ("-n", "--printshellcmds", "--config", "seeds=[4, 5, 6]")
    words += ("more_seeds=[6, 7]", "more_seeds_of=[se_resnet20]")
    (tmp_path / "a clone").symlink_to(checkout, target_is_directory=True)
    words += ("--snakefile", str(tmp_path / "a clone" / "Snakefile"))
    done = snakemake(checkout, *words, python=python)
    assert done.returncode == 0, done.stdout
    assert jobs(done) == {"train": 7, "report": 1}
    assert "outputs/runs/tiny/se_resnet20/seed7/train.ipynb" in done.stdout
    said = re.findall("Shell command: (.* notebook .*)", done.stdout)
    commands = [shlex.split(line) for line in said]
    assert {words[words.index("-m") - 1] for words in commands} == {python}
    notebooks = {words[words.index("notebook") + 1] for words in commands}
    assert all(Path(checkout, notebook).is_file() for notebook in notebooks)
    (command,) = (line for line in said if "-p seed=4" in line and "model=resnet20 " in line)
    assert f"-p lr_policy={Recipe().lr_policy} " in command  # not the smoke study's
    rules = re.findall(r"rule gradcam:\n +input: (.*)", done.stdout)
    assert len(rules) == 3  # a page a seed; its images are chosen by every run
    assert all("se_resnet20/seed7/train.html" in rule for rule in rules)
    assert "-p precision=fp32" in command


def test_a_gpu_is_asked_for_where_pytorch_sees_one_by_what_computes_on_it(checkout):
    device = checkout / "senet_lib" / "device.py"
    text = device.read_text(encoding="utf-8")
    device.write_text(f"{text}\n\ndef accelerator():\n    return 'cuda'\n", encoding="utf-8")
    done = snakemake(checkout, "-n", "--config", "device=auto")
    device.write_text(text, encoding="utf-8")
    assert done.returncode == 0, done.stdout
    parts = re.split(r"^rule (\w+):$", done.stdout, flags=re.M)
    rules = dict(zip(parts[1::2], parts[2::2], strict=True))
    assert {"gradcam", "excitation"} < rules.keys()
    assert {name for name, about in rules.items() if "gpu=1" in about} == {"train", "profile"}


@pytest.mark.slow
def test_a_mistake_in_the_settings_ends_at_once_with_a_clear_line(checkout, monkeypatch, tmp_path):
    monkeypatch.setenv("SENET_DATA", str(tmp_path))
    recipe = Recipe(epochs=1, batch_size=32, lr=0.05)
    run = make_run(
        checkout / "outputs/runs", "resnet20", 0, 0.5, study="kept", data="tiny.npz", recipe=recipe
    )
    os.utime(run.path / "record.json", (0, 0))
    (checkout / "bad.py").write_text("1 / 0\n")
    for word, says in (
        ("models=[resnet21]", "unknown model 'resnet21'"),
        ("excitation=[resnet20]", "resnet20 under excitation has no attention"),
        ("data=cifar10", "senet data cifar10"),
        ("data=my/picturs", "no such file or folder: my/picturs"),
        ("plugins=[no.py]", "no.py"),
        ("plugins=[bad.py]", "bad.py: ZeroDivisionError"),
        ("study=kept", "other images than 1 finished"),
        (
            "study=kept data=shapes precision=bf16",
            "(fp32, not bf16) and data (tiny.npz, not shapes)",
        ),
    ):
        done = snakemake(checkout, "-n", "--config", *word.split())
        assert done.returncode != 0
        assert says in done.stdout
        assert "Traceback" not in done.stdout
    # What looks like a wildcard is none, and a plugin is found from any folder.
    (checkout / "good.py").write_text("print(True)\n")
    above = ("--snakefile", "../Snakefile", "--directory", "..")
    words = ("-n", "--config", "note=see {x}", "plugins=[good.py]")
    done = snakemake(checkout / "notebooks", *above, *words, config="../tiny.yaml")
    assert done.returncode == 0, done.stdout
    # A run that is no longer asked for is in nobody's way.
    assert snakemake(checkout, "-n", "--config", "study=kept", "seeds=[1]").returncode == 0


@pytest.mark.slow
def test_a_study_from_a_failing_run_to_its_repair(checkout):
    """One run fails and the other is made; the next call trains the missing one alone, although the
    code of the training has changed meanwhile; then nothing is left to do."""
    runs, page = checkout / "outputs/runs/tiny", checkout / "outputs/reports/tiny/index.html"
    logs = checkout / "outputs/logs/tiny"
    blocked, good = runs / "se_resnet20/seed0", runs / "resnet20/seed0"
    blocked.mkdir(parents=True)
    (blocked / "record.json").write_text("{}")  # a record that is none: the run refuses to start
    later = time.time() + 1e5  # the clock was set back
    os.utime(checkout / "notebooks/train.ipynb", (later, later))

    done = snakemake(checkout)
    assert done.returncode == 1, done.stdout
    assert "Traceback" not in done.stdout
    made = (good / "record.json", good / "train.html", blocked / "train.partial.ipynb")
    assert all(path.is_file() for path in made), done.stdout
    assert json.loads((blocked / "failed.json").read_text())["error"] == "RecordError"
    assert (blocked / "record.json").read_text() == "{}"
    assert "RecordError" in (logs / "se_resnet20-seed0.log").read_text()
    assert "Epoch 1 - Loss" in (logs / "resnet20-seed0.log").read_text()
    assert "1 of 2 runs" in page.read_text(encoding="utf-8")
    assert not page.with_name("report.ipynb").exists()

    shutil.rmtree(blocked)
    before = {path: path.stat().st_mtime_ns for path in good.iterdir()}
    assert jobs(snakemake(checkout, "-n")) == {"train": 1, "report": 1}
    with (checkout / "senet_lib/training/fit.py").open("a") as file:
        file.write("# an edit\n")
    done = snakemake(checkout)
    assert done.returncode == 0, done.stdout
    assert "Epoch 1 - Loss" in (logs / "se_resnet20-seed0.log").read_text()
    assert "Epoch 1" not in (logs / "resnet20-seed0.log").read_text()
    assert "outputs/reports/tiny/index.html" in done.stdout
    assert "2 of 2 runs" in page.read_text(encoding="utf-8")
    beside = ("gradcam-seed0.html", "localisation-seed0.json", "excitation-se_resnet20.html")
    assert all(page.with_name(name).is_file() for name in (*beside, "gates-se_resnet20.json"))
    redone = {path.name for path, then in before.items() if path.stat().st_mtime_ns != then}
    assert redone == {"train.ipynb", "train.html"}
    assert not page.with_name("incomplete.ipynb").exists()

    by_hand = checkout / "notebooks/train.ipynb"
    text = by_hand.read_text(encoding="utf-8").replace("epochs = 5", "epochs = 9")
    shown = '"outputs": [{"name": "stdout", "output_type": "stream", "text": "Epoch"}]'
    by_hand.write_text(text.replace('"outputs": []', shown))
    done = snakemake(checkout)
    assert done.returncode == 0
    assert "Nothing to be done" in done.stdout

    config = checkout / "tiny.yaml"
    config.write_text(TINY.replace("threads: 1", "threads: 2"))
    copies = checkout / "senet_lib/models/.ipynb_checkpoints"
    copies.mkdir()
    (copies / "blocks.py").touch()
    (copies.parent / "blocks.py~").touch()
    with (good / "train.ipynb").open("a") as file:  # as JupyterLab saves it
        file.write("\n")
    done = snakemake(checkout, "-n")
    assert "Nothing to be done" in done.stdout, done.stdout
    lost = {good: "train", page.with_name("profile.html"): "profile"}
    lost |= {page.with_name("localisation-seed0.json"): "gradcam"}
    for path, rule in lost.items():
        path.rename(checkout / "aside")
        assert re.search(f"^{rule} +1$", snakemake(checkout, "-n").stdout, re.M), rule
        (checkout / "aside").rename(path)

    config.write_text(TINY + "note: Look at this.\n")
    assert jobs(snakemake(checkout, "-n")) == {"report": 1}
    config.write_text(TINY)

    (good / "record.json").rename(checkout / "aside")
    said = snakemake(checkout, "-n").stdout
    assert re.search(f"^Lost or damaged.*: {good.relative_to(checkout)}$", said, re.M)
    assert (good / "train.html").is_file()
    (checkout / "aside").rename(good / "record.json")

    with (checkout / "senet_lib/claims/judge.py").open("a") as file:
        file.write("# an edit\n")
    assert jobs(snakemake(checkout, "-n")) == {"report": 1}

    (good / "record.json").unlink()
    (blocked / "weights.safetensors").unlink()
    done = snakemake(
        checkout, *(str((run / "train.html").relative_to(checkout)) for run in (good, blocked))
    )
    assert (good / "record.json").is_file()
    assert "RecordError" in done.stdout


@pytest.mark.slow
def test_a_study_that_is_stopped_has_not_failed_and_makes_no_report(checkout):
    """Its run has a checkpoint, to go on from."""
    text = TINY.replace("study: tiny", "study: stopped").replace("epochs: 1,", "epochs: 3000,")
    (checkout / "stopped.yaml").write_text(text)
    command = [sys.executable, "-m", "senet_lib.cli", "study", "stopped.yaml", "--cores", "1"]
    how = {"cwd": checkout, "stdout": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, **how)
    for _ in range(1200):
        time.sleep(0.2)
        if begun := list(checkout.glob("outputs/runs/stopped/*/seed0/history.csv")):
            break
    process.terminate()
    said = process.communicate(timeout=100)[0]
    assert process.returncode == 128 + signal.SIGTERM
    assert "stopped" in said.splitlines()[-1]
    assert "failed" not in said
    assert begun[0].with_name("checkpoint.pt").is_file()
    assert not (checkout / "outputs/reports/stopped").exists()
