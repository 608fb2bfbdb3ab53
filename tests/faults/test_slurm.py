"""The documented command on a real SLURM, one job of it cancelled in mid-training."""

import os
import re
import subprocess
import sys
import time

from checkout import assert_as_undisturbed, checkout, undisturbed
from cluster import ask, cluster, require_slurm

from senet_lib.recipe import Recipe

RECIPE = Recipe(epochs=25, batch_size=16, lr=0.05, schedule=())
PATIENCE = 900  # seconds


def wait_for(condition, process=None):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        assert process is None or process.poll() is None
        time.sleep(0.2)


def test_the_documented_command_completes_and_a_cancelled_job_goes_on(tiny_data, tmp_path):
    require_slurm()
    study = checkout(tmp_path / "checkout", tiny_data, RECIPE)
    (tmp_path / "slurm").mkdir()
    path = f"{study}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    environment = {**os.environ, "PYTHONPATH": path, "OMP_WAIT_POLICY": "PASSIVE"}
    command = [sys.executable, "-m", "snakemake", "--workflow-profile", "profiles/slurm",
               "--configfile", "tiny.yaml"]  # fmt: skip
    quick = ["--slurm-init-seconds-before-status-checks", "2", "--latency-wait", "5"]
    log = study / "outputs/logs/tiny/resnet20-seed0.log"
    with cluster(tmp_path / "slurm"), (tmp_path / "out").open("w+") as out:
        how = {"cwd": study, "env": environment, "stdout": out, "stderr": out}
        subprocess.run([*command, "--unlock"], check=True, **how)
        process = subprocess.Popen([*command, *quick], **how)
        try:
            wait_for(lambda: log.is_file() and "Epoch 3 " in log.read_text(), process)
            names = ask("squeue", "--noheader", "--states=R", "--format=%i %k").splitlines()
            plain = [line for line in names if "resnet20" in line and "se_" not in line]
            ask("scancel", plain[0].split()[0])
            wait_for(lambda: process.poll() is not None)
        finally:
            process.kill()
            process.wait()
        out.seek(0)
        printed = out.read()
        assert process.returncode == 0, printed
    assert "going on in epoch" in log.read_text()
    assert (study / "outputs/reports/tiny/index.html").is_file()
    clean = undisturbed(tmp_path / "clean", str(study / "tiny.npz"), RECIPE)
    assert_as_undisturbed(study, clean)
    assert re.search(r"\d+ of \d+ steps \(100%\) done", printed)
