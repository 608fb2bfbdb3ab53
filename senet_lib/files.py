"""Files that are there whole or not at all."""

import hashlib
import json
import os
import re
import shutil
import socket
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from senet_lib.errors import RecordError


def partial_name(name: str, own: str = "*") -> str:
    """The temporary name of a file or folder, or a pattern for those of every process."""
    return f".{name}.{own}.partial"


def _own() -> str:
    return f"{socket.gethostname()}.{os.getpid()}"


@contextmanager
def replacing(path: str | Path, keep: str | Path | None = None) -> Iterator[Path]:
    """A temporary neighbour of a file, which takes its place once the block has succeeded.

    No two processes share one. The file gets the mode that the umask says, whoever writes it, and
    nothing is left behind on an error. An OSError has the file's own name. Folders are made.

    Args:
        path: the file that is to be there whole.
        keep: where the file that was there before goes, at the moment the new one is whole.
    """
    path = Path(path)
    partial = path.with_name(partial_name(path.name, _own()) + path.suffix)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.touch()
        mode = partial.stat().st_mode
        yield partial
        partial.chmod(mode)
        with partial.open("rb") as file:
            os.fsync(file.fileno())  # a name must not outlive a power cut that its content does not
        if keep and path.exists():
            os.replace(path, keep)
        os.replace(partial, path)
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from None
    finally:
        with suppress(OSError):
            partial.unlink()


@contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """A temporary neighbour of a folder, which takes its place once the block has succeeded. What
    was there before is removed only then; behind a link that is the folder it leads to."""
    folder = folder.resolve()
    new, old = (folder.with_name(partial_name(folder.name, _own() + end)) for end in ("", ".old"))
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir()
        yield new
        if folder.exists():
            shutil.rmtree(old, ignore_errors=True)  # of a process of the same number
            os.replace(folder, old)
        try:
            os.replace(new, folder)
        except OSError:
            os.replace(old, folder)
            raise
        for left_over in (old, *_left_over(folder)):
            shutil.rmtree(left_over, ignore_errors=True)
    except OSError as error:
        if error.errno is None:
            raise
        where = error.filename2 or error.filename or folder
        raise OSError(error.errno, error.strerror, str(where)) from None
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _left_over(folder: Path) -> Iterator[Path]:
    """Temporary neighbours of a folder by processes of this machine that are no more."""
    stem = re.escape(f".{folder.name}.{socket.gethostname()}.")
    for path in folder.parent.iterdir():
        if found := re.fullmatch(stem + r"(\d{1,9})(\.old)?\.partial", path.name):
            try:
                os.kill(int(found[1]), 0)
            except ProcessLookupError:
                yield path
            except OSError:  # another user's
                continue


def write_whole(path: str | Path, content: str | bytes, keep: str | Path | None = None) -> None:
    """Write a file whole or not at all, text in UTF-8; arguments and errors as in `replacing`."""
    with replacing(path, keep) as partial:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_json(content: Any) -> str:
    """SHA-256 of what JSON says, however it is laid out, likewise."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a mapping as JSON, whole or not at all; ValueError for NaN and others it cannot say."""
    write_whole(path, json.dumps(content, indent=1, allow_nan=False) + "\n")


def read_json(path: Path, needed: Iterable[str] = ()) -> dict[str, Any]:
    """Read a JSON object; RecordError where it is not readable, or lacks a key that is needed."""
    content = None
    with suppress(OSError, ValueError, RecursionError):
        content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise RecordError(f"{path} is not readable JSON")
    if missing := [key for key in needed if key not in content]:
        raise RecordError(f"{path} is incomplete: it lacks {', '.join(sorted(missing))}")
    return content


def is_clone(folder: Path) -> bool:
    """Whether a folder is the top of a clone of this project."""
    return (folder / "Snakefile").is_file() and (folder / "senet_lib").is_dir()


def anchored(path: str | Path) -> Path:
    """A relative path seen from the top of the clone, wherever in it one stands (a kernel starts in
    notebooks/). Outside a clone, and for an absolute path, the path as it is."""
    here, path = Path.cwd(), Path(path)
    for folder in () if path.is_absolute() else (here, *here.parents):
        if is_clone(folder):
            return Path(os.path.relpath(folder / path))
    return path


def from_here(path: str | Path) -> Path:
    """A path seen from here where something is there, or else from the top of the clone."""
    return Path(path) if os.path.exists(path) else anchored(path)
