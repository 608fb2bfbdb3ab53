"""The documented command on a real SLURM, one job of it cancelled in mid-training."""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from cluster import ask, cluster, require_slurm

from senet_lib.recipe import Recipe
from senet_lib.runs.records import load_run
from senet_lib.training.fit import fit

REPOSITORY = Path(__file__).resolve().parents[2]
RECIPE = Recipe(epochs=40, batch_size=16, lr=0.05, schedule=())
PATIENCE = 900  # seconds


@pytest.fixture
def study(tmp_path, tiny_data):
    """What the workflow needs, and the settings of a study of two runs."""
    folder = tmp_path / "checkout"
    for name in ("senet_lib", "notebooks", "profiles", "configs"):
        shutil.copytree(
            REPOSITORY / name, folder / name, ignore=shutil.ignore_patterns("__pycache__")
        )
    shutil.copy(REPOSITORY / "Snakefile", folder)
    shutil.copy(tiny_data, folder / "tiny.npz")
    content = {
        "study": "tiny", "protocol": "test", "data": "tiny.npz", "seeds": [0], "threads": 1,
        "models": ["resnet20", "se_resnet20"], "precision": "fp32", "compile": "off",
        "recipe": {k: v for k, v in RECIPE.to_dict().items() if v != getattr(Recipe(), k)},
    }  # fmt: skip
    (folder / "tiny.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    return folder


def wait_for(condition, process=None):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        assert process is None or process.poll() is None
        time.sleep(0.2)


def test_the_documented_command_completes_and_a_cancelled_job_goes_on(study, tmp_path):
    require_slurm()
    (tmp_path / "slurm").mkdir()
    environment = {**os.environ, "PYTHONPATH": str(study), "OMP_WAIT_POLICY": "PASSIVE"}
    command = [sys.executable, "-m", "snakemake", "--workflow-profile", "profiles/slurm",
               "--configfile", "tiny.yaml"]  # fmt: skip
    quick = ["--slurm-init-seconds-before-status-checks", "2", "--latency-wait", "5"]
    log = study / "outputs/logs/tiny/resnet20-seed0.log"
    with cluster(tmp_path / "slurm"), (tmp_path / "out").open("w+") as out:
        unlock = subprocess.run(
            [*command, "--unlock"], cwd=study, env=environment, capture_output=True, text=True
        )
        assert unlock.returncode == 0, unlock.stderr
        process = subprocess.Popen(
            [*command, *quick], cwd=study, env=environment, stdout=out, stderr=out
        )
        try:
            wait_for(lambda: log.is_file() and "Epoch 3 " in log.read_text(), process)
            names = ask("squeue", "--noheader", "--states=R", "--format=%i %k").splitlines()
            job = next(
                line.split()[0] for line in names if "resnet20" in line and "se_" not in line
            )
            ask("scancel", job)
            wait_for(lambda: process.poll() is not None)
        finally:
            process.kill()
            process.wait()
        out.seek(0)
        printed = out.read()
        assert process.returncode == 0, printed
    assert "going on in epoch" in log.read_text()
    assert (study / "outputs/reports/tiny/index.html").is_file()
    for model in ("resnet20", "se_resnet20"):
        run = study / "outputs/runs/tiny" / model / "seed0"
        whole = fit(
            model=model, recipe=RECIPE, data=str(study / "tiny.npz"), out=tmp_path / model,
            device="cpu", precision="fp32", compile="off", threads=1, progress="none",
        )  # fmt: skip
        assert load_run(run).test_loss == whole.test_loss
        same = (run / "test_logits.npz").read_bytes() == (
            whole.path / "test_logits.npz"
        ).read_bytes()
        assert same
    assert re.search(r"\d+ of \d+ steps \(100%\) done", printed)
