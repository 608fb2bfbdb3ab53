"""What a training run is: the recipe, the learning rate of each step, a study's configuration.

Each setting stands here once, with its sentence and its range: the checks, the options of the
command line and what is refused in a study's file are all made from it.
"""

import dataclasses
import math
import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, Field, dataclass, field
from itertools import product
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

from senet_lib import plugins, strict_yaml
from senet_lib.errors import RecipeError, unknown
from senet_lib.files import sha256_of_json
from senet_lib.strict_yaml import shown

LR_POLICIES = ("step", "one_cycle")
PRECISIONS = ("auto", "fp32", "bf16")
MACHINE = ("device", "precision", "compile", "threads", "test_every")  # settings beside a recipe
COMPILE_MODES = ("auto", "on", "off")
DEVICES = ("auto", "cpu", "cuda", "mps", "xpu")
AXES = ("gate_at", "reduction", "squeeze", "gate", "position", "stages", "attention")
_NAME = "[A-Za-z0-9][A-Za-z0-9._-]{0,99}"
_MODEL = "((timm|torchvision):)?[a-z0-9_]+([+][a-z_]+=[A-Za-z0-9_,]+)*"


def setting(
    help: str,
    within: str = "",
    default: Any = MISSING,
    *,
    choices: tuple[str, ...] = (),
    pattern: str = "",
    flags: tuple[str, ...] = (),
) -> Any:
    """A field with what is needed to check it and to offer it on the command line.

    Args:
        help: one sentence, with the unit.
        within: the range as mathematicians write it, such as "(0, 1]"; of each item of a list.
        default: the value where none is given; left out, one must be given.
        choices: the values there are; of each item of a list.
        pattern: what text must match from end to end; of each item of a list.
        flags: further spellings of its option.
    """
    about = {"help": help, "within": within, "choices": choices, "pattern": pattern, "flags": flags}
    return field(default=default, metadata=about)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How a network is trained. The defaults are the `paper` protocol of the second source.

    Each epoch takes floor(images / batch_size) full batches in a fresh random order; the few
    images left over sit that epoch out.

    Raises:
        RecipeError: a value is out of range, or two of them contradict each other.
    """

    epochs: int = setting("passes over the training images", "[1, 100000]", 300)
    batch_size: int = setting("images of a step", "[1, 1000000]", 128)
    lr: float = setting("peak learning rate", "(0, 1e30]", 0.1)
    lr_policy: str = setting(
        "step: divided at the epochs of the schedule; one_cycle: up in a line over the first "
        "warmup share of the steps, then to zero along a half cosine",
        default="step", choices=LR_POLICIES,
    )  # fmt: skip
    schedule: tuple[int, ...] = setting(
        "step: epochs, counted from 0 and ascending, from which the rate is multiplied by gamma "
        "once more", "[1, 100000]", (150, 225),
    )  # fmt: skip
    gamma: float = setting("step: factor at each epoch of the schedule", "(0, 1]", 0.1)
    warmup: float = setting("one_cycle: share of all steps spent rising", "[0, 1)", 0.25)
    momentum: float = setting("SGD momentum", "[0, 1)", 0.9)
    nesterov: bool = setting("Nesterov's form of the momentum", default=False)
    weight_decay: float = setting(
        "L2 coefficient on every parameter", "[0, 1e30]", 1e-4, flags=("--wd",)
    )
    norm_bias_lr: float = setting(
        "factor on the rate of batch normalisations' biases; their weight decay is divided by it",
        "[1, 1000]", 1.0,
    )  # fmt: skip
    padding: int = setting("black pixels on each side before the random crop", "[0, 32]", 4)
    flip: float = setting("probability of a horizontal flip", "[0, 1]", 0.5)
    label_smoothing: float = setting(
        "mass moved from the true class to all classes alike", "[0, 1)", 0.0
    )
    cutout: int = setting(
        "side in pixels of a square covered with the mean colour in each image; 0: none",
        "[0, 64]", 0,
    )  # fmt: skip
    ema: float = setting(
        "weight of the past in a running average of the weights, which is then evaluated and "
        "kept; 0: the weights themselves", "[0, 1)", 0.0,
    )  # fmt: skip
    train_images: int = setting(
        "train on so many images alone, a fixed choice as good as random; 0: all",
        "[0, 1000000000]", 0,
    )  # fmt: skip

    def __post_init__(self) -> None:
        for name, spec in _fields(Recipe).items():
            object.__setattr__(self, name, check_setting(spec, getattr(self, name)))
        if any(b <= a for a, b in zip(self.schedule, self.schedule[1:], strict=False)):
            raise RecipeError(
                f"schedule is {' '.join(map(str, self.schedule))}; "
                "its epochs must be strictly increasing, such as 150 225"
            )
        if self.nesterov and self.momentum == 0:
            raise RecipeError("nesterov needs a momentum above 0")

    def to_dict(self) -> dict[str, Any]:
        """Every field by name, ready for JSON."""
        values = {name: getattr(self, name) for name in _fields(Recipe)}
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> "Recipe":
        """A recipe from a mapping; what it does not name keeps its default."""
        _refuse_others("recipe field", fields, _fields(cls))
        return cls(**fields)

    @property
    def id(self) -> str:
        """Twelve hexadecimal digits that are equal exactly when two recipes are.

        Only what differs from the defaults counts, so a field that is added later, with a default
        that changes nothing, leaves the recipes of older records what they were.
        """
        default = Recipe().to_dict()
        changed = {k: v for k, v in self.to_dict().items() if v != default[k]}
        return sha256_of_json(changed)[:12]


def check_setting(spec: Field, value: Any, where: str = "") -> Any:
    """A value as its field has it: a tuple of a list, a float of a whole number or of "1e-4".
    RecipeError, which says what it stands in, where it has the wrong type or is out of range;
    UnknownNameError where it is none of the choices."""
    name = f"{spec.name} of {where}" if where else spec.name
    if get_origin(spec.type) is not tuple:
        return _check_one(spec, spec.type, name, value)
    if not isinstance(value, (list, tuple)):
        raise RecipeError(f"{name} is {shown(value)}; it must be a list of {_wanted(spec)}")
    items = tuple(_check_one(spec, get_args(spec.type)[0], name, item) for item in value)
    if len(set(items)) < len(items):
        raise RecipeError(f"{name} is {shown(value)}; each must be there once")
    return items


def _check_one(spec: Field, kind: type, name: str, value: Any) -> Any:
    """One value, or one item of a list."""
    if choices := spec.metadata["choices"]:
        if type(value) is bool and "on" in choices:  # YAML takes on and off, unquoted, for these
            value = "on" if value else "off"
        if value not in choices:
            raise unknown(spec.name, shown(value).strip("'"), choices)
        return value
    if kind is float and type(value) is str and re.fullmatch(r"[-+]?\d*\.?\d+[eE][-+]?\d+", value):
        value = float(value)  # YAML takes 1e-4, without a point, for text
    good = type(value) is kind or (kind is float and type(value) is int)
    if good and kind in (int, float) and (within := spec.metadata["within"]):
        low, high = (kind(end) for end in within[1:-1].split(","))
        above = low < value if within[0] == "(" else low <= value
        good = above and (value < high if within[-1] == ")" else value <= high)
    if good and kind is str:
        good = bool(re.fullmatch(spec.metadata["pattern"] or r"[^\x00-\x1f]+", value))
    if not good:
        raise RecipeError(f"{name} is {shown(value)}; it must be {_wanted(spec)}")
    return kind(value)


def _wanted(spec: Field) -> str:
    """What a field takes, in words."""
    many = get_origin(spec.type) is tuple
    kind = get_args(spec.type)[0] if many else spec.type
    if kind is bool:
        return "true or false"
    if kind is str:
        within = {
            _NAME: ", of letters, digits, and . _ - within",
            _MODEL: ", a name of small letters, digits and _, with +setting=value behind it",
        }
        return "text in one line" + within.get(spec.metadata["pattern"], "")
    words = "whole number" if kind is int else "number"
    within = spec.metadata["within"]
    return f"{words}s in {within}" if many else f"a {words} in {within}"


def learning_rate(recipe: Recipe, step: int, steps_per_epoch: int) -> float:
    """Learning rate of one step of the whole run: a pure function of the step."""
    if recipe.lr_policy == "step":
        epoch = step // steps_per_epoch
        return recipe.lr * recipe.gamma ** sum(epoch >= milestone for milestone in recipe.schedule)
    total = recipe.epochs * steps_per_epoch
    rising = recipe.warmup * total
    if step + 1 <= rising:
        return recipe.lr * (step + 1) / rising
    if total - rising < 1:  # no step is left to fall in
        return recipe.lr
    return recipe.lr * 0.5 * (1 + math.cos(math.pi * (step - rising) / (total - rising)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What studies and sweeps have in common: the networks, what they are trained on, and where."""

    study: str = setting("name of the study and of its folder", pattern=_NAME)
    data: str = setting("shapes, cifar10, cifar100, an npz file or a folder of pictures")
    models: tuple[str, ...] = setting(
        "registry names, with settings if wished: se_resnet20+reduction=8", pattern=_MODEL
    )
    recipe: Recipe = field(default_factory=Recipe)
    # Many more threads cannot be started, which ends in a crash.
    threads: int = setting("CPU threads of one run; 0: all", "[0, 1024]", 0)
    device: str = setting("where it is computed", default="auto", choices=DEVICES)
    precision: str = setting("of the training", default="auto", choices=PRECISIONS)
    compile: str = setting("whether by torch.compile", default="auto", choices=COMPILE_MODES)
    test_every: int = setting(
        "epochs between two evaluations; the last epoch is evaluated in any case", "[1, 100000]", 1
    )
    plugins: tuple[str, ...] = setting(
        "Python files, seen from the top of the clone, that register attentions or networks of "
        "one's own", default=(),
    )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Study(Settings):
    """One study: which networks are trained, on what, how and with which seeds."""

    protocol: str = setting("name of the protocol that the recipe stands for")
    seeds: tuple[int, ...] = setting("one run a model and seed", "[0, 9223372036854775807]")
    more_seeds: tuple[int, ...] = setting(
        "further seeds of some networks alone", "[0, 9223372036854775807]", ()
    )
    more_seeds_of: tuple[str, ...] = setting("the models that these seeds are for", default=())
    axes: tuple[str, ...] = setting(
        "settings that the models differ in; each becomes a page of the ablation",
        default=(), choices=AXES,
    )  # fmt: skip
    gradcam: tuple[str, ...] = setting(
        "models whose maps are compared and measured, a page a seed", default=()
    )
    excitation: tuple[str, ...] = setting(
        "models whose gates are looked at, a page each, of the first seed", default=()
    )
    grids: int = setting(
        "how much is explained: grids of each size, five times as many objects, twenty times as "
        "many images for the gates, twice as many for the worth of their channels",
        "[1, 1000000]", 100,
    )  # fmt: skip
    note: str = setting(
        "what who reads its reports must know, such as seeds added after a look", default=""
    )

    @property
    def runs(self) -> list[tuple[str, int]]:
        """Model and seed of every run that is asked for."""
        further = product(self.more_seeds_of, self.more_seeds)
        return list(dict.fromkeys([*product(self.models, self.seeds), *further]))

    def check_models(self) -> None:
        """UnknownNameError where a key names a model that the study does not train; RecipeError
        where seeds are for no model, or models have no seeds."""
        if bool(self.more_seeds) != bool(self.more_seeds_of):
            raise RecipeError("more_seeds and more_seeds_of say something only together")
        for key in ("more_seeds_of", "gradcam", "excitation"):
            for model in getattr(self, key):
                if model not in self.models:
                    raise unknown(f"model under {key}", model, self.models)


def _refuse_others(kind: str, keys: Iterable[Any], known: Iterable[str]) -> None:
    for key in keys:
        if key not in known:
            raise unknown(kind, shown(key).strip("'"), known)


def check_study(value: Any, name: str = "study") -> Any:
    """One setting of a study, whose name may not lead out of its folder; see `check_setting`."""
    return check_setting(_fields(Study)[name], value)


Kind = TypeVar("Kind", bound=Settings)


def load_study(source: str | Path | Mapping[str, Any]) -> Study:
    """Read a study from a YAML file or a mapping like it, and use its plugins; RecipeError or
    UnknownNameError where the file is missing or no mapping, or a key is missing or bad."""
    if isinstance(source, Mapping):
        return load_settings(Study, source, "the study")
    return load_settings(Study, strict_yaml.read(Path(source)), str(source))


def load_settings(kind: type[Kind], content: Any, where: str) -> Kind:
    """The settings of a study or sweep that a file holds, checked; errors as in `load_study`.

    Args:
        kind: the dataclass.
        content: what the file says.
        where: what errors call the file.
    """
    known, needed = _fields(kind), needed_fields(kind)
    if not isinstance(content, Mapping):
        raise RecipeError(f"{where} must hold a mapping with {', '.join(needed)}")
    for key, other in (("trials", "sweep"), ("seeds", "study")):
        if key in content and key not in known and not set(needed) <= set(content):
            file = shlex.quote(where) if Path(where).is_file() else "FILE"
            raise RecipeError(f"{where} is a {other}, to be run by `senet {other} {file}`")
    _refuse_others(f"key in {where}", content, known)
    given = {key: value for key, value in content.items() if value not in (None, "", [], ())}
    if missing := [key for key in needed if key not in given]:
        raise RecipeError(f"{where} does not say {', '.join(missing)}")
    recipe = given.pop("recipe", {})
    if not isinstance(recipe, Mapping):
        raise RecipeError(f"recipe of {where} is {shown(recipe)}; it must be a mapping")
    checked = {key: check_setting(known[key], value, where) for key, value in given.items()}
    settings = kind(recipe=Recipe.from_dict(recipe), **checked)
    plugins.use(settings.plugins)
    return settings


def _fields(kind: type) -> dict[str, Field]:
    return {spec.name: spec for spec in dataclasses.fields(kind)}


def needed_fields(kind: type) -> list[str]:
    """Names of a dataclass's fields that have no default."""
    return [k for k, f in _fields(kind).items() if f.default is f.default_factory is MISSING]
