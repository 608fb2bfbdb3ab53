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
