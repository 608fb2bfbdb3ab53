"""Run folders written without training, whose errors are chosen, and a few images to train on."""

from pathlib import Path
from typing import Any

import numpy as np

from senet_lib.data.datasets import make_shapes
from senet_lib.recipe import Recipe
from senet_lib.runs.records import RunRecord, save_history, save_logits, save_record
from senet_lib.runs.weights import WEIGHTS, NetSpec, save_weights

RECIPE = Recipe(epochs=2, batch_size=32, lr=0.05)
NUM_IMAGES = 200


def make_run(
    root: Path,
    model: str,
    seed: int,
    error: float,
    *,
    study: str = "demo",
    recipe: Recipe = RECIPE,
    **changes: Any,
) -> RunRecord:
    """Write a finished run whose last epoch has the given error on 200 images of 4 classes."""
    folder = root / study / model / f"seed{seed}"
    folder.mkdir(parents=True)
    labels = np.arange(NUM_IMAGES) % 4
    said = labels.copy()
    wrong = round(error * NUM_IMAGES)
    said[:wrong] = (labels[:wrong] + 1) % 4
    save_logits(folder, np.eye(4, dtype=np.float32)[said] * 3, labels)
    rows = [
        {
            "epoch": epoch, "lr": 0.05, "train_loss": 1.5 / epoch, "train_error": 0.8 / epoch,
            "test_loss": 1.4 / epoch, "test_error": error * (recipe.epochs + 1 - epoch),
            "images_per_second": 100.0, "wall_seconds": 30.0 * epoch,
        }
        for epoch in range(1, recipe.epochs + 1)
    ]  # fmt: skip
    save_history(folder, rows)
    fields: dict[str, Any] = {
        "path": folder, "status": "finished", "study": study, "protocol": "test", "model": model,
        "overrides": {}, "seed": seed, "recipe": recipe.to_dict(), "device": "cpu",
        "precision": "fp32", "compile": False, "threads": 1, "evaluated_on": "test", "num_val": 0,
        "test_error": error, "test_loss": 0.7, "train_loss": 0.75, "num_params": 1_234_567,
        "macs": 45_600_000, "images_per_second": 100.0, "wall_seconds": 60.0,
        "peak_memory_mib": 512.0, "data": "shapes", "classes": ["arrow", "cross", "disc", "star"],
        "mean": [0.5, 0.5, 0.5], "std": [0.2, 0.2, 0.2], "data_fingerprint": "ab" * 32,
        "git_commit": "c0ffee" * 6 + "abcd", "git_dirty": False,
        "versions": {"python": "3.11.0", "torch": "2.11.0"},
        "hardware": {"cpu": "A Processor", "cores": 4, "system": "Linux x86_64"},
        "started": "2026-01-01T00:00:00+00:00", "finished": "2026-01-01T00:01:00+00:00",
    }  # fmt: skip
    record = RunRecord(**{**fields, **changes})
    save_record(record)
    return record


def save_shapes(path: Path, num_train: int, num_test: int, seed: int = 0) -> str:
    """Write a few drawn images as a file of one's own."""
    few, names = make_shapes(num_train, num_test, seed), ("x_train", "y_train", "x_test", "y_test")
    np.savez(path, **{n: getattr(few, n) for n in names}, classes=np.array(few.classes))
    return str(path)


def data_fields(data: Any) -> dict[str, Any]:
    """What a record says of its images."""
    lists = {name: list(getattr(data, name)) for name in ("classes", "mean", "std")}
    return {**lists, "data_fingerprint": data.fingerprint}


def save_network(run: RunRecord, network: Any) -> None:
    """Write the weights of a made run, and its record anew."""
    names = ("model", "overrides", "classes", "mean", "std")
    save_weights(run.path / WEIGHTS, network, NetSpec(**{n: getattr(run, n) for n in names}))
    save_record(run)


def settings(**changes: Any) -> dict[str, Any]:
    """A study's settings that ask for the runs `make_run` writes."""
    recipe = {"epochs": RECIPE.epochs, "batch_size": RECIPE.batch_size, "lr": RECIPE.lr}
    base = {"study": "demo", "protocol": "test", "data": "shapes", "recipe": recipe}
    return {**base, "models": ["resnet20", "se_resnet20"], "seeds": [0, 1], **changes}
