"""The commands of a page of docs/ run as they are written, one after the other."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PROGRAM = {"senet": [sys.executable, "-m", "senet_lib"], "python": [sys.executable]}


def commands(page: str) -> list[list[str]]:
    """The indented lines of a page that call senet or python, as words."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    lines = re.findall(r"^    ((?:senet|python) .*)$", text, re.MULTILINE)
    return [shlex.split(line, comments=True) for line in lines]


def run(words: list[str], folder: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [*PROGRAM[words[0]], *words[1:]]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, (words, done.stderr)
    return done.stdout


@pytest.mark.slow
def test_from_a_folder_of_digits_to_a_network_elsewhere(tmp_path):
    pytest.importorskip("sklearn")
    pytest.importorskip("onnxruntime")
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    said = [run(words, tmp_path) for words in commands("digits.md")]
    assert len(said) == 6
    assert float(re.search(r"error ([\d.]+) %", said[2])[1]) < 10
    assert "they agree" in said[2]
    assert (tmp_path / "outputs" / "figures" / "digits" / "index.html").is_file()
    three, seven = said[5].splitlines()[1:]
    assert "three" in three.split("0045.png")[1].split("%")[0]
    assert "seven" in seven.split("0350.png")[1].split("%")[0]


@pytest.mark.slow
def test_a_sweep_its_notebook_and_a_network_of_another_library(tmp_path):
    pytest.importorskip("optuna")
    settings = (ROOT / "configs" / "sweep.yaml").read_text(encoding="utf-8")
    settings = settings.replace("trials: 16", "trials: 3").replace("epochs: 6", "epochs: 1")
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "sweep.yaml").write_text(settings, encoding="utf-8")
    said = [run(words, tmp_path) for words in commands("sweeps.md")]
    assert len(said) == 8
    assert len(re.findall(r"^trial\d: error ", said[0], re.MULTILINE)) == 3
    assert "senet train --study sweep" in said[1].splitlines()[-1]
    assert said[2].count("finished") == 3
    assert (tmp_path / "outputs" / "reports" / "sweep" / "index.html").is_file()
    assert len(said[4].splitlines()) > 3
    rows = [line.split() for line in said[5].splitlines() if line.startswith("torchvision:")]
    large, small = (int(row[2].replace(",", "")) for row in rows)  # MACs
    assert 2 * small < large < 4 * small  # of 128x128 and of 64x64 pixels
    assert (tmp_path / "outputs" / "figures" / "mobilenet" / "index.html").is_file()
