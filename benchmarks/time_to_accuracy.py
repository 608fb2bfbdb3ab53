"""How long until a network is right on 90, 92 and 94 of 100 images?

    python benchmarks/time_to_accuracy.py --seeds 0 1 2

The recipe is that of configs/fast.yaml. After every epoch 5,000 held-out training images are
evaluated; printed is the time from the start of the run, evaluations included, at which their
accuracy first passes each mark. At the end the accuracy is measured once more as entries of
DAWNBench and airbench do, from the mean logits of six views of an image: as it is and a pixel up
and down its diagonal, each mirrored too, the former counting twice; and both on the test images,
which decide nothing. Kernels are compiled before the clock starts; reading the data counts. For
comparison: ResNet-164 took 79.4 hours to 94 % on 16 virtual CPUs (DAWNBench, 2017).
"""

import argparse
import math
import statistics
import tempfile
from pathlib import Path

import numpy as np
import torch
from keep import keep

from senet_lib.data.datasets import Dataset, hold_out, load_data
from senet_lib.device import Setup, computed_on
from senet_lib.evaluation import predict
from senet_lib.recipe import load_study
from senet_lib.training.fit import fit

CONFIG = Path(__file__).resolve().parents[1] / "configs" / "fast.yaml"
MARKS = (0.90, 0.92, 0.94)


def accuracies(model: torch.nn.Module, dataset: Dataset) -> tuple[float, float]:
    """On the images that are evaluated: seen once, and in six views."""

    def logits(images: np.ndarray) -> np.ndarray:
        shown = predict(model, np.ascontiguousarray(images), dataset.mean, dataset.std)
        return shown.cpu().numpy()

    images, right = dataset.x_test, dataset.y_test
    wide = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
    once, seen = logits(images), 0
    for view, share in ((images, 2), (wide[:, :-2, :-2], 1), (wide[:, 2:, 2:], 1)):
        plain = once if view is images else logits(view)
        seen = seen + share * (plain + logits(view[:, :, ::-1]))
    return float((once.argmax(1) == right).mean()), float((seen.argmax(1) == right).mean())


def said(minutes: float | None) -> str:
    """When a mark was passed."""
    return "not reached" if minutes in (None, math.inf) else f"at {minutes:.1f} min"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--model", default="se_cnn7")
    add("--seeds", type=int, nargs="+", default=[0, 1, 2])
    add("--threads", type=int, default=0, help="CPU threads; 0: all")
    add("--device", default="auto")
    add("--save", action="store_true", help="keep the result under benchmarks/results")
    arguments = parser.parse_args()
    recipe = load_study(CONFIG).recipe
    where = {"device": arguments.device, "threads": arguments.threads}
    setup = Setup.choose(precision="auto", compile="auto", **where)  # which compiles the kernels
    runs, images = [], load_data("cifar10")
    with tempfile.TemporaryDirectory() as folder:
        for seed in arguments.seeds:
            record = fit(
                model=arguments.model,
                recipe=recipe,
                seed=seed,
                out=Path(folder) / f"seed{seed}",
                num_val=5000,
                progress="none",
                **where,
            )
            curve = record.history
            passed = {}
            for mark in MARKS:
                late = curve[1 - curve["test_error"] > mark]
                passed[mark] = late["wall_seconds"].iloc[0] / 60 if len(late) else None
            model, total = record.load_model(), record.wall_seconds / 60
            ends = {"val": hold_out(images, 5000), "test": images}
            ends = {name: accuracies(model, split) for name, split in ends.items()}
            runs.append({"seed": seed, "minutes": passed, "total_minutes": total, **ends})
            text = ", ".join(f"{mark:.0%} {said(minutes)}" for mark, minutes in passed.items())
            for split, (once, views) in ends.items():
                text += f"; {split} at the end {100 * once:.2f} %, in six views {100 * views:.2f} %"
            print(f"seed {seed}: {text}; {total:.1f} min in all", flush=True)
    for mark in MARKS:
        minutes = [run["minutes"][mark] for run in runs]
        median = statistics.median(math.inf if m is None else m for m in minutes)
        print(f"{mark:.0%}: median {said(median)}, n = {len(runs)}")
    print(f"{arguments.model}, {computed_on(setup)}, {setup.threads} threads")
    if arguments.save:
        keep(
            "time_to_accuracy", torch.device(setup.device), arguments,
            recipe=recipe.to_dict(), computed_on=computed_on(setup), runs=runs,
        )  # fmt: skip


if __name__ == "__main__":
    main()
