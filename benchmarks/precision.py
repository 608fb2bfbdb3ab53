"""Does bf16 end where fp32 ends?

    python benchmarks/precision.py --model resnet20 --seeds 0 1 2

The same network, recipe and seeds are trained in both precisions. Printed are the errors of each,
their paired difference with its 95 % interval, and the spread of the seeds.
"""

import argparse
import math
import tempfile
from pathlib import Path

import numpy as np
import torch
from keep import keep

from senet_lib.analysis.statistics import interval
from senet_lib.device import accelerator
from senet_lib.recipe import Recipe
from senet_lib.training.fit import fit


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--model", default="resnet20")
    add("--seeds", type=int, nargs="+", default=[0, 1, 2])
    add("--epochs", type=int, default=4)
    add("--train-images", type=int, default=10000)
    add("--threads", type=int, default=0)
    add("--save", action="store_true", help="keep the result under benchmarks/results")
    arguments = parser.parse_args()
    recipe = Recipe(
        epochs=arguments.epochs, lr_policy="one_cycle", train_images=arguments.train_images
    )
    errors: dict[str, dict[int, float]] = {"fp32": {}, "bf16": {}}
    with tempfile.TemporaryDirectory() as folder:
        for seed in arguments.seeds:
            for precision, by_seed in errors.items():
                record = fit(
                    model=arguments.model,
                    recipe=recipe,
                    seed=seed,
                    out=Path(folder) / f"{precision}-{seed}",
                    precision=precision,
                    compile="off" if precision == "fp32" else "auto",
                    threads=arguments.threads,
                    test_every=arguments.epochs,
                    progress="none",
                )
                by_seed[seed] = record.test_error
                print(f"seed {seed}, {precision}: {100 * record.test_error:.2f} %", flush=True)
    differences = [errors["bf16"][seed] - errors["fp32"][seed] for seed in arguments.seeds]
    mean, (low, high) = np.mean(differences), interval(differences) or (math.nan, math.nan)
    spread = {p: float(np.std(list(by_seed.values()), ddof=1)) for p, by_seed in errors.items()}
    print(
        f"bf16 minus fp32: {100 * mean:+.2f} points (95 % t interval {100 * low:+.2f} to "
        f"{100 * high:+.2f}, n = {len(differences)}); standard deviation of the seeds: "
        f"fp32 {100 * spread['fp32']:.2f}, bf16 {100 * spread['bf16']:.2f}"
    )
    if arguments.save:
        device = torch.device(accelerator() or "cpu")
        content = {"recipe": recipe.to_dict(), "errors": errors, "spread": spread}
        content |= {"difference": float(mean), "interval": [low, high]}
        keep("precision", device, arguments, **content)


if __name__ == "__main__":
    main()
