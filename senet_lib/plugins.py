"""Attentions and networks of one's own: files of Python that register them.

A file is named by `plugins:` in a study, by `--plugin`, or by `use` from Python; it is executed
once a process. The names go to other processes (notebooks' kernels, jobs of a cluster) in an
environment variable. Nothing is executed that the user did not name: a record keeps a file's text
to be read.
"""

import os
import sys
import types
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from senet_lib.errors import PluginError, one_line
from senet_lib.files import anchored

VARIABLE = "SENET_PLUGINS"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plugin:
    """One executed file, and the names of the networks and attentions it registered."""

    text: str
    names: frozenset[str]


_LOADED: dict[Path, Plugin] = {}
_registry: list[Callable[[], set[str]]] = []  # once it is there


def use(paths: Iterable[str | Path]) -> None:
    """Let this process and those it starts know what these Python files register; relative paths
    are seen from the top of the clone. PluginError where one is missing or fails."""
    named = _named()
    for path in map(anchored, paths):
        if not path.is_file():
            raise PluginError(f"there is no plugin {path}; name a Python file")
        path = path.resolve()
        if os.pathsep in str(path):
            raise PluginError(
                f"plugin {path} has a {os.pathsep!r} in its path, which separates files in "
                f"{VARIABLE}; rename it"
            )
        if path not in named:
            named.append(path)
    if named:
        os.environ[VARIABLE] = os.pathsep.join(map(str, named))
    if _registry:
        load(_registry[0])


def load(registered: Callable[[], set[str]]) -> None:
    """Execute the files that are named and were not executed yet; the registry calls it once it is
    there, with what gives the names of all networks and attentions."""
    _registry[:] = [registered]
    for path in _named():
        if path in _LOADED:
            continue
        if not path.is_file():
            raise PluginError(
                f"{VARIABLE} names {path}, which is no file; {os.pathsep!r} separates files there, "
                "so none may have it in its path"
            )
        before = registered()
        try:
            text = path.read_text(encoding="utf-8-sig")
            module = types.ModuleType(f"senet_plugin_{path.stem}")
            module.__file__ = str(path)
            sys.modules[module.__name__] = module  # where pickle and torch.compile look
            exec(compile(text, str(path), "exec"), module.__dict__)
        except (Exception, SystemExit) as error:
            raise PluginError(
                f"plugin {path}: {type(error).__name__}: {one_line(error)}"
            ) from error
        _LOADED[path] = Plugin(text=text, names=frozenset(registered() - before))


def behind(model: str, overrides: Mapping[str, Any]) -> dict[str, str]:
    """The plugins that a network needs, by its name and the settings beside it: the text of each by
    its file's name."""
    words = {part.rpartition("=")[2] for part in model.split("+")} | set(
        map(str, overrides.values())
    )
    return {path.name: found.text for path, found in _LOADED.items() if found.names & words}


def _named() -> list[Path]:
    paths = os.environ.get(VARIABLE, "").split(os.pathsep)
    return [anchored(path).resolve() for path in paths if path]
