"""What trains a small network fastest on one GPU?

    python benchmarks/gpu.py --model se_res2net29 --seeds 0 1 2 3

One run: its steps launched one by one, compiled by torch.compile, and captured as one CUDA graph.
Several seeds: one after another, interleaved in one process (each on a stream of its own), and in a
process each. Printed are images/s of all together, and how far the losses of the first steps lie
from those of the eager, solitary run: 0 where the arithmetic is the same. Where there is no GPU it
runs on the CPU, without compiling and without the graph.
"""

import argparse
import contextlib
import multiprocessing
import time
from collections.abc import Callable, Sequence
from functools import partial

import torch
from keep import keep
from train_speed import engine_steps

from senet_lib.data.augment import normalise
from senet_lib.data.datasets import load_data
from senet_lib.device import DTYPES, Setup, accelerator, synchronise
from senet_lib.models import create_model
from senet_lib.recipe import Recipe
from senet_lib.training.engine import Engine

LR = 0.05
WARM_UP_STEPS = 3


def make_engine(arguments: argparse.Namespace, seed: int, compile: str = "off") -> Engine:
    """A fresh network and its images."""
    setup = Setup.choose(device="auto", precision="auto", compile=compile, threads=1)
    torch.manual_seed(seed)
    recipe = Recipe(batch_size=arguments.batch_size)
    engine = Engine(create_model(arguments.model), load_data(arguments.data), recipe, seed, setup)
    engine.model.train()
    return engine


def steps_of(engine: Engine) -> Callable[[], None]:
    """What does the next step."""
    return partial(next, engine_steps(engine, LR))


def graph_of(engine: Engine) -> Callable[[], None]:
    """The same, each step one launch of a graph into which the batch is copied."""
    _step, images, labels = next(engine.batches(0))
    start = {name: value.clone() for name, value in engine.model.state_dict().items()}
    for group in engine.optimizer.param_groups:
        group["lr"] = torch.tensor(LR, device=engine.device)  # read by the graph at each launch

    def whole_step() -> torch.Tensor:
        engine.optimizer.zero_grad(set_to_none=True)
        batch = normalise(images, engine.mean, engine.std, DTYPES[engine.setup.precision])
        loss, _wrong = engine.loss(batch, labels)
        loss.backward()
        engine.optimizer.step()
        return loss.detach()

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(WARM_UP_STEPS):
            whole_step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss = whole_step()
    with torch.no_grad():  # back to the start: the weights, and no momentum
        for name, value in engine.model.state_dict().items():
            value.copy_(start[name])
        for state in engine.optimizer.state.values():
            state["momentum_buffer"].zero_()
    batches = engine.batches(0)

    def advance() -> None:
        step, new_images, new_labels = next(batches)
        images.copy_(new_images)
        labels.copy_(new_labels)
        graph.replay()
        engine.step_losses[step] = loss

    return advance


def timed(
    engines: Sequence[Engine],
    advances: Sequence[Callable[[], None]],
    steps: int,
    streams: Sequence[contextlib.AbstractContextManager] = (),
) -> tuple[float, torch.Tensor]:
    """(images/s of all runs together, the losses (runs, steps)); the first steps are not timed."""
    device, began = engines[0].device, 0.0
    for step in range(WARM_UP_STEPS + steps):
        if step == WARM_UP_STEPS:
            synchronise(device)
            began = time.perf_counter()
        for i, advance in enumerate(advances):
            with streams[i] if streams else contextlib.nullcontext():
                advance()
    synchronise(device)
    images = sum(engine.batch_size for engine in engines) * steps
    losses = torch.stack([e.step_losses[: WARM_UP_STEPS + steps].cpu() for e in engines])
    return images / (time.perf_counter() - began), losses


def solo(arguments: argparse.Namespace, seed: int) -> tuple[float, torch.Tensor]:
    """One eager run."""
    engine = make_engine(arguments, seed)
    return timed([engine], [steps_of(engine)], arguments.steps)


def _process(arguments: argparse.Namespace, seed: int, gate, results) -> None:
    engine = make_engine(arguments, seed)
    gate.wait()
    speed, losses = timed([engine], [steps_of(engine)], arguments.steps)
    results.put((seed, speed, losses.tolist()))


def by_processes(arguments: argparse.Namespace) -> tuple[float, torch.Tensor]:
    """A process for each seed, begun together."""
    context = multiprocessing.get_context("spawn")
    gate, results = context.Barrier(len(arguments.seeds)), context.Queue()
    processes = [
        context.Process(target=_process, args=(arguments, seed, gate, results))
        for seed in arguments.seeds
    ]
    for process in processes:
        process.start()
    found = sorted(results.get() for _ in processes)
    for process in processes:
        process.join()
    return sum(speed for _, speed, _ in found), torch.tensor([losses[0] for *_, losses in found])


def interleaved(arguments: argparse.Namespace) -> tuple[float, torch.Tensor]:
    """All seeds in this process, a step of each in turn."""
    engines = [make_engine(arguments, seed) for seed in arguments.seeds]
    on_cuda = engines[0].device.type == "cuda"
    streams = [torch.cuda.stream(torch.cuda.Stream()) for _ in engines] if on_cuda else []
    synchronise(engines[0].device)
    return timed(engines, [steps_of(engine) for engine in engines], arguments.steps, streams)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--model", default="se_res2net29")
    add("--data", default="cifar10")
    add("--seeds", type=int, nargs="+", default=[0, 1, 2, 3])
    add("--batch-size", type=int, default=128)
    add("--steps", type=int, default=100)
    add("--save", action="store_true", help="keep the result under benchmarks/results")
    arguments = parser.parse_args()
    found: dict[str, tuple[float, float]] = {}

    def report(way: str, speed: float, losses: torch.Tensor, expected: torch.Tensor) -> None:
        found[way] = speed, (losses - expected).abs().max().item()
        print(f"{way}: {speed:,.0f} images/s, losses differ by {found[way][1]:.2g}", flush=True)

    alone = [solo(arguments, seed) for seed in arguments.seeds]
    expected = torch.cat([losses for _, losses in alone])
    report("eager, one run", *alone[0], expected[:1])
    if accelerator() == "cuda":
        for way, compile, advance in (("compiled", "on", steps_of), ("graph", "off", graph_of)):
            engine = make_engine(arguments, arguments.seeds[0], compile)
            measured = timed([engine], [advance(engine)], arguments.steps)
            report(f"{way}, one run", *measured, expected[:1])
    report("interleaved", *interleaved(arguments), expected)
    report("a process each", *by_processes(arguments), expected)
    if arguments.save:
        device = torch.device(accelerator() or "cpu")
        keep("gpu", device, arguments, images_per_second_and_difference=found)


if __name__ == "__main__":
    main()
