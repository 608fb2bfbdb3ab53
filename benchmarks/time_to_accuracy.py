"""How long until a network is right on 90, 92 and 94 of 100 images?

    python benchmarks/time_to_accuracy.py --seeds 0 1 2

The recipe is that of configs/fast.yaml. After every epoch 5,000 held-out training images are
evaluated; printed is the time from the start of the run, evaluations included, at which their
accuracy first passes each mark, and the accuracy on the test images at the end, which decides
nothing. Kernels are compiled before the clock starts; reading the data counts. For comparison:
ResNet-164 took 79.4 hours to 94 % on 16 virtual CPUs (DAWNBench, 2017).
"""

import argparse
import math
import statistics
import tempfile
from pathlib import Path

import torch
from keep import keep

from senet_lib.device import Setup, computed_on
from senet_lib.recipe import load_study
from senet_lib.runs.evaluate import evaluate
from senet_lib.training.fit import fit

CONFIG = Path(__file__).resolve().parents[1] / "configs" / "fast.yaml"
MARKS = (0.90, 0.92, 0.94)


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
    runs = []
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
                passed[mark] = late["wall_seconds"].iloc[0] / 60 if len(late) else math.inf
            test = 1 - evaluate(record.path, "cifar10").error
            runs.append({
                "seed": seed, "minutes": passed, "val": 1 - record.test_error, "test": test,
                "total_minutes": record.wall_seconds / 60,
            })  # fmt: skip
            text = ", ".join(f"{100 * mark:.0f} % at {m:.1f} min" for mark, m in passed.items())
            print(
                f"seed {seed}: {text}; at the end ({record.wall_seconds / 60:.1f} min) "
                f"{100 - 100 * record.test_error:.2f} % held out, {100 * test:.2f} % test",
                flush=True,
            )
    for mark in MARKS:
        minutes = statistics.median(run["minutes"][mark] for run in runs)
        print(f"{100 * mark:.0f} %: median {minutes:.1f} min, n = {len(runs)}")
    print(f"{arguments.model}, {computed_on(setup)}, {setup.threads} threads")
    if arguments.save:
        keep(
            "time_to_accuracy", torch.device(setup.device), arguments,
            recipe=recipe.to_dict(), computed_on=computed_on(setup), runs=runs,
        )  # fmt: skip


if __name__ == "__main__":
    main()
