"""The registry: every model by name, each a line of numbers for one of the network classes.

A name may carry settings, in alphabetical order: "se_resnet20+reduction=8+squeeze=max" is
se_resnet20 with those two overrides. Such a name works wherever a name does, so an ablation is a
list of names.
"""

import functools
import inspect
import itertools
import sys
import types
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from fnmatch import fnmatchcase

import torch
from torch import nn

from senet_lib.errors import SenetError, failing, unknown
from senet_lib.models import alternatives as alternatives  # registers them
from senet_lib.models.attention import NO_ATTENTION, OF_ONES_OWN, AttentionSpec, check_new
from senet_lib.models.cnn import CNN7
from senet_lib.models.densenet import DenseNet
from senet_lib.models.neighbours import Neighbour, list_neighbours, load_timm
from senet_lib.models.res2net import Res2Net
from senet_lib.models.resnet import PreactResNet, ResNet

CIFAR_SIZE = (3, 32, 32)
IMAGENET_SIZE = (3, 224, 224)
MOST = 100_000  # of any number that a network is asked for
Builder = Callable[..., nn.Module]
_ATTENTION_FIELDS = tuple(f.name for f in fields(AttentionSpec))


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelEntry:
    """One registered model: what `register_model` was given."""

    name: str
    build: Builder
    summary: str
    settings: Mapping[str, object]
    input_size: tuple[int, int, int] = CIFAR_SIZE
    attention: AttentionSpec = NO_ATTENTION

    @property
    def options(self) -> tuple[str, ...]:
        """Names that `create_model` takes as overrides."""
        fixed = ("num_classes", "in_channels", *self.settings)
        names = [name for name in inspect.signature(self.build).parameters if name not in fixed]
        parts = (_ATTENTION_FIELDS if name == "attention" else [name] for name in names)
        return tuple(itertools.chain.from_iterable(parts))


_MODELS: dict[str, ModelEntry] = {}


def register_model(
    name: str,
    *,
    summary: str,
    input_size: tuple[int, int, int] = CIFAR_SIZE,
    settings: Mapping[str, object] | None = None,
    attention: AttentionSpec = NO_ATTENTION,
) -> Callable[[Builder], Builder]:
    """Make a model available by name to every notebook and command.

    Args:
        name: small letters, digits and _; one from a notebook's cell or a script is replaced.
        summary: one line of text for `senet models`.
        input_size: (channels, height, width) in pixels.
        settings: arguments of the builder that the name stands for.
        attention: the attention it has unless overridden.
    Returns:
        A decorator for a class or function with explicit parameters, the first two of which are
        num_classes and in_channels. If one is called `attention` it is given an AttentionSpec. What
        it makes gives logits (N, num_classes) of images (N, in_channels, H, W).
    Raises:
        SenetError: the name is taken, or the builder has not the parameters it needs.
    """
    check_new("model", name, {known: entry.build for known, entry in _MODELS.items()})

    def register(build: Builder) -> Builder:
        parameters = list(inspect.signature(build).parameters)
        if parameters[:2] != ["num_classes", "in_channels"]:
            raise SenetError(f"the builder of {name!r} must take num_classes and in_channels first")
        if attention != NO_ATTENTION and "attention" not in parameters:
            raise SenetError(f"the builder of {name!r} must take an argument called attention")
        _MODELS[name] = ModelEntry(
            name=name, build=build, summary=summary, input_size=input_size,
            settings=dict(settings or {}), attention=attention,
        )  # fmt: skip
        return build

    return register


def create_model(
    name: str, num_classes: int = 10, in_channels: int | None = None, **overrides: object
) -> nn.Module:
    """Build a model with fresh random weights, drawn from torch's global generator.

    Args:
        name: one of `list_models()`, with or without settings, such as "se_resnet20+reduction=8";
            or a network of another library, "timm:resnet18" or "torchvision:resnet18+size=64".
        num_classes: K, at least 1.
        in_channels: channels of an image, at least 1; None for those it was designed for, 3 unless
            it is registered with others.
        overrides: settings of this model by name, such as reduction=8 or shortcut="A"; where one is
            unknown the error lists them. A new `attention` starts from that attention's defaults.
    Returns:
        A network in training mode that maps (N, in_channels, H, W) to logits (N, K).
    Raises:
        UnknownNameError: there is no such model, attention, gate, squeeze, position or shortcut.
        SenetError: an override this model has not, or a value it cannot have.
    """
    entry = _lookup(name)
    named = split_name(name)[1]
    if twice := [key for key in named if key in overrides]:
        raise SenetError(f"{twice[0]} is given twice, in the name {name!r} and as an override")
    overrides = {**named, **overrides}
    for key in overrides:
        if key not in entry.options:
            raise SenetError(
                f"model {entry.name!r} has no setting {key!r}; "
                f"it accepts {', '.join(entry.options)}"
            )
        if isinstance(overrides[key], (list, dict)) and key != "stages":
            raise SenetError(f"{key} must be one value, not {overrides[key]!r}")
        if isinstance(overrides[key], int) and overrides[key] > MOST:
            raise SenetError(f"{key} must be at most {MOST:,}, not {overrides[key]!r}")
    in_channels = entry.input_size[0] if in_channels is None else in_channels
    for key, value in (("num_classes", num_classes), ("in_channels", in_channels)):
        if type(value) is not int or not 1 <= value <= MOST:
            raise SenetError(f"{key} must be a whole number from 1 to {MOST:,}, not {value!r}")
    arguments = {**entry.settings, **overrides}
    if "attention" in inspect.signature(entry.build).parameters:
        chosen = {key: arguments.pop(key) for key in _ATTENTION_FIELDS if key in arguments}
        arguments["attention"] = _attention(entry, chosen)
    with failing(f"model {name!r} cannot be built"):
        return entry.build(num_classes, in_channels, **arguments)


def split_name(name: str) -> tuple[str, dict[str, object]]:
    """The registered name in a name, and the settings it carries: ("se_resnet20", {"reduction": 8})
    for "se_resnet20+reduction=8". SenetError where a setting has no value, or settings are repeated
    or not in order, so that one network would go by two names."""
    base, *parts = str(name).split("+")
    settings: dict[str, object] = {}
    for part in parts:
        key, equals, text = part.partition("=")
        if not (key and equals and text):
            raise SenetError(f"{part!r} in {name!r} must be a setting=value, such as reduction=8")
        settings[key] = _setting(key, text)
    keys = [part.partition("=")[0] for part in parts]
    if keys != sorted(set(keys)):
        ordered = "+".join([base, *sorted({p.partition("=")[0]: p for p in parts}.values())])
        raise SenetError(f"the settings in {name!r} must be in order, each once: {ordered}")
    return base, settings


def full_name(model: str, overrides: Mapping[str, object]) -> str:
    """The name under which `create_model` would build that network with these overrides."""
    base, *named = model.split("+")
    return "+".join([base, *sorted([*named, *(f"{k}={_text(v)}" for k, v in overrides.items())])])


def _text(value: object) -> str:
    """A setting's value as it stands in a name."""
    if isinstance(value, list | tuple):
        return ",".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def _setting(key: str, text: str) -> object:
    """The value that a text in a name stands for."""
    if key == "stages":
        parts = tuple(_number(part) for part in text.split(","))
        numbers = [part for part in parts if isinstance(part, int)]
        if numbers != sorted(set(numbers)):
            ordered = ",".join(map(str, sorted(set(numbers))))
            raise SenetError(f"stages={text} must be in order, each once: stages={ordered}")
        return parts
    return text == "true" if text in ("true", "false") else _number(text)


def _number(text: str) -> int | str:
    """A whole number, if the text is how one is written."""
    return int(text) if text.isdecimal() and text == str(int(text)) else text


def check_name(name: str) -> None:
    """Raise what `create_model` would for this name."""
    with torch.device("meta"):
        create_model(name)


def list_models(pattern: str = "*") -> list[str]:
    """Names of the registered models that match a shell-style pattern, in order of registration;
    of a library's networks for a pattern such as "timm:*resnet*"."""
    library, colon, rest = pattern.partition(":")
    if colon:
        return [f"{library}:{n}" for n in list_neighbours(library) if fnmatchcase(n, rest)]
    return [name for name in _MODELS if fnmatchcase(name, pattern)]


def input_size(name: str) -> tuple[int, int, int]:
    """(channels, height, width) in pixels that the model was designed for."""
    return _lookup(name).input_size


def all_settings(name: str) -> dict[str, object]:
    """Everything that a name stands for: each argument of its builder and of its attention. Two
    names with equal settings are the same network. UnknownNameError where there is none."""
    entry, named = _lookup(name), split_name(name)[1]
    parameters = inspect.signature(entry.build).parameters
    settings = {k: p.default for k, p in parameters.items() if p.default is not p.empty}
    settings |= {**entry.settings, **named, "builder": entry.build}
    if "attention" in parameters:
        chosen = {key: settings.pop(key) for key in _ATTENTION_FIELDS if key in named}
        settings |= asdict(_attention(entry, chosen))
    return settings


def _attention(entry: ModelEntry, chosen: Mapping[str, object]) -> AttentionSpec:
    """The model's attention with some fields replaced; another attention starts from defaults."""
    renamed = chosen.get("attention", entry.attention.attention) != entry.attention.attention
    return replace(NO_ATTENTION if renamed else entry.attention, **chosen)


def describe(name: str) -> str:
    """One line of text about the model."""
    settings = str(name).split("+")[1:]
    return ", ".join([_lookup(name).summary, *settings])


def _lookup(name: str) -> ModelEntry:
    """The entry of that name; UnknownNameError with the near names if there is none."""
    base = split_name(name)[0]
    library, colon, network = base.partition(":")
    if colon:
        if network not in (known := list_neighbours(library)):
            raise unknown(f"network of {library}", network, known)
        settings, summary = {"library": library, "network": network}, f"{network} of {library}"
        return ModelEntry(name=base, build=Neighbour, summary=summary, settings=settings)
    if base not in _MODELS:
        raise unknown("model", base, _MODELS, OF_ONES_OWN)
    return _MODELS[base]


def register_with_timm(prefix: str = "senet_") -> list[str]:
    """Let `timm.create_model("senet_se_resnet20", num_classes=10)` build our networks, each under
    its name behind the prefix; returns these names. Those that timm knows already are left as they
    are. Our networks take settings as `create_model` does, and have no weights for timm to fetch.
    MissingDependencyError where timm is not installed."""
    timm, names = load_timm(), {prefix + name: name for name in list_models()}
    # timm keeps the list of a module's networks in the module.
    home = sys.modules.setdefault("senet_lib_networks", types.ModuleType("senet_lib_networks"))
    for theirs, ours in names.items():
        if not timm.is_model(theirs):
            build = functools.partial(_for_timm, ours)
            vars(build).update(__name__=theirs, __module__=home.__name__)
            setattr(home, theirs, timm.models.register_model(build))
    return list(names)


def _for_timm(
    name: str, pretrained: bool = False, pretrained_cfg: object = None,
    pretrained_cfg_overlay: object = None, cache_dir: object = None, num_classes: int = 10,
    in_chans: int = 3, drop_rate: float = 0.0, **settings: object,
) -> nn.Module:  # fmt: skip
    """A network as timm calls for one."""
    if pretrained or drop_rate:
        raise SenetError(f"{name} has neither weights in timm nor dropout")
    model = create_model(name, num_classes, in_chans, **settings)
    size = (in_chans, *input_size(name)[1:])
    model.num_classes = num_classes
    model.pretrained_cfg = model.default_cfg = {"num_classes": num_classes, "input_size": size}
    return model


def _register_pair(name: str, build: Builder, text: str, **settings: object) -> None:
    """Register a network without attention, and as se_<name> with SE at r = 16; SE has biases in
    networks with the large stem, for ImageNet's images, as in the weights made public."""
    bias = bool(settings.get("large"))
    size = IMAGENET_SIZE if bias else CIFAR_SIZE
    summary = f"{text}, {size[1]}x{size[2]} images"
    about = {"settings": settings, "input_size": size}
    register_model(name, summary=summary, **about)(build)
    summary += f", SE r = 16{' with biases' if bias else ''}"
    spec = AttentionSpec(attention="se", gate_bias=bias)
    register_model(f"se_{name}", summary=summary, attention=spec, **about)(build)


def _register_all() -> None:
    small = {"widths": None, "groups": 1, "large": False}
    sizes = {"num_blocks": (2,) * 4, "channels": (64, 128, 256, 512), "stem_channels": 64}
    _register_pair("resnet18", ResNet, "ResNet-18 with a 3x3 stem", **small, **sizes)
    for depth in (20, 32, 44, 56, 110):
        blocks = (depth - 2) // 6  # two convolutions a block, three stages, stem and linear layer
        sizes = {"num_blocks": (blocks,) * 3, "channels": (16, 32, 64), "stem_channels": 16}
        _register_pair(f"resnet{depth}", ResNet, f"ResNet-{depth}", **small, **sizes)
    for depth, per_block in ((110, 2), (164, 3)):
        sizes = {"num_blocks": (depth - 2) // (3 * per_block), "widen": 1}
        text, deep = f"pre-activation ResNet-{depth}", per_block == 3
        _register_pair(f"preact_resnet{depth}", PreactResNet, text, **sizes, bottleneck=deep)
    sizes = {"num_blocks": 2, "widen": 8, "bottleneck": False}
    _register_pair("wrn16_8", PreactResNet, "Wide ResNet-16-8", **sizes)
    sizes = {"num_blocks": (3,) * 3, "channels": (256, 512, 1024), "stem_channels": 64}
    groups = {"widths": (512, 1024, 2048), "groups": 8, "large": False}
    _register_pair("resnext29_8x64d", ResNet, "ResNeXt-29, 8x64d", **sizes, **groups)
    register_model(
        "densenet_bc100_12",
        summary="DenseNet-BC-100, growth 12, 32x32 images",
        settings={"num_layers": 16, "growth": 12},
    )(DenseNet)
    _register_pair("cnn7", CNN7, "CNN of seven convolutions, learns fast", channels=(64, 256, 256))
    _register_pair("res2net29", Res2Net, "Res2Net-29, 4 streams", num_blocks=3)
    for gate_at, what in (("last", "the last stream"), ("first2", "streams 1 and 2")):
        register_model(
            f"se_res2net29_{gate_at}",
            summary=f"Res2Net-29, 4 streams, 32x32 images, SE r = 16 on {what} only",
            settings={"num_blocks": 3, "gate_at": gate_at},
            attention=AttentionSpec(attention="se"),
        )(Res2Net)
    sizes = {"num_blocks": (3, 4, 6, 3), "channels": (256, 512, 1024, 2048), "stem_channels": 64}
    for name, text, width, groups in (
        ("resnet50", "ResNet-50", 64, 1), ("resnext50_32x4d", "ResNeXt-50, 32x4d", 128, 32),
    ):  # fmt: skip
        sizes |= {"widths": tuple(width * 2**i for i in range(4)), "groups": groups, "large": True}
        _register_pair(name, ResNet, text, **sizes)


_register_all()
