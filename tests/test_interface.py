"""The interface that others rely on: every name and every command."""

import ast
import importlib.util
import inspect
import json
import re
import shlex
from pathlib import Path

import pytest
import torch

import senet_lib
from senet_lib.cli import main

ROOT = Path(__file__).resolve().parents[1]
PUBLISHED = ROOT / "outputs" / "published"

# Every flag of the documents, as it stands there.
COMMANDS = (
    "data cifar10",
    "train --model se_res2net29 --epochs 300 --batch-size 128 --lr 0.1 --schedule 150 225"
    " --wd 1e-4 --seed 0 --data shapes --out x --max-minutes 5 --device cpu --precision fp32",
    "evaluate --checkpoint x",
    "gradcam --checkpoint x --out-dir x",
    "profile --model resnet20 se_resnet20",
    "export --checkpoint x --format onnx --format torchscript --format pt2",
    "models se_*",
    "runs model=resnet20 seed=0",
    "claims --json",
    "notebook train --out x.ipynb -p seed=1 -p model=resnet20",
)


@pytest.mark.parametrize("line", COMMANDS)
def test_the_documented_flags_are_accepted(line, capsys):
    """A flag that is none is the only one refused, so nothing runs and all others are known."""
    with pytest.raises(SystemExit) as left:
        main([*shlex.split(line), "--no-such-flag"])
    assert left.value.code == 2
    assert "unrecognized arguments: --no-such-flag (" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("models se_res2net29*", "se_res2net29_last"),
        ("models", "attentions, as in resnet20+attention=NAME: "),
        ("profile --model resnet20", "272,474"),
        (f"runs --root {shlex.quote(str(PUBLISHED / 'runs'))} seed=0", "finished"),
        ("claims a-resnet18-params", "reproduced"),
        ("notebook train --help-parameters", "peak learning rate"),
    ],
)
def test_cheap_commands_do_what_they_say(line, words, prints):
    assert words in prints(*shlex.split(line))


def test_the_documented_names_take_the_documented_arguments():
    parameters = inspect.signature(senet_lib.create_model).parameters
    assert list(parameters) == ["name", "num_classes", "in_channels", "overrides"]
    assert parameters["overrides"].kind is inspect.Parameter.VAR_KEYWORD
    model = senet_lib.create_model("se_resnet20", num_classes=7, in_channels=1, reduction=4)
    assert model(torch.zeros(2, 1, 32, 32)).shape == (2, 7)
    assert {"resnet20", "se_res2net29", "densenet_bc100_12"} <= set(senet_lib.list_models())
    cost = senet_lib.profiling.profile_model(senet_lib.create_model("resnet56"), (3, 32, 32))
    assert (cost.num_params, cost.macs + cost.bias_adds) == (855_770, 125_747_850)
    assert cost.uncounted
    assert senet_lib.data.load_data("shapes").num_classes == 10
    assert len(senet_lib.claims.load_claims()) == 60
    assert sorted(senet_lib.list_models("*res2net29")) == ["res2net29", "se_res2net29"]

    runs = senet_lib.list_runs(PUBLISHED / "runs", seed=0)
    assert set(runs["seed"]) == {0}
    assert set(runs["status"]) == {"finished"}


def test_what_notebooks_scripts_and_pages_import_is_there():
    texts = [path.read_text(encoding="utf-8") for path in ROOT.glob("[bd]*/*.py")]
    for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")):
        texts += re.findall(r"```python\n(.*?)```", path.read_text("utf-8"), re.DOTALL)
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
        texts += [re.sub("^%.*", "", text, flags=re.MULTILINE) for text in code]
    nodes = [node for text in texts for node in ast.walk(ast.parse(text))]
    ours = [n for n in nodes if isinstance(n, ast.ImportFrom) and n.module.startswith("senet_lib")]
    assert len(ours) > 100
    for node in ours:
        for alias in node.names:
            there = hasattr(importlib.import_module(node.module), alias.name)
            assert there or importlib.util.find_spec(f"{node.module}.{alias.name}")
