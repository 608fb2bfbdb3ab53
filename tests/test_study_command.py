"""`senet study`: what is said of a batch while Snakemake works, from what Snakemake prints."""

import json
import os
import signal
import subprocess
import sys
from threading import Timer

import pytest

from senet_lib import workflow
from senet_lib.cli import main
from senet_lib.errors import SenetError
from senet_lib.runs.lock import locked

STUDY = """
study: tiny
protocol: test
data: shapes
models: [resnet20, se_resnet20]
seeds: [3]
recipe: {epochs: 2}
"""
RECORD = {"test_error": 0.125, "wall_seconds": 90}
# What Snakemake does and prints of a run that ends, one that fails, and a page.
WORDS = f"""
import json, pathlib, sys
print("Building DAG of jobs...")
folder = pathlib.Path("outputs/runs/tiny/resnet20/seed3")
folder.mkdir(parents=True)
(folder / "history.csv").write_text("epoch\\n1\\n2\\n")
(folder / "record.json").write_text({json.dumps(json.dumps(RECORD))})
print("Finished jobid: 2 (Rule: train)")
page = pathlib.Path("outputs/reports/tiny/gradcam-seed0.html")
page.parent.mkdir(parents=True)
page.write_text("a page")
print("Error in rule train:\\n    jobid: 3")
sys.exit(1)
"""


@pytest.fixture
def said(monkeypatch, tmp_path, capfd):
    """Exit code, output and errors of the command, where Snakemake is a script of these words."""

    popen = subprocess.Popen

    def run(words: str) -> tuple[int, str, str]:
        script = [sys.executable, "-c", words]
        monkeypatch.setattr(workflow.subprocess, "Popen", lambda _, **how: popen(script, **how))
        return main(["study", "tiny.1", "--cores", "1"]), *capfd.readouterr()

    monkeypatch.setattr(workflow, "SECONDS", 0.05)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "tiny.1.yaml").write_text(STUDY)
    (tmp_path / "Snakefile").touch()
    return run


def test_each_end_is_a_line_and_the_rest_is_in_the_log(said, tmp_path):
    code, out, err = said(WORDS)
    first, run, page, failed = out.splitlines()
    assert code == 1
    assert "2 runs" in first
    assert all(part in run for part in ("resnet20 seed 3", "12.50 %", "1.5 min", "1 of 2"))
    assert "gradcam-seed0.html" in page
    assert "train failed" in failed
    assert not err
    log = (tmp_path / "outputs" / "logs" / "tiny" / "workflow.log").read_text()
    assert "Building DAG of jobs" in log


def test_a_study_is_made_from_anywhere_in_the_clone(said, tmp_path, monkeypatch, capfd):
    (tmp_path / "Snakefile").touch()
    for name in ("senet_lib", "notebooks"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    assert main(["sweep", "tiny.1"]) == 2
    assert "is a study" in capfd.readouterr().err
    assert said(WORDS)[0] == 1
    assert (tmp_path / "outputs/runs/tiny/resnet20/seed3/record.json").is_file()


def test_a_reader_that_has_seen_enough_stops_no_study(said, tmp_path, monkeypatch):
    """As in `senet study tiny | head -1`: what it began is waited for."""

    def tell(news: workflow._News) -> None:
        raise BrokenPipeError

    monkeypatch.setattr(workflow._News, "tell", tell)
    ended = "import pathlib, time; time.sleep(0.3); pathlib.Path('ended').touch()"
    assert said(ended)[0] == 0
    assert (tmp_path / "ended").exists()


def test_one_study_is_made_by_one_process_at_a_time(said, tmp_path):
    """Or both would write into one log."""
    logs = tmp_path / "outputs" / "logs" / "tiny"
    (logs / "workflow.log").parent.mkdir(parents=True)
    (logs / "workflow.log").write_text("of the first")
    with locked(logs / ".lock", "busy"):
        code, _, err = said("print('not run')")
    assert (code, (logs / "workflow.log").read_text()) == (2, "of the first")
    assert len(err.splitlines()) == 1
    assert "study tiny is being made by another process" in err
    assert said("print('run')")[0] == 0


def test_a_page_that_is_touched_afterwards_is_told_once(said):
    """Snakemake sets the time of what a job has made."""
    later = "import os, time; time.sleep(1); os.utime(page); time.sleep(1)\n"
    _, out, _ = said(WORDS.replace('print("Error', later + 'print("Error'))
    assert out.count("gradcam-seed0.html") == 1


def test_a_live_line_tells_epochs_and_time_left(said, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    words = WORDS.replace('print("Finished', 'import time; time.sleep(1)\nprint("Finished')
    words = words.replace("1\\n2\\n", "1\\n").replace('(folder / "record.json")', "#")
    _, out, _ = said(words)
    assert "resnet20 seed 3 1/2" in out


def test_a_study_that_is_none_is_one_line(tmp_path, monkeypatch, says):
    monkeypatch.chdir(tmp_path)
    says(["study", "nothing"])
    (tmp_path / "clone").mkdir()
    (tmp_path / "clone" / "tiny.yaml").write_text(STUDY)
    says(["study", tmp_path / "clone" / "tiny.yaml"], "no Snakefile")
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_study_is_stopped_as_by_ctrl_c(said, number):
    """By `kill`, by a terminal that closes, by Ctrl-C: Snakemake is interrupted, with its jobs."""
    words = "import time\ntry: time.sleep(60)\nexcept KeyboardInterrupt: print('unlocked')"
    Timer(1.5, os.kill, (os.getpid(), number)).start()
    words = words.replace("'unlocked'", "'unlocked, Error in rule train:'")
    code, out, err = said(words)
    assert (code, err) == (128 + number, "")
    assert "stopped" in out
    assert "failed" not in out
    assert "unlocked" in (workflow.LOGS / "tiny" / "workflow.log").read_text()


def test_a_study_of_a_scripts_background_job_is_stopped(said):
    """There SIGINT is ignored, which a child takes over unless it is told otherwise."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        kept = "import signal; assert signal.getsignal(signal.SIGINT) is not signal.SIG_IGN"
        assert said(kept)[0] == 0
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_snakemake_that_is_killed_is_a_line_and_a_lost_log_is_no_failure(said):
    code, _, err = said("import os; os.kill(os.getpid(), 9)")
    assert code == 128 + 9
    assert len(err.splitlines()) == 1
    assert said("import shutil; shutil.rmtree('outputs/logs')")[0] == 0


def test_time_left_is_said_only_of_a_study_that_has_come_further(tmp_path, monkeypatch):
    """A run that goes on from its checkpoint has fewer epochs than its history had before."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(STUDY)
    (tmp_path / "outputs/logs/tiny").mkdir(parents=True)
    news = workflow._News(workflow.load_study("tiny.yaml"))
    for before, says in ((1, False), (-1, True)):
        news.epochs_before = before
        assert ("min more" in news._status()) == says


def test_memory_is_what_a_container_or_a_job_has(tmp_path, monkeypatch):
    monkeypatch.setattr(workflow, "CGROUP", tmp_path / "cgroup")
    monkeypatch.setattr(workflow, "LIMITS", tmp_path)
    monkeypatch.delenv("SLURM_MEM_PER_NODE", raising=False)
    machine = workflow._memory()
    (tmp_path / "cgroup").write_text("4:memory:/a\n0::/job/step\n")
    (tmp_path / "memory/a").mkdir(parents=True)
    (tmp_path / "memory/a/memory.limit_in_bytes").write_text("9223372036854771712\n")
    (tmp_path / "job/step").mkdir(parents=True)
    (tmp_path / "job/step/memory.max").write_text("max\n")
    assert workflow._memory() == machine
    (tmp_path / "job/memory.max").write_text("300000000\n")
    assert workflow._memory() == 300
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "100")
    assert workflow._memory() == 104  # of 2**20 bytes


def test_where_the_home_cannot_be_written_to_snakemake_has_another_cache(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert workflow._cache() == {}
    (tmp_path / "file").touch()
    monkeypatch.setenv("HOME", str(tmp_path / "file"))
    assert workflow._cache() == {"XDG_CACHE_HOME": str(tmp_path / ".snakemake/cache")}


@pytest.mark.parametrize("cores", ["0", "two", "-1", "1.5", ""])
def test_no_cores_are_a_mistake(cores):
    with pytest.raises(SenetError, match="all, or a whole number above 0"):
        workflow.run_study("smoke", cores)


def test_what_a_killed_snakemake_left_is_told_with_the_remedy(said):
    code, _, err = said("import sys\nprint('LockException: locked')\nsys.exit(1)")
    assert code == 2
    assert "snakemake --unlock --cores 1 --configfile configs/tiny.1.yaml" in err
