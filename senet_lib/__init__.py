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
    "create_model": "senet_lib.models",
    "list_models": "senet_lib.models",
    "list_pretrained": "senet_lib.runs.published",
    "load_pretrained": "senet_lib.runs.published",
    "RunRecord": "senet_lib.runs.records",
    "list_runs": "senet_lib.runs.records",
    "load_run": "senet_lib.runs.records",
    "fit": "senet_lib.training.fit",
}
_MODULES = ("claims", "data", "models", "profiling")

__all__ = ["RunRecord", "__version__", "create_model", "fit", "list_models", "list_pretrained"]
__all__ += ["list_runs", "load_pretrained", "load_run"]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that `senet --help` needs no torch."""
    from importlib import import_module

    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    if name in _MODULES:
        return import_module(f"senet_lib.{name}")
    raise AttributeError(f"module 'senet_lib' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, *_MODULES])
