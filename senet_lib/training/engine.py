"""One network, one optimiser and the images they train on, a step at a time.

The images stay on the device as one uint8 tensor. Order and augmentation of an epoch are drawn
before it, as a function of (seed, epoch), and what a network draws itself, such as dropout, by
(seed, step): a step depends on nothing but its number and the weights.
"""

# Legend: N images of a batch, H height, W width, C channels, K classes.

import copy
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import filterfalse

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from senet_lib import kernels
from senet_lib.data import augment
from senet_lib.data.datasets import Dataset
from senet_lib.device import DTYPES, Setup, synchronise
from senet_lib.recipe import Recipe, learning_rate

WARM_UP_STEPS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochResult:
    """What an epoch's steps gave."""

    step_losses: torch.Tensor  # loss of each step, (steps,), float32, on the CPU
    train_error: float  # share of wrong predictions on the augmented batches
    lr: float  # learning rate of the last step


def _on_cpu(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.cpu() for name, value in network.state_dict().items()}


class _Average:
    """A running average of weights and statistics. That the random start be soon forgotten, the
    weight of the past is min(decay, (1 + t) / (10 + t)) at step t."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.network = copy.deepcopy(model).requires_grad_(False)
        self.decay, self.steps = decay, 0
        ours, theirs = ([*net.parameters(), *net.buffers()] for net in (self.network, model))
        pairs = [(a.detach(), b.detach()) for a, b in zip(ours, theirs, strict=True)]  # each once

        def has_mean(pair: tuple[torch.Tensor, torch.Tensor]) -> bool:
            return pair[0].is_floating_point() or pair[0].is_complex()

        self.targets, self.sources = zip(*filter(has_mean, pairs), strict=True)
        self.counts = list(filterfalse(has_mean, pairs))

    @torch.no_grad()
    def update(self) -> None:
        past = min(self.decay, (1 + self.steps) / (10 + self.steps))
        torch._foreach_lerp_(self.targets, self.sources, 1 - past)
        for ours, theirs in self.counts:  # what has no mean
            ours.copy_(theirs)
        self.steps += 1

    def state(self) -> dict[str, object]:
        return {"network": _on_cpu(self.network), "steps": self.steps}

    def load_state(self, state: dict) -> None:
        self.network.load_state_dict(state["network"])
        self.steps = state["steps"]


def _fused_update(setup: Setup) -> bool | None:
    """What the optimiser is told. Plain fp32 on a CPU rounds the update as a loop written plainly
    does, step by step; elsewhere False would also mean a kernel for each tensor, and None does not.
    """
    rounded = setup.precision != "fp32"
    if setup.device == "cpu":
        return setup.fused or rounded
    return True if rounded and setup.device == "cuda" else None


class Engine:
    """Trains one network.

    Args:
        model: the network; moved to the device.
        dataset: its training images are used, the rest is not.
        recipe: how to train.
        seed: decides order and augmentation.
        setup: where and how to compute.
    Attributes:
        steps_per_epoch: full batches in an epoch.
        timed_images, timed_seconds: what the steady-state speed is computed from.
    """

    def __init__(
        self, model: nn.Module, dataset: Dataset, recipe: Recipe, seed: int, setup: Setup
    ) -> None:
        self.recipe, self.seed, self.setup = recipe, seed, setup
        self.device = torch.device(setup.device)
        images = torch.from_numpy(dataset.x_train)
        self.mean, self.std = dataset.mean, dataset.std
        # Before the network is moved, so that its weights are the same on any device.
        augment.fit_to_images(model, images, self.mean, self.std)
        self.model = setup.place(model)
        if setup.fused:
            kernels.enable(self.model)
        self.size = images.shape[1]
        self.images = augment.pad_images(images.to(self.device), recipe.padding)
        self.labels = torch.from_numpy(dataset.y_train).to(self.device, torch.int64)
        mean_colour = torch.tensor([round(255 * mean) for mean in dataset.mean], dtype=torch.uint8)
        self.mean_colour = mean_colour.to(self.device)
        self.average = _Average(self.model, recipe.ema) if recipe.ema else None
        self.batch_size = min(recipe.batch_size, len(images))
        self.steps_per_epoch = len(images) // self.batch_size
        groups, self.rate_factors = self._groups()
        self.optimizer = torch.optim.SGD(
            groups,
            lr=recipe.lr,
            momentum=recipe.momentum,
            nesterov=recipe.nesterov,
            weight_decay=recipe.weight_decay,
            fused=_fused_update(setup) and not any(map(torch.is_complex, self.model.parameters())),
        )
        if setup.compile:
            torch._dynamo.reset()  # of one piece of code it compiles but a few networks
        self.loss = torch.compile(self._eager_loss) if setup.compile else self._eager_loss
        self.step_losses = torch.zeros(self.steps_per_epoch, device=self.device)
        self.num_wrong = torch.zeros((), dtype=torch.int64, device=self.device)
        self.timed_images, self.timed_seconds, self._steps_here = 0, 0.0, 0
        self._mark: tuple[float, int] | None = None

    def _groups(self) -> tuple[list[dict[str, object]], list[float]]:
        """The parameters as the optimiser takes them, and each group's factor on the rate."""
        factor = self.recipe.norm_bias_lr
        norms = [m for m in self.model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        biases = [norm.bias for norm in norms if norm.bias is not None and factor != 1]
        apart = dict.fromkeys(biases)  # two may share one
        groups = [{"params": [p for p in self.model.parameters() if p not in apart]}]
        if biases:
            decay = self.recipe.weight_decay / factor
            groups.append({"params": list(apart), "weight_decay": decay})
        return groups, [1.0, factor][: len(groups)]

    def batches(
        self, epoch: int, first_step: int = 0
    ) -> Iterator[tuple[int, torch.Tensor, torch.Tensor]]:
        """The batches of an epoch (counted from 0), or of what is left of it: the step, its
        augmented images (N, H, W, 3), uint8, and their labels (N,), int64."""
        recipe = self.recipe
        plan = augment.draw_epoch(len(self.images), self.seed, epoch, recipe.padding, recipe.flip)
        order, dy, dx, flipped, *hole = (tensor.to(self.device) for tensor in plan)
        for step in range(first_step, self.steps_per_epoch):
            rows = slice(step * self.batch_size, (step + 1) * self.batch_size)
            index = order[rows]
            moved = dy[rows], dx[rows], flipped[rows]
            images = augment.crop_flip(self.images, index, *moved, self.size)
            if recipe.cutout:
                y, x = (place[rows] for place in hole)
                images = augment.cut_out(images, y, x, recipe.cutout, self.mean_colour)
            yield step, images, self.labels[index]

    def run_epoch(
        self, epoch: int, first_step: int, after_step: Callable[[int], None]
    ) -> EpochResult:
        """Train for one epoch, or for what is left of it.

        Args:
            epoch: counted from 0.
            first_step: step to begin with.
            after_step: called with the number of steps done; may raise to stop.
        """
        if first_step == 0:
            self.step_losses.zero_()
            self.num_wrong.zero_()
        steps = self.steps_per_epoch
        self.model.train()
        self.start_clock()
        for step, images, labels in self.batches(epoch, first_step):
            lr = learning_rate(self.recipe, epoch * steps + step, steps)
            own = np.random.SeedSequence([self.seed, epoch * steps + step])
            torch.manual_seed(int(own.generate_state(1, np.uint64)[0]))  # of a network's dropout
            self.train_step(images, labels, lr, step)
            self._steps_here += 1
            if self._steps_here == WARM_UP_STEPS:
                self.start_clock()
            after_step(step + 1)
        self.stop_clock()
        return EpochResult(
            step_losses=self.step_losses.cpu().clone(),
            train_error=self.num_wrong.item() / (steps * self.batch_size),
            lr=learning_rate(self.recipe, epoch * steps + steps - 1, steps),
        )

    def train_step(self, images: torch.Tensor, labels: torch.Tensor, lr: float, step: int) -> None:
        """Forward, backward and update.

        Args:
            images: (N, H, W, 3), uint8, already augmented.
            labels: (N,), int64.
            lr: learning rate.
            step: place of the loss in `step_losses`.
        """
        dtype = DTYPES[self.setup.precision]
        loss, num_wrong = self.loss(augment.normalise(images, self.mean, self.std, dtype), labels)
        loss.backward()
        for group, factor in zip(self.optimizer.param_groups, self.rate_factors, strict=True):
            group["lr"] = factor * lr
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average:
            self.average.update()
        self.step_losses[step] = loss.detach()
        self.num_wrong += num_wrong

    def _eager_loss(
        self, images: torch.Tensor, labels: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean cross-entropy of normalised images (N, C, H, W), and how many are taken wrongly."""
        bf16 = self.setup.precision == "bf16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=bf16):
            logits = self.model(images).float()  # (N, K)
        loss = F.cross_entropy(logits, labels, label_smoothing=self.recipe.label_smoothing)
        return loss, (logits.detach().argmax(1) != labels).sum()

    @property
    def result(self) -> nn.Module:
        """The network that is evaluated and kept: the average of the weights, if there is one."""
        return self.average.network if self.average else self.model

    @property
    def images_per_second(self) -> float | None:
        """Training speed in steady state; None as long as too little was timed."""
        return self.timed_images / self.timed_seconds if self.timed_seconds else None

    def start_clock(self) -> None:
        """Count the steps from here on, once the first of them have warmed up what there is."""
        if self._steps_here >= WARM_UP_STEPS:
            synchronise(self.device)
            self._mark = time.perf_counter(), self._steps_here

    def stop_clock(self) -> None:
        """Add the steps since the clock was started to the timed ones."""
        if self._mark is not None:
            synchronise(self.device)
            self.timed_seconds += time.perf_counter() - self._mark[0]
            self.timed_images += (self._steps_here - self._mark[1]) * self.batch_size
            self._mark = None

    def state(self) -> dict[str, object]:
        """All that decides the next step, besides its number."""
        return {
            "model": _on_cpu(self.model),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average.state() if self.average else None,
            "step_losses": self.step_losses.cpu(),
            "num_wrong": self.num_wrong.item(),
            "timed_images": self.timed_images,
            "timed_seconds": self.timed_seconds,
        }

    def load_state(self, state: dict) -> None:
        """Put back what `state` gave."""
        self.model.load_state_dict(state["model"])
        fused = [group["fused"] for group in self.optimizer.param_groups]
        self.optimizer.load_state_dict(state["optimizer"])
        for group, own in zip(self.optimizer.param_groups, fused, strict=True):
            group["fused"] = own  # that of this setup, whatever was used before
        for weights, held in self.optimizer.state.items():  # the fused step ignores strides
            if (momentum := held.get("momentum_buffer")) is not None:
                held["momentum_buffer"] = torch.empty_like(weights).copy_(momentum)
        if self.average:
            self.average.load_state(state["average"])
        self.step_losses.copy_(state["step_losses"])
        self.num_wrong.fill_(state["num_wrong"])
        self.timed_images, self.timed_seconds = state["timed_images"], state["timed_seconds"]
