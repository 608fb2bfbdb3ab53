"""Files of the user's own: named, executed once, kept in the record, known to every process."""

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from fake_runs import save_shapes

from senet_lib import plugins
from senet_lib.errors import PluginError, SenetError
from senet_lib.models import attention, create_model, list_attentions
from senet_lib.recipe import Recipe, Settings, load_settings
from senet_lib.runs.records import load_run
from senet_lib.runs.study import train_command
from senet_lib.training.plan import make_job

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE = ROOT / "docs" / "own_attention.py"
TRAIN = ("train", "--model", "resnet20+attention=alone", "--data", "shapes", "--epochs", "1")
SMALL = ("--train-images", "64", "--schedule", "--progress", "none", "--threads", "1")


def senet(*words, cwd=ROOT):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "senet_lib", *map(str, words)]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)


def test_the_page_shows_the_example_as_it_is():
    page = (ROOT / "docs" / "own-attention.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    whole = ast.parse(EXAMPLE.read_text(encoding="utf-8"))
    assert ast.dump(ast.parse(shown)) == ast.dump(ast.Module(whole.body[1:], []))


@pytest.mark.slow
def test_a_run_keeps_the_text_and_refuses_another(tmp_path, says):
    run, own = tmp_path / "run", shutil.copy(EXAMPLE, tmp_path / "own.py")
    train = (*TRAIN, *SMALL, "--plugin", own, "--out", run)
    assert senet(*train).returncode == 0
    assert load_run(run).plugins == {"own.py": own.read_text(encoding="utf-8")}
    again = senet("evaluate", "--checkpoint", run, "--plugin", own)
    assert (again.returncode, "they agree" in again.stdout) == (0, True)
    says(["evaluate", "--checkpoint", run], "--plugin")  # without it
    own.write_text(own.read_text(encoding="utf-8") + "\nX = 1\n", encoding="utf-8")
    noted = senet("evaluate", "--checkpoint", run, "--plugin", own)
    assert (noted.returncode, "note: own.py has changed since" in noted.stderr) == (0, True)
    changed = senet(*train)
    assert (changed.returncode, "another text of own.py" in changed.stderr) == (2, True)
    own.rename(tmp_path / "mine.py")
    renamed = senet(*(tmp_path / "mine.py" if word == own else word for word in train))
    assert "plugins: own.py there, mine.py asked" in renamed.stderr


REGISTERED = (
    b"from senet_lib.models import register_attention as register\n"
    b"register('se')(lambda channels, spec: None)\n"
)


def test_a_bad_file_is_one_line(tmp_path, says, monkeypatch):
    own = tmp_path / "own.py"
    (tmp_path / "parts.py").touch()
    (tmp_path / "folder").mkdir()
    says(["models", "--plugin", own], "there is no plugin")
    for text, words in (
        (b"def f(:\n", "SyntaxError"),
        (b"1 / 0\n", "ZeroDivisionError"),
        (b"raise SystemExit(0)\n", "SystemExit"),
        (b"import no_such_package\n", "no_such_package'$"),
        (b"import torch.no_such_module\n", "no_such_module'$"),
        (b"from parts import x\n", "'parts'; a plugin is one file"),
        (b"import folder.x\n", "a plugin is one file"),
        (b"from .parts import x\n", "a plugin is one file"),
        (b"\xff\xfe\x00x", "UnicodeDecodeError"),
        (REGISTERED, "registered already"),
        (REGISTERED.replace(b"'se'", b"'one'").replace(b", spec", b""), "channels and spec"),
        (REGISTERED.replace(b"'se'", b"'one'").replace(b"spec", b"*, spec"), "channels and spec"),
    ):
        own.write_bytes(text)
        monkeypatch.setenv(plugins.VARIABLE, "")
        says(["models", "--plugin", own], words)


def test_a_file_that_failed_is_tried_again_once_it_is_mended(tmp_path, monkeypatch):
    monkeypatch.setenv(plugins.VARIABLE, "")
    own, other = tmp_path / "own.py", tmp_path / "other.py"
    text = EXAMPLE.read_text(encoding="utf-8").replace('"alone"', '"once_more"')
    own.write_text(text + "\n1 / 0\n", encoding="utf-8")
    other.write_text("", encoding="utf-8")
    with pytest.raises(PluginError, match="ZeroDivisionError"):
        plugins.use([own])
    assert "once_more" not in list_attentions()
    plugins.use([other])
    own.write_text(text, encoding="utf-8")
    plugins.use([own])
    assert "once_more" in list_attentions()
    assert set(plugins.behind("resnet20+attention=once_more", {})) == {"own.py"}
    del attention._ATTENTIONS["once_more"]


CELL = """
from torch import nn
from senet_lib.models.attention import register_attention, register_gate

@register_gate("of_a_gate", options=())
class Gate(nn.Module):
    factor = {factor}
    def __init__(self, channels, spec):
        super().__init__()
    def forward(self, x):
        return self.factor * x

@register_attention("of_a_cell", options=())
class Cell(Gate):
    pass
"""


def test_a_cell_is_run_again_and_noted_by_a_run_until_it_is_a_file(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv(plugins.VARIABLE, "")
    names, own = ("of_a_cell", "of_a_gate"), tmp_path / "of_a_cell.py"
    data = save_shapes(tmp_path / "few.npz", 16, 16)

    def note(name):
        model = f"resnet20+attention={name}"
        job = make_job(model, Recipe(epochs=1), 0, data, tmp_path / "run", "s", "p", {}, 0)
        return capsys.readouterr().err, set(job.plugins)

    for factor in (2, 3):
        exec(CELL.format(factor=factor), {"__name__": "__main__"})
        built = [create_model(f"resnet20+attention={name}").stage1[0].attention for name in names]
        assert [built[0].factor, built[1].gate.factor] == [factor, factor]
    for name in names:
        said, kept = note(name)
        assert (said.count("\n"), kept) == (1, set())
        assert re.match(f"note: {name} was registered in this session.*--plugin FILE", said)
    assert note("se") == ("", set())
    own.write_text(CELL.format(factor=4), encoding="utf-8")
    plugins.use([own])
    assert [note(name) for name in names] == [("", {own.name})] * 2
    with pytest.raises(SenetError, match="registered already"):
        exec(CELL.format(factor=5), {"__name__": "__main__"})
    for name in names:
        del attention._ATTENTIONS[name]


def test_a_path_with_the_separator_in_it_is_told_so(tmp_path, says, monkeypatch):
    own = tmp_path / f"a{os.pathsep}b.py"
    own.touch()
    says(["models", "--plugin", own], f"{os.pathsep!r} in its path")
    monkeypatch.setenv(plugins.VARIABLE, str(own))
    says(["models"], f"names {tmp_path / 'a'}, which is no file")


def test_what_a_file_prints_is_no_part_of_a_commands_answer(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("SENET_PLUGINS", raising=False)
    (tmp_path / "print.py").write_text("print('hello')")
    plugins.use([tmp_path / "print.py"])
    assert capsys.readouterr() == ("", "hello\n")


def test_records_can_tell_files_apart(tmp_path, says, monkeypatch):
    monkeypatch.setenv(plugins.VARIABLE, "")
    one, other = tmp_path / "own.py", tmp_path / "more" / "own.py"
    other.parent.mkdir()
    for path in (one, other):
        path.touch()
    says(["models", "--plugin", one, "--plugin", other], "two plugins are called own.py")


def test_a_file_whose_names_another_uses_is_behind_its_networks(tmp_path, monkeypatch):
    texts = {"b.py": "net(attention='squeezed')  # not as plain is", "c.py": "get('a+b=quiet+c=d')"}
    names = {"a.py": {"plain"}, "b.py": {"quiet"}, "c.py": {"mine"}, "d.py": {"squeezed"}}
    loaded = {Path(k): (texts.get(k, ""), v) for k, v in names.items()}
    monkeypatch.setattr(plugins, "_LOADED", loaded)
    assert set(plugins.behind("mine", {})) == {"b.py", "c.py", "d.py"}
    assert set(plugins.behind("resnet20+attention=plain", {})) == {"a.py"}


def test_a_path_is_seen_from_here_or_else_from_the_top(tmp_path, monkeypatch):
    (tmp_path / "Snakefile").touch()
    for name in ("senet_lib", "mine"):
        (tmp_path / name).mkdir()
    for name in ("mine/here.py", "top.py", "mine/of_the_study.py"):
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path / "mine")
    monkeypatch.setenv(plugins.VARIABLE, "here.py")
    plugins.use(["here.py", "top.py", "mine/of_the_study.py"])
    names = os.environ[plugins.VARIABLE].split(os.pathsep)
    assert names == [
        str(tmp_path / name) for name in ("mine/here.py", "top.py", "mine/of_the_study.py")
    ]


def test_a_command_names_the_files_that_were_named(tmp_path, monkeypatch):
    """Those that the settings name themselves once; of a study's file, only the others."""
    monkeypatch.chdir(tmp_path)
    for name in ("own.py", "more.py"):
        Path(name).touch()
    about = {"study": "few", "data": "shapes", "models": ["resnet20"], "plugins": ["own.py"]}
    settings = load_settings(Settings, about, "few")
    plugins.use([tmp_path / "more.py"])
    Path("few.yaml").touch()
    words = train_command(settings, "", "resnet20", 0).split()
    assert [words[i + 1] for i, word in enumerate(words) if word == "--plugin"] == [
        "own.py", "more.py",
    ]  # fmt: skip
    assert train_command(settings, "few.yaml", "resnet20", 0).endswith(" --plugin more.py")


def test_a_file_is_executed_once_by_whatever_path(tmp_path, monkeypatch):
    own = tmp_path / "own.py"
    own.write_bytes(b"\xef\xbb\xbf" + EXAMPLE.read_bytes())  # as some editors begin a file
    monkeypatch.setenv(plugins.VARIABLE, "own.py")
    done = senet("models", "se_resnet20", "--plugin", own, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
