"""Processes that train until something happens to them. Imported by a fork server, so that each
costs a fork and not the start of an interpreter."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch._dynamo  # a second of imports, which each process would else do anew

from senet_lib import files
from senet_lib.recipe import Recipe
from senet_lib.training.fit import fit

RECIPE = Recipe(epochs=2, batch_size=16, lr=0.05, lr_policy="one_cycle", ema=0.5)
SOAK = os.environ.get("SENET_FAULTS") == "soak"
FULL = SOAK or os.environ.get("SENET_FAULTS") == "full"
SETTINGS = {
    "model": "resnet20", "recipe": RECIPE, "device": "cpu", "precision": "fp32", "compile": "off",
    "threads": 1, "progress": "none", "checkpoint_minutes": 0,
}  # fmt: skip


def train(data: str, out: Path, **changes: Any) -> None:
    """A run of six steps with a checkpoint after each."""
    torch.set_num_threads(1)
    fit(**{**SETTINGS, "data": data, "out": out, **changes})


def train_until_write(data: str, out: Path, moment: int) -> None:
    """The same, killed at one of the moments of writing, counted from 0: when half of a file's
    bytes are written, before they are flushed, and before each renaming."""
    seen = 0

    def dying(call: Callable, half: bool = False) -> Callable:
        def wrapped(*arguments: Any) -> Any:
            nonlocal seen
            seen += 1
            if seen > moment:
                if half:
                    path, content = arguments
                    with path.open("wb") as file:
                        file.write(content[: len(content) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*arguments)

        return wrapped

    class System:
        """`os` as the one writer of files sees it."""

        replace, fsync = staticmethod(dying(os.replace)), staticmethod(dying(os.fsync))

        def __getattr__(self, name: str) -> Any:
            return getattr(os, name)

    files.os = System()
    Path.write_bytes = dying(Path.write_bytes, half=True)
    train(data, out)
