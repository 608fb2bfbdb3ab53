"""Files that are there whole or not at all."""

import json
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from senet_lib.errors import RecordError


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Call `write` on a temporary name beside `path`, then rename; nothing is left on an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        write(partial)
        with partial.open("rb") as file:
            os.fsync(file.fileno())  # a name must not outlive a power cut that its content does not
        os.replace(partial, path)
    finally:
        with suppress(FileNotFoundError):
            partial.unlink()


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a mapping as JSON, whole or not at all."""
    text = json.dumps(content, indent=1) + "\n"
    write_atomically(path, lambda partial: partial.write_text(text, encoding="utf-8"))


def read_json(path: Path, needed: Iterable[str]) -> dict[str, Any]:
    """Read what `write_json` wrote.

    Raises:
        RecordError: the file is no readable JSON, or lacks a key.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise RecordError(f"{path} is not readable JSON") from None
    if missing := [key for key in needed if key not in content]:
        raise RecordError(f"{path} is incomplete: it lacks {', '.join(missing)}")
    return content


def anchored(path: str | Path) -> Path:
    """A relative path seen from the top of the clone, wherever in it one stands.

    A notebook's kernel starts in notebooks/, and its runs belong beside those of the workflow.
    Outside a clone, and for an absolute path, the path stays as it is.
    """
    here, path = Path.cwd(), Path(path)
    for folder in () if path.is_absolute() else (here, *here.parents):
        if (folder / "Snakefile").is_file() and (folder / "senet_lib").is_dir():
            return Path(os.path.relpath(folder / path))
    return path
