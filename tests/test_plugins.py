"""Files of the user's own: named, executed once, kept in the record, known to every process."""

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from senet_lib import plugins
from senet_lib.cli import main

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE = ROOT / "docs" / "own_attention.py"
TRAIN = ("train", "--model", "resnet20+attention=alone", "--data", "shapes", "--epochs", "1")
SMALL = ("--train-images", "64", "--schedule", "--progress", "none", "--threads", "1")


def senet(*words: object, cwd: Path = ROOT) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "senet_lib", *map(str, words)]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)


def test_the_page_shows_the_example_as_it_is() -> None:
    page = (ROOT / "docs" / "own-attention.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    whole = ast.parse(EXAMPLE.read_text(encoding="utf-8"))
    assert ast.dump(ast.parse(shown)) == ast.dump(ast.Module(whole.body[1:], []))


def test_a_run_keeps_the_text_and_refuses_another(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    own = tmp_path / "own.py"
    own.write_text(EXAMPLE.read_text(encoding="utf-8"), encoding="utf-8")
    train = (*TRAIN, *SMALL, "--plugin", own, "--out", tmp_path / "run")
    assert senet(*train).returncode == 0
    record = json.loads((tmp_path / "run" / "record.json").read_text(encoding="utf-8"))
    assert record["plugins"] == {"own.py": own.read_text(encoding="utf-8")}
    again = senet("evaluate", "--checkpoint", tmp_path / "run", "--plugin", own)
    assert (again.returncode, "they agree" in again.stdout) == (0, True)
    assert main(["evaluate", "--checkpoint", str(tmp_path / "run")]) == 2  # without it
    assert "--plugin" in capsys.readouterr().err
    own.write_text(own.read_text(encoding="utf-8") + "\nX = 1\n", encoding="utf-8")
    changed = senet(*train)
    assert changed.returncode == 2
    assert "another text of own.py" in changed.stderr


def test_a_bad_file_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "own.py"
    for text, says in (
        (None, "there is no plugin"),
        ("def f(:\n", "SyntaxError"),
        ("1 / 0\n", "ZeroDivisionError"),
        ("raise SystemExit(0)\n", "SystemExit"),
        ("import no_such_package\n", "no_such_package"),
        (b"\xff\xfe\x00x", "UnicodeDecodeError"),
        (
            "from senet_lib.models import register_attention\n"
            "register_attention('se')(lambda channels, spec: None)\n",
            "registered already",
        ),
    ):
        if text is not None:
            own.write_bytes(text if isinstance(text, bytes) else text.encode())
        monkeypatch.setenv(plugins.VARIABLE, "")
        assert main(["models", "--plugin", str(own)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert says in line


def test_a_path_with_the_separator_in_it_is_told_so(tmp_path, capsys, monkeypatch) -> None:
    own = tmp_path / f"a{os.pathsep}b.py"
    own.write_text("")
    assert main(["models", "--plugin", str(own)]) == 2
    assert f"{os.pathsep!r} in its path" in capsys.readouterr().err
    monkeypatch.setenv(plugins.VARIABLE, str(own))
    assert main(["models"]) == 2
    assert f"names {tmp_path / 'a'}, which is no file" in capsys.readouterr().err


def test_a_file_is_executed_once_by_whatever_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "own.py"
    own.write_bytes(b"\xef\xbb\xbf" + EXAMPLE.read_bytes())  # as some editors begin a file
    monkeypatch.setenv(plugins.VARIABLE, "own.py")
    done = senet("models", "se_resnet20", "--plugin", own, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
