"""Does an image cost the same however many there are?

    python benchmarks/scaling.py --model resnet20 --sizes 1000 5000 50000

The engine trains on the first so many images of CIFAR-10, each size in a process of its own and for
about the same number of images. Printed are the images/s once warm, all of an epoch's own work
included, their largest difference, and the peak memory of each process.
"""

import argparse
import json
import statistics
import subprocess
import sys


def measure(model: str, size: int, images: int, threads: int) -> dict[str, float]:
    """Train on `size` images for about `images`; to be called in a fresh process."""
    import torch

    from senet_lib.data.datasets import load_data, take
    from senet_lib.device import Setup, keep_freed_memory
    from senet_lib.models import create_model
    from senet_lib.recipe import Recipe
    from senet_lib.runs import provenance
    from senet_lib.training.engine import Engine

    setup = Setup.choose(device="auto", precision="auto", compile="auto", threads=threads)
    recipe = Recipe(epochs=1000)
    torch.manual_seed(0)
    dataset = take(load_data("cifar10"), size)
    keep_freed_memory()
    engine = Engine(create_model(model), dataset, recipe, 0, setup)
    epoch = 0
    while engine.timed_images < images:
        engine.run_epoch(epoch, 0, lambda _step: None)
        epoch += 1
    return {
        "images_per_second": engine.images_per_second,
        "peak_memory_mib": provenance.peak_memory_mib(engine.device),
        "epochs": epoch,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--model", default="resnet20")
    add("--sizes", type=int, nargs="+", default=[1000, 5000, 50000])
    add("--images", type=int, default=48000, help="trained on in each measurement, at least")
    add("--turns", type=int, default=3)
    add("--threads", type=int, default=0)
    add("--save", action="store_true", help="keep the result under benchmarks/results")
    add("--one", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        found = measure(arguments.model, arguments.one, arguments.images, arguments.threads)
        print(json.dumps(found))
        return
    found: dict[int, list[dict[str, float]]] = {size: [] for size in arguments.sizes}
    for _ in range(arguments.turns):
        for size in arguments.sizes:
            command = [sys.executable, __file__, "--one", str(size), "--model", arguments.model]
            command += ["--images", str(arguments.images), "--threads", str(arguments.threads)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            found[size].append(json.loads(done.stdout.splitlines()[-1]))
    results = []
    for size, turns in found.items():
        speeds = [turn["images_per_second"] for turn in turns]
        memory = max(turn["peak_memory_mib"] for turn in turns)
        results.append(
            {"images": size, "images_per_second": speeds, "median": statistics.median(speeds)}
            | {"peak_memory_mib": memory}
        )
        print(
            f"{size} images: {statistics.median(speeds):.0f} images/s "
            f"({min(speeds):.0f} to {max(speeds):.0f}), peak {memory:.0f} MiB",
            flush=True,
        )
    medians = [row["median"] for row in results]
    print(f"largest difference of the medians: {100 * (max(medians) / min(medians) - 1):.1f} %")
    if arguments.save:
        import torch
        from keep import keep

        from senet_lib.device import accelerator

        keep("scaling", torch.device(accelerator() or "cpu"), arguments, results=results)


if __name__ == "__main__":
    main()
