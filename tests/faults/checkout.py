"""A copy of what the workflow needs, with a study of two runs on a few images."""

import shutil
from pathlib import Path

import yaml
from victims import SETTINGS

from senet_lib.recipe import Recipe
from senet_lib.runs.records import load_run
from senet_lib.training.fit import fit

REPOSITORY = Path(__file__).resolve().parents[2]
MODELS = ("resnet20", "se_resnet20")


def checkout(folder: Path, data: str, recipe: Recipe) -> Path:
    """Copy notebooks, library and workflow, and write the study's settings, tiny.yaml."""
    for name in ("senet_lib", "notebooks", "profiles", "configs"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(REPOSITORY / name, folder / name, ignore=ignored)
    shutil.copy(REPOSITORY / "Snakefile", folder)
    shutil.copy(data, folder / "tiny.npz")
    content = {
        "study": "tiny", "protocol": "test", "data": "tiny.npz", "seeds": [0], "threads": 1,
        "models": list(MODELS), "precision": "fp32", "compile": "off",
        "recipe": {k: v for k, v in recipe.to_dict().items() if v != getattr(Recipe(), k)},
    }  # fmt: skip
    (folder / "tiny.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    return folder


def undisturbed(folder: Path, data: str, recipe: Recipe) -> dict[str, Path]:
    """The same two runs, made without a workflow: model to folder."""
    settings = {**SETTINGS, "recipe": recipe, "data": data, "checkpoint_minutes": 2}
    return {m: fit(**{**settings, "model": m, "out": folder / m}).path for m in MODELS}


def assert_as_undisturbed(study: Path, clean: dict[str, Path]) -> None:
    """Every run of the study is whole, and its network and logits are the clean one's bytes."""
    for model, folder in clean.items():
        ours, theirs = load_run(study / "outputs/runs/tiny" / model / "seed0"), load_run(folder)
        ours.verify()
        assert (ours.test_error, ours.test_loss) == (theirs.test_error, theirs.test_loss)
        columns = ["train_loss", "train_error", "test_loss", "test_error", "lr"]
        assert ours.history[columns].equals(theirs.history[columns])
        assert ours.test_logits()[0].tobytes() == theirs.test_logits()[0].tobytes()
        mine, other = ours.load_model().state_dict(), theirs.load_model().state_dict()
        assert all(value.equal(other[name]) for name, value in mine.items())
