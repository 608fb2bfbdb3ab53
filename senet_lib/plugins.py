"""Attentions and networks of one's own: files of Python that register them.

A file is named by `plugins:` in a study, by `--plugin`, or by `use` from Python, and executed once
a process; an environment variable tells other processes (kernels, jobs of a cluster) the names.
No other file is executed: a record keeps a file's text to be read.
"""

import os
import re
import sys
import types
from collections import ChainMap
from collections.abc import Iterable, Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from senet_lib.errors import PluginError, one_line
from senet_lib.files import from_here

VARIABLE = "SENET_PLUGINS"
_LOADED: dict[Path, tuple[str, set[str]]] = {}  # the text of each, and the names it registered
_registries: list[dict[str, Any]] = []  # once they are there
_OURS: set[str] = set()  # the names that the library itself registers
HOW = "--plugin FILE, or senet_lib.plugins.use([FILE])"


def use(paths: Iterable[str | Path]) -> None:
    """Let this process and those it starts know what Python files register, named by paths from
    here or the top of the clone. PluginError where one is missing, or fails: now, or where networks
    are not imported yet, when they are."""
    named = _named()
    for path in map(from_here, paths):
        if not path.is_file():
            raise PluginError(f"there is no plugin {path}; name a Python file")
        path = path.resolve()
        if os.pathsep in str(path):
            raise PluginError(
                f"plugin {path} has a {os.pathsep!r} in its path, which separates files in "
                f"{VARIABLE}; rename it"
            )
        if path in named:
            continue
        if path.name in (other.name for other in named):
            raise PluginError(
                f"two plugins are called {path.name}, as records name them; rename one"
            )
        named.append(path)
    before = os.environ.get(VARIABLE, "")
    if named:
        os.environ[VARIABLE] = os.pathsep.join(map(str, named))
    if _registries:
        try:
            load(_registries)
        except PluginError:
            os.environ[VARIABLE] = before
            raise


def load(registries: Sequence[dict[str, Any]]) -> None:
    """Execute the named files that were not executed yet; called once there are the dictionaries
    into which they register. What a file that fails has registered is taken out again."""
    if not _registries:
        _OURS.update(*registries)
    _registries[:] = registries
    for path in _named():
        if path in _LOADED:
            continue
        if not path.is_file():
            raise PluginError(
                f"{VARIABLE} names {path}, which is no file; {os.pathsep!r} separates files there, "
                "so none may have it in its path"
            )
        before = [dict(registry) for registry in registries]
        try:
            text = path.read_text(encoding="utf-8-sig")
            module = types.ModuleType(f"senet_plugin_{path.stem}")
            module.__file__ = str(path)
            sys.modules[module.__name__] = module  # where pickle and torch.compile look
            with redirect_stdout(sys.stderr):  # programs read what commands print
                exec(compile(text, str(path), "exec"), module.__dict__)
        except (Exception, SystemExit) as error:
            for registry, old in zip(registries, before, strict=True):
                registry.clear()
                registry.update(old)
            said = f"plugin {path}: {type(error).__name__}: {one_line(error)}"
            if isinstance(error, ImportError) and _lies_beside(path, error.name or ""):
                said += "; a plugin is one file, whose text the record keeps: copy it in, or "
                said += "install it"
            raise PluginError(said) from error
        pairs = list(zip(registries, before, strict=True))
        names = {n for new, old in pairs for n in new if new[n] is not old.get(n)}
        _LOADED[path] = text, names


def _lies_beside(path: Path, module: str) -> bool:
    """Whether a module is a neighbour of a file; one without a name was imported as such."""
    near = path.parent / module.partition(".")[0]
    return near.is_dir() or near.with_name(f"{near.name}.py").is_file()


def behind(model: str, overrides: Mapping[str, Any]) -> dict[str, str]:
    """The text, by file name, of each plugin that a network of this name and settings needs, itself
    or by a name that stands in quotes in another one's text."""
    words = _words(model, overrides)
    needed: dict[str, str] = {}
    for _ in _LOADED:  # each may lead to another
        needed |= {path.name: text for path, (text, names) in _LOADED.items() if names & words}
        words |= set(re.findall(r"(?<=[\"'=])[a-z0-9_]+(?=[\"'+])", " ".join(needed.values())))
    return needed


def unkept(model: str, overrides: Mapping[str, Any]) -> list[str]:
    """Of the names in that of a network and its settings, those that neither the library has
    registered nor a plugin, so that no record keeps a text of what they stand for."""
    kept = _OURS.union(*(names for _, names in _LOADED.values()))
    return sorted(_words(model, overrides) & set(ChainMap(*_registries)) - kept)


def _words(model: str, overrides: Mapping[str, Any]) -> set[str]:
    return {part.rpartition("=")[2] for part in model.split("+")} | {*map(str, overrides.values())}


def changed(kept: Mapping[str, str]) -> list[str]:
    """Names of the files whose text is another now than is kept by file name."""
    return [p.name for p, (text, _) in _LOADED.items() if kept.get(p.name, text) != text]


def options(but: Iterable[str | Path] = ()) -> list[str]:
    """What to type to name the files that are named, but for some."""
    here, others = Path.cwd(), {from_here(path).resolve() for path in but}
    paths = [path for path in _named() if path not in others]
    short = [path.relative_to(here) if path.is_relative_to(here) else path for path in paths]
    return [word for path in short for word in ("--plugin", str(path))]


def _named() -> list[Path]:
    paths = os.environ.get(VARIABLE, "").split(os.pathsep)
    return [from_here(path).resolve() for path in paths if path]
