"""A notebook's parameters: the plain assignments of its cell tagged `parameters`, read from the
source, so that a mistake is refused before a kernel starts."""

import ast
import io
import json
import os
import tokenize
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from senet_lib import strict_yaml
from senet_lib.errors import ParameterError, SenetError, unknown

_WORDS = {
    str: "text", int: "a whole number", float: "a number", bool: "true or false", list: "a list",
}  # fmt: skip


class Parameter(NamedTuple):
    """One parameter of a notebook."""

    name: str
    default: str | int | float | bool | list  # as written in the notebook; of the parameter's type
    help: str  # the comment on its line

    @property
    def kind(self) -> str:
        """Name of the type: str, int, float, bool or list."""
        return type(self.default).__name__


def list_notebooks() -> dict[str, Path]:
    """The repository's notebooks by name, in ./notebooks or else beside the package."""
    found: dict[str, Path] = {}
    for folder in (Path("notebooks"), Path(__file__).resolve().parents[2] / "notebooks"):
        for path in sorted(folder.glob("*.ipynb")):
            if not path.stem.endswith(".partial"):
                found.setdefault(path.stem, path)
    return found


def find_notebook(name_or_path: str | Path) -> Path:
    """The notebook of that name, or at that path; SenetError where there is none."""
    text, notebooks = os.fspath(name_or_path), list_notebooks()
    if text.endswith(".ipynb") or os.sep in text:
        if not Path(text).is_file():
            raise SenetError(f"no such notebook: {text}")
        return Path(text)
    if text not in notebooks:
        raise unknown("notebook", text, notebooks or ["none here; start in the repository's root"])
    return notebooks[text]


def describe_parameters(name_or_path: str | Path) -> list[Parameter]:
    """The notebook's parameters, read from its source without executing it; ParameterError where
    the `parameters` cell holds anything but `name = value # help` with a str, int, float, bool or
    list."""
    path = find_notebook(name_or_path)
    for cell in read_cells(path):
        if "parameters" in cell.get("metadata", {}).get("tags", []):
            return list(_parse_cell(cell["source"], path))
    return []


def read_notebook(path: Path) -> dict[str, Any]:
    """A notebook file's content; SenetError where it is no notebook of format 4."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        about = content.get("metadata", {})
        kinds = [about.get(key, {}) for key in ("kernelspec", "language_info")]
        if all(map(_is_whole, content["cells"])) and all(isinstance(k, dict) for k in kinds):
            return content
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        pass
    raise SenetError(f"{path} is not a notebook (or not a whole one)")


def _is_whole(cell: Any) -> bool:
    """Whether a cell's source is text, in one piece or lines, and its tags, if any, are a list."""
    lines = [cell["source"]] if isinstance(cell["source"], str) else list(cell["source"])
    tags = cell.get("metadata", {}).get("tags", [])
    return all(isinstance(line, str) for line in lines) and isinstance(tags, list)


def read_cells(path: Path) -> list[dict[str, Any]]:
    """The cells of a notebook file, the source of each one text, which may be a list of lines."""
    return [cell | {"source": "".join(cell["source"])} for cell in read_notebook(path)["cells"]]


def _parse_cell(source: str, path: Path) -> Iterator[Parameter]:
    try:
        nodes = ast.parse(source).body
    except (SyntaxError, ValueError, RecursionError):
        raise ParameterError(f"the parameters cell of {path} is not valid Python") from None
    comments = {
        token.start[0]: token.string.lstrip("# ").strip()
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    for node in nodes:
        try:
            (target,) = node.targets
            name, default = target.id, ast.literal_eval(node.value)
            if type(default) not in (str, int, float, bool, list):
                raise ValueError
        except (AttributeError, TypeError, ValueError):
            line = source.splitlines()[node.lineno - 1]
            raise ParameterError(
                f"the parameters cell of {path} may hold only `name = value  # help` with a str, "
                f"int, float, bool or list, not {line!r}"
            ) from None
        yield Parameter(name=name, default=default, help=comments.get(node.end_lineno, ""))


def check_parameters(name_or_path: str | Path, values: Mapping[str, Any]) -> dict[str, Any]:
    """Bring each value to its parameter's type: text is converted, lists being written as YAML, and
    a value of another type must already fit; a whole number is a good float. ParameterError for a
    name the notebook does not have, or a value that does not fit."""
    defaults = {p.name: p.default for p in describe_parameters(name_or_path)}
    stem, checked = find_notebook(name_or_path).stem, {}
    for name, value in values.items():
        if name not in defaults:
            near = unknown("parameter", name, defaults)
            raise ParameterError(f"{near} (of notebook {stem}: {', '.join(defaults) or 'none'})")
        try:
            checked[name] = _convert(value, defaults[name])
        except (TypeError, ValueError, OverflowError):
            raise ParameterError(
                f"parameter {name} of notebook {stem} must be {_wanted(defaults[name])}, "
                f"such as {defaults[name]!r}, not {value!r}"
            ) from None
    return checked


def _wanted(default: Any) -> str:
    inner = {type(item) for item in default} if isinstance(default, list) else set()
    return _WORDS[type(default)] if len(inner) != 1 else f"a list, each {_WORDS[inner.pop()]}"


def _convert(value: Any, default: Any) -> Any:
    """`value` as the type of `default`; ValueError or TypeError if it does not fit."""
    kind = type(default)
    if kind is str:
        if not isinstance(value, (str, os.PathLike)):
            raise TypeError
        return os.fspath(value)
    if kind is list:
        return _convert_list(value, default)
    if kind is bool:
        text = str(value).strip().lower()
        if not isinstance(value, (bool, str)) or text not in ("true", "false"):
            raise ValueError
        return text == "true"
    accepted = (int, str) if kind is int else (int, float, str)
    if isinstance(value, bool) or not isinstance(value, accepted):
        raise TypeError
    if isinstance(value, str) and "_" in value:  # Python's 1_000 is a typing error here
        raise ValueError
    number = kind(value)
    if number - number != 0:  # infinite or not a number
        raise ValueError
    return number


def _convert_list(value: Any, default: list) -> list:
    if isinstance(value, str):
        value = strict_yaml.parse(value, "the list")
    if not isinstance(value, (list, tuple)):
        raise TypeError
    if len({type(item) for item in default}) == 1:
        return [_convert(item, default[0]) for item in value]
    if any(type(item) not in (str, int, float, bool) for item in value):
        raise TypeError
    return list(value)
