"""A study of channel attention (Squeeze-and-Excitation) on CIFAR-10.

`create_model` builds a network, `fit` trains it, `load_run` and `list_runs` read what was left on
disk, `load_pretrained` gives a trained network that comes with the repository. The command line is
`senet`.
"""

__version__ = "0.1.0"

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from senet_lib.models import create_model, list_models
    from senet_lib.runs.published import list_pretrained, load_pretrained
    from senet_lib.runs.records import RunRecord, list_runs, load_run
    from senet_lib.training.fit import fit

_HOMES = {
    "models": ("create_model", "list_models"),
    "runs.published": ("list_pretrained", "load_pretrained"),
    "runs.records": ("RunRecord", "list_runs", "load_run"),
    "training.fit": ("fit",),
}
_MODULES = ("analysis", "claims", "data", "explore", "models", "plugins", "profiling", "recipe")
_MODULES += ("runs",)

__all__ = ["RunRecord", "__version__", "create_model", "fit", "list_models", "list_pretrained"]
__all__ += ["list_runs", "load_pretrained", "load_run"]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that `senet --help` needs no torch."""
    from importlib import import_module

    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"senet_lib.{home}"), name)
    if name in _MODULES:
        return import_module(f"senet_lib.{name}")
    raise AttributeError(f"module 'senet_lib' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, *_MODULES])
