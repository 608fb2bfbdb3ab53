"""How fast is a training step, beside the loop people write, and beside what the machine can do?

    python benchmarks/train_speed.py --model se_res2net29 --turns 5 --batches 8

The same network is trained in one process in two ways, turn about: by our engine, and by a plain
loop (a dataset of PIL images, RandomCrop, flip, ToTensor, Normalize, a DataLoader with two workers,
fp32, eager, NCHW). Start-up and compilation are in neither time. Printed are the median images/s of
each, the ratio turn by turn, where the engine's time goes, and the share of the bound: the larger
of the step's multiply-accumulates at the rate of PyTorch's 3x3 convolution measured here, and of
the bytes its layers must move at the rate of a copy measured here.
"""

import argparse
import itertools
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial

import torch
import torch.nn.functional as F
from keep import keep
from torch import nn
from torchvision import transforms

from senet_lib.data.augment import normalise
from senet_lib.data.datasets import Dataset, load_data
from senet_lib.device import DTYPES, Setup, keep_freed_memory, synchronise
from senet_lib.models import create_model
from senet_lib.profiling import profile_model
from senet_lib.recipe import Recipe
from senet_lib.training.engine import Engine

WARM_UP_STEPS = 4


class PilImages(torch.utils.data.Dataset):
    """What torchvision's CIFAR10 class does: an array whose images become PIL images when asked."""

    def __init__(self, dataset: Dataset) -> None:
        self.images, self.labels = dataset.x_train, dataset.y_train
        self.transform = transforms.Compose(
            [
                transforms.RandomCrop(32, padding=4),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(dataset.mean, dataset.std),
            ]
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        from PIL import Image

        return self.transform(Image.fromarray(self.images[index])), int(self.labels[index])


def plain_steps(
    model: nn.Module, dataset: Dataset, batch_size: int, workers: int, device: torch.device
) -> Iterator[None]:
    """The loop people write; each `next` is one step. Its workers end with the iterator."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    criterion = nn.CrossEntropyLoss()
    loader = torch.utils.data.DataLoader(
        PilImages(dataset), batch_size, shuffle=True, num_workers=workers, drop_last=True
    )
    for images, labels in itertools.chain.from_iterable(itertools.repeat(loader)):
        images, labels = images.to(device), labels.to(device)
        optimizer.zero_grad()
        loss = criterion(model(images), labels)
        loss.backward()
        optimizer.step()
        loss.item()
        yield


def engine_steps(engine: Engine, lr: float = 0.1) -> Iterator[None]:
    """Our engine; each `next` is one step, wherever epochs end."""
    for epoch in itertools.count():
        for step, images, labels in engine.batches(epoch):
            engine.train_step(images, labels, lr, step)
            yield


def seconds(steps: Iterator[None], count: int, synchronise: Callable[[], None]) -> float:
    """Time of `count` steps."""
    synchronise()
    began = time.perf_counter()
    for _ in range(count):
        next(steps)
    synchronise()
    return time.perf_counter() - began


def shares(engine: Engine, count: int) -> dict[str, float]:
    """Share of the time in data, forward, backward and optimiser, each waited for."""
    spent = dict.fromkeys(("data", "forward", "backward", "optimizer"), 0.0)
    batches = engine.batches(0)
    dtype = DTYPES[engine.setup.precision]
    mark = time.perf_counter()

    def book(name: str) -> None:
        nonlocal mark
        synchronise(engine.device)
        now = time.perf_counter()
        spent[name] += now - mark
        mark = now

    engine.model.train()
    for _ in range(count):
        _step, images, labels = next(batches)
        images = normalise(images, engine.mean, engine.std, dtype)
        book("data")
        loss, _wrong = engine.loss(images, labels)
        book("forward")
        loss.backward()
        book("backward")
        engine.optimizer.step()
        engine.optimizer.zero_grad(set_to_none=True)
        book("optimizer")
    total = sum(spent.values())
    return {name: value / total for name, value in spent.items()}


def best_seconds(work: Callable[[], object], synchronise: Callable[[], None]) -> float:
    """Shortest of five times, after two to warm up."""
    times = []
    for _ in range(7):
        synchronise()
        began = time.perf_counter()
        work()
        synchronise()
        times.append(time.perf_counter() - began)
    return min(times[2:])


def machine_rates(
    device: torch.device, dtype: torch.dtype, synchronise: Callable[[], None]
) -> tuple[float, float]:
    """(multiply-accumulates a second of a 3x3 convolution, bytes a second of a copy)."""
    images = torch.randn(128, 64, 32, 32, device=device, dtype=dtype)
    images = images.to(memory_format=torch.channels_last)
    weight = torch.randn(64, 64, 3, 3, device=device, dtype=dtype)
    weight = weight.to(memory_format=torch.channels_last)
    macs = 128 * 32 * 32 * 64 * 64 * 9
    conv = macs / best_seconds(lambda: F.conv2d(images, weight, padding=1), synchronise)
    source = torch.empty(2**28, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    copy = 2 * source.numel() / best_seconds(lambda: target.copy_(source), synchronise)
    return conv, copy


def bytes_per_image(name: str, dtype: torch.dtype) -> int:
    """Bytes a step must move at the least: each layer's input and output, read or written
    once forward, and the input, its gradient and the output's gradient once backward."""
    model = create_model(name)
    moved = 0

    def add(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        nonlocal moved
        moved += dtype.itemsize * (3 * inputs[0].numel() + 2 * output.numel())

    hooks = [
        module.register_forward_hook(add)
        for module in model.modules()
        if isinstance(module, (nn.Conv2d, nn.Linear))
    ]
    with torch.no_grad():
        model.eval()(torch.zeros(1, 3, 32, 32))
    for hook in hooks:
        hook.remove()
    return moved


def measure(name: str, dataset: Dataset, arguments: argparse.Namespace) -> dict[str, object]:
    """Everything for one network."""
    setup = Setup.choose(
        device=arguments.device,
        precision=arguments.precision,
        compile=arguments.compile,
        threads=arguments.threads,
    )
    recipe = Recipe(batch_size=arguments.batch_size)
    torch.manual_seed(0)
    keep_freed_memory()
    engine = Engine(create_model(name), dataset, recipe, 0, setup)
    engine.model.train()
    plain_model = create_model(name, num_classes=dataset.num_classes).to(engine.device).train()
    plain = (plain_model, dataset, arguments.batch_size, arguments.workers, engine.device)
    images = arguments.batches * arguments.batch_size
    wait = partial(synchronise, engine.device)
    turns = []
    for _ in range(arguments.turns):
        speeds = []
        for steps in (plain_steps(*plain), engine_steps(engine)):
            # The warm-up also uses up what the loader's workers had prepared before the clock ran.
            seconds(steps, WARM_UP_STEPS, wait)
            speeds.append(images / seconds(steps, arguments.batches, wait))
            steps.close()  # stops the workers, which would go on beside the other's turn
        turns.append(speeds)
    ratios = [mine / theirs for theirs, mine in turns]
    speed = statistics.median(mine for _, mine in turns)
    dtype = DTYPES[engine.setup.precision]
    conv, copy = machine_rates(engine.device, dtype, wait)
    bound = min(conv / (3 * profile_model(engine.model).macs), copy / bytes_per_image(name, dtype))
    return {
        "model": name,
        "plain_images_per_second": statistics.median(theirs for theirs, _ in turns),
        "engine_images_per_second": speed,
        "ratio": statistics.median(ratios),
        "ratio_range": [min(ratios), max(ratios)],
        "shares": shares(engine, arguments.batches),
        "conv_gmacs_per_second": conv / 1e9,
        "copy_gb_per_second": copy / 1e9,
        "bound_images_per_second": bound,
        "share_of_bound": speed / bound,
        "device": setup.device,
        "precision": setup.precision,
        "compile": setup.compile,
        "threads": setup.threads,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--model", nargs="+", default=["se_res2net29", "se_resnet18", "resnet56"])
    add("--turns", type=int, default=5, help="times each way is timed")
    add("--batches", type=int, default=8, help="steps a turn")
    add("--batch-size", type=int, default=128)
    add("--workers", type=int, default=2, help="of the plain loop's DataLoader")
    add("--threads", type=int, default=0)
    add("--data", default="cifar10")
    add("--device", default="auto")
    add("--precision", default="auto")
    add("--compile", default="auto")
    add("--save", action="store_true", help="keep the result under benchmarks/results")
    arguments = parser.parse_args()
    dataset = load_data(arguments.data)
    results = []
    for name in arguments.model:
        found = measure(name, dataset, arguments)
        results.append(found)
        low, high = found["ratio_range"]
        parts = ", ".join(f"{k} {100 * v:.0f} %" for k, v in found["shares"].items())
        print(
            f"{name}: plain {found['plain_images_per_second']:.0f}, "
            f"engine {found['engine_images_per_second']:.0f} images/s, "
            f"ratio {found['ratio']:.2f} ({low:.2f} to {high:.2f}); {parts}; "
            f"{100 * found['share_of_bound']:.0f} % of the bound",
            flush=True,
        )
    if arguments.save:
        keep("train_speed", torch.device(results[0]["device"]), arguments, results=results)


if __name__ == "__main__":
    main()
