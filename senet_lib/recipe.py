"""What a training run is: the recipe, the learning rate of each step, a study's configuration."""

import contextlib
import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from senet_lib.errors import RecipeError, unknown

LR_POLICIES = ("step", "one_cycle")
PRECISIONS = ("auto", "fp32", "bf16")
COMPILE_MODES = ("auto", "on", "off")
DEVICES = ("auto", "cpu", "cuda")
AXES = ("gate_at", "reduction", "squeeze", "gate", "position", "stages", "attention")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How a network is trained. The defaults are the `paper` protocol of the second source.

    Attributes:
        epochs: passes over the training images, at least 1.
        batch_size: images a step. Each epoch takes floor(images / batch_size) full batches in a
            fresh random order; the few images left over sit that epoch out.
        lr: peak learning rate, > 0.
        lr_policy: "step" divides at the epochs of `schedule`; "one_cycle" rises linearly over the
            first `warmup` share of the steps, then falls to zero along a half cosine.
        schedule: epochs (counted from 0) from which the rate is multiplied by `gamma` once more;
            strictly increasing. Used by "step" alone.
        gamma: factor at each epoch of `schedule`, in (0, 1].
        warmup: share of all steps spent rising, in [0, 1). Used by "one_cycle" alone.
        momentum: SGD momentum, in [0, 1).
        nesterov: Nesterov's form of the momentum.
        weight_decay: L2 coefficient on every parameter, >= 0.
        padding: black pixels added on each side before the random crop, >= 0.
        flip: probability of a horizontal flip, in [0, 1].
        label_smoothing: mass moved from the true class to all classes alike, in [0, 1).
        cutout: side in pixels of a square that is covered with the mean colour at a random place of
            each image, 0 or above; 0 covers nothing.
        ema: weight of the past in a running average of the weights, in [0, 1); what is evaluated
            and kept is the average. 0 keeps the weights themselves.
        train_images: train on so many images alone, a fixed choice that is as good as random; 0
            takes all.

    Raises:
        RecipeError: a value is out of range, or two of them contradict each other.
    """

    epochs: int = 300
    batch_size: int = 128
    lr: float = 0.1
    lr_policy: Literal["step", "one_cycle"] = "step"
    schedule: tuple[int, ...] = (150, 225)
    gamma: float = 0.1
    warmup: float = 0.25
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 1e-4
    padding: int = 4
    flip: float = 0.5
    label_smoothing: float = 0.0
    cutout: int = 0
    ema: float = 0.0
    train_images: int = 0

    def __post_init__(self) -> None:
        _check_types(self)
        for name, holds, needs in (
            ("epochs", self.epochs >= 1, "at least 1"),
            ("batch_size", self.batch_size >= 1, "at least 1"),
            ("lr", self.lr > 0, "above 0"),
            ("gamma", 0 < self.gamma <= 1, "in (0, 1]"),
            ("warmup", 0 <= self.warmup < 1, "in [0, 1)"),
            ("momentum", 0 <= self.momentum < 1, "in [0, 1)"),
            ("weight_decay", self.weight_decay >= 0, "0 or above"),
            ("padding", self.padding >= 0, "0 or above"),
            ("flip", 0 <= self.flip <= 1, "in [0, 1]"),
            ("label_smoothing", 0 <= self.label_smoothing < 1, "in [0, 1)"),
            ("cutout", self.cutout >= 0, "0 (none) or above"),
            ("ema", 0 <= self.ema < 1, "in [0, 1)"),
            ("train_images", self.train_images >= 0, "0 (all) or above"),
        ):
            if not holds:
                raise RecipeError(f"{name} is {getattr(self, name)}; it must be {needs}")
        if self.lr_policy not in LR_POLICIES:
            raise unknown("lr_policy", self.lr_policy, LR_POLICIES)
        if any(b <= a for a, b in zip((0, *self.schedule), self.schedule, strict=False)):
            raise RecipeError(
                f"schedule is {' '.join(map(str, self.schedule))}; "
                "its epochs must be above 0 and strictly increasing, such as 150 225"
            )
        if self.nesterov and self.momentum == 0:
            raise RecipeError("nesterov needs a momentum above 0")

    def to_dict(self) -> dict[str, Any]:
        """Every field by name, ready for JSON."""
        return {
            k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(self).items()
        }

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> "Recipe":
        """A recipe from a mapping; what it does not name keeps its default.

        Raises:
            UnknownNameError: a key is no field of a recipe.
            RecipeError: a value has the wrong type or is out of range.
        """
        known = [f.name for f in dataclasses.fields(cls)]
        for key in fields:
            if key not in known:
                raise unknown("recipe field", str(key), known)
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()})

    @property
    def id(self) -> str:
        """Twelve hexadecimal digits that are equal exactly when two recipes are.

        Only what differs from the defaults counts, so a field that is added later, with a default
        that changes nothing, leaves the recipes of older records what they were.
        """
        defaults = {f.name: f.default for f in dataclasses.fields(self)}
        changed = {k: v for k, v in self.to_dict().items() if getattr(self, k) != defaults[k]}
        text = json.dumps(changed, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def _check_types(recipe: Recipe) -> None:
    """Make a float of a whole number, and of text like "1e-4", where one is due; else refuse."""
    for spec in dataclasses.fields(recipe):
        value, default = getattr(recipe, spec.name), spec.default
        if isinstance(default, tuple):
            good = isinstance(value, tuple) and all(type(v) is int for v in value)
        elif type(default) is float:
            if isinstance(value, str) and "e" in value.lower():
                with contextlib.suppress(ValueError):  # YAML takes 1e-4, without a point, for text
                    value = float(value)
            good = type(value) in (int, float) and math.isfinite(value)
            value = float(value) if good else value
        else:
            good = type(value) is type(default)
        if not good:
            wanted = "a list of whole numbers" if type(default) is tuple else type(default).__name__
            raise RecipeError(f"{spec.name} is {value!r}; it must be {wanted}, such as {default!r}")
        object.__setattr__(recipe, spec.name, value)


def learning_rate(recipe: Recipe, step: int, steps_per_epoch: int) -> float:
    """Learning rate of one step, a pure function of the step.

    Args:
        recipe: the recipe.
        step: steps taken before this one, counted over the whole run.
        steps_per_epoch: steps in an epoch.
    """
    if recipe.lr_policy == "step":
        epoch = step // steps_per_epoch
        return recipe.lr * recipe.gamma ** sum(epoch >= milestone for milestone in recipe.schedule)
    total = recipe.epochs * steps_per_epoch
    rising = recipe.warmup * total
    if step + 1 <= rising:
        return recipe.lr * (step + 1) / rising
    return recipe.lr * 0.5 * (1 + math.cos(math.pi * (step - rising) / (total - rising)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """One study: which networks are trained, on what, how and with which seeds.

    Attributes:
        study: name of the study and of its folder under outputs/runs.
        protocol: name of the protocol the recipe stands for.
        data: a dataset's name or path, as `senet_lib.data.load_data` takes it.
        models: registry names, at least one.
        seeds: one run a model and seed, at least one seed.
        recipe: how each is trained.
        threads: CPU threads of one run; 0 takes all.
        device: auto, cpu or cuda.
        precision: auto, fp32 or bf16.
        compile: auto, on or off.
        test_every: epochs between two evaluations; the last epoch is evaluated in any case.
        axes: settings that the models differ in; each becomes a page of the ablation.
        gradcam: models whose maps are compared and measured, a page a seed.
        excitation: models whose gates are looked at, a page each, of the first seed.
        grids: how much is explained: grids of each size, five times as many objects, twenty
            times as many images for the gates.
    """

    study: str
    protocol: str
    data: str
    models: tuple[str, ...]
    seeds: tuple[int, ...]
    recipe: Recipe = field(default_factory=Recipe)
    threads: int = 0
    device: str = "auto"
    precision: str = "auto"
    compile: str = "auto"
    test_every: int = 1
    axes: tuple[str, ...] = ()
    gradcam: tuple[str, ...] = ()
    excitation: tuple[str, ...] = ()
    grids: int = 100

    def check_explained(self) -> None:
        """Refuse a model to be explained that the study does not train.

        Raises:
            UnknownNameError: `gradcam` or `excitation` names it.
        """
        for key in ("gradcam", "excitation"):
            for model in getattr(self, key):
                if model not in self.models:
                    raise unknown(f"model under {key}", model, self.models)


def load_study(source: str | Path | Mapping[str, Any]) -> Study:
    """Read a study from a YAML file or a mapping of the same shape.

    Raises:
        RecipeError: the file is missing, is no YAML mapping, lacks a key or has a bad value.
        UnknownNameError: a key or a choice does not exist.
    """
    where = "the study" if isinstance(source, Mapping) else str(source)
    fields = dict(source if isinstance(source, Mapping) else _read_yaml(Path(source)))
    known = [f.name for f in dataclasses.fields(Study)]
    for key in fields:
        if key not in known:
            raise unknown(f"key in {where}", str(key), known)
    missing = [k for k in known[:5] if not fields.get(k) and fields.get(k) != 0]
    if missing:
        raise RecipeError(f"{where} does not say {', '.join(missing)}")
    for key in ("study", "protocol", "data"):
        if not isinstance(fields[key], str):
            raise RecipeError(f"{key} of {where} is {fields[key]!r}; it must be text, in quotes")
    if type(fields.get("threads", 0)) is not int or fields.get("threads", 0) < 0:
        raise RecipeError(f"threads of {where} must be a whole number, 0 (all) or above")
    for key in ("test_every", "grids"):
        if type(fields.get(key, 1)) is not int or fields.get(key, 1) < 1:
            raise RecipeError(f"{key} of {where} must be a whole number, 1 or above")
    for key, choices in (
        ("device", DEVICES),
        ("precision", PRECISIONS),
        ("compile", COMPILE_MODES),
    ):
        if fields.get(key, "auto") not in choices:
            raise unknown(key, str(fields[key]), choices)
    if not isinstance(fields["models"], (list, tuple)) or not isinstance(
        fields["seeds"], (list, tuple)
    ):
        raise RecipeError(f"models and seeds of {where} must be lists, such as seeds: [0, 1, 2]")
    for seed in fields["seeds"]:
        if type(seed) is not int or seed < 0:
            raise RecipeError(f"seed {seed!r} of {where} must be a whole number, 0 or above")
    axes = fields.get("axes") or ()
    if not isinstance(axes, (list, tuple)):
        raise RecipeError(f"axes of {where} must be a list, such as axes: [reduction]")
    for axis in axes:
        if axis not in AXES:
            raise unknown("axis", str(axis), AXES)
    for key in ("gradcam", "excitation"):
        chosen = fields.get(key) or ()
        if not isinstance(chosen, (list, tuple)):
            raise RecipeError(f"{key} of {where} must be a list of its models")
        fields[key] = tuple(chosen)
    fields["models"], fields["seeds"] = tuple(fields["models"]), tuple(fields["seeds"])
    fields["axes"] = tuple(axes)
    fields["recipe"] = Recipe.from_dict(fields.get("recipe") or {})
    return Study(**fields)


def _read_yaml(path: Path) -> Mapping[str, Any]:
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(f"cannot read the study {path}: {error.strerror}") from None
    except yaml.YAMLError as error:
        line = getattr(getattr(error, "problem_mark", None), "line", None)
        place = "" if line is None else f" (line {line + 1})"
        raise RecipeError(f"{path} is not valid YAML{place}") from None
    if not isinstance(content, Mapping):
        raise RecipeError(
            f"{path} must hold a mapping with study, protocol, data, models and seeds"
        )
    return content
