"""Maps of a whole test set, beside pytorch-grad-cam called image by image.

    python benchmarks/cam_speed.py --images 10000 --alone 300

Both explain CIFAR-10's test images with Grad-CAM at the last layer, in one process and with as many
threads, pytorch-grad-cam before and after ours. Printed are the images/s of each, their ratio, how
far the maps differ after the same scaling, and the process's memory at each batch.
"""

import argparse
import resource
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import torch
from keep import keep

from senet_lib.analysis.cam import compute_maps, find_layer, scale_for_display
from senet_lib.data.augment import normalise
from senet_lib.data.datasets import load_data
from senet_lib.device import keep_freed_memory
from senet_lib.runs.records import anchored
from senet_lib.runs.weights import load_network

WEIGHTS = "outputs/published/runs/laptop/se_res2net29/seed0"
MIB = 2**20


def resident_mib() -> float:
    """Memory of this process now; on systems without /proc its peak so far."""
    status = Path("/proc/self/statm")
    if status.exists():
        return int(status.read_text().split()[1]) * resource.getpagesize() / MIB
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / MIB


def alone(model: torch.nn.Module, images: torch.Tensor) -> tuple[float, np.ndarray]:
    """Images/s of pytorch-grad-cam, one image a call, and its scaled maps."""
    from pytorch_grad_cam import GradCAM

    start = time.perf_counter()
    with GradCAM(model, [find_layer(model, "last")]) as cam:
        maps = [cam(images[i : i + 1], None)[0] for i in range(len(images))]
    return len(images) / (time.perf_counter() - start), np.stack(maps)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--checkpoint", default=WEIGHTS, help="default: the published se_res2net29")
    add("--images", type=int, default=10_000)
    add("--alone", type=int, default=300, help="images that pytorch-grad-cam explains in each turn")
    add("--threads", type=int, default=0, help="0: all")
    add("--save", action="store_true", help="keep the result under benchmarks/results")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    keep_freed_memory()
    model, spec = load_network(anchored(arguments.checkpoint))
    dataset = load_data(spec.data or "cifar10")
    images = normalise(torch.from_numpy(dataset.x_test[: arguments.images]), spec.mean, spec.std)

    theirs, first = alone(model, images[: arguments.alone])
    memory: list[float] = []
    handle = model.register_forward_pre_hook(lambda *_: memory.append(resident_mib()))
    start = time.perf_counter()
    found = compute_maps(model, images)
    seconds = time.perf_counter() - start
    handle.remove()
    again, _ = alone(model, images[: arguments.alone])

    ours = len(images) / seconds
    beside = statistics.mean([theirs, again])
    gap = np.abs(scale_for_display(found.maps[: arguments.alone]) - first).max()
    half = max(len(memory) // 2, 1)
    growth = max(memory[half:], default=memory[0]) - max(memory[:half])
    print(f"ours: {len(images)} maps in {seconds:.1f} s, {ours:.0f} images/s")
    print(f"pytorch-grad-cam, image by image: {theirs:.1f} and {again:.1f} images/s")
    print(f"ratio: {ours / beside:.1f}; largest difference of the scaled maps: {gap:.1e}")
    print(f"memory: {memory[0]:.0f} MiB at the first batch, at most {max(memory):.0f}; "
          f"second half's peak less the first's: {growth:+.0f} MiB")  # fmt: skip
    print(f"zero maps: {int((~found.maps.any((1, 2))).sum())}")
    if arguments.save:
        keep("cam_speed", next(model.parameters()).device, arguments, seconds=seconds,
             images_per_second=ours, alone_images_per_second=[theirs, again], ratio=ours / beside,
             largest_difference=float(gap), memory_mib=memory)  # fmt: skip


if __name__ == "__main__":
    main()
