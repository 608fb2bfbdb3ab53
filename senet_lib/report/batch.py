"""Run a notebook as a batch job: strict parameters, an atomic result, a clear failure.

It is executed as `NAME.partial.ipynb` and renamed when it has ended well; after a failure it stays
under that name, with `failed.json` beside it.
"""

import ast
import hashlib
import json
import logging
import os
import re
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from senet_lib import errors
from senet_lib.errors import SenetError
from senet_lib.files import anchored, write_json, write_whole
from senet_lib.report.parameters import check_parameters as check_parameters
from senet_lib.report.parameters import describe_parameters as describe_parameters
from senet_lib.report.parameters import find_notebook, read_cells, read_notebook
from senet_lib.runs import FAILED
from senet_lib.runs.lock import handling, locked, stopping
from senet_lib.runs.provenance import git_state

KERNEL_START_SECONDS = 120
SOURCES = (".py", ".cpp", ".h", ".css", ".js", ".j2", ".json", ".yaml", ".csv")
LONGEST_SOCKET_FOLDER = 80  # a Unix socket's path may have about 100 bytes


class NotebookFailedError(RuntimeError):
    """A cell raised an exception, or the kernel died.

    Args:
        notebook, partial: its name, and where it lies, partly executed.
        cell, code: place in it, counted from 0, and text of the cell; None if none was running.
        error, reason: name of the exception's class, and its message.
    """

    def __init__(
        self, *, notebook: str, cell: int | None, code: str, error: str, reason: str, partial: Path
    ) -> None:
        self.notebook, self.cell, self.error = notebook, cell, error
        self.reason, self.partial = reason, partial
        first = next((line for line in code.splitlines() if line.strip()), "").strip()
        place = "outside its cells" if cell is None else f"in cell {cell + 1} ({first})"
        what = f"{error}: {reason}" if reason else error
        super().__init__(f"notebook {notebook} failed {place}: {what}; see {partial}")
        kind = getattr(errors, error, None)  # 2 for what a cell calls a mistake in what was asked
        self.exit_code = 2 if isinstance(kind, type) and issubclass(kind, SenetError) else 1


def code_hash(notebook: str | Path, sources: Sequence[str | Path] = ()) -> str:
    """Sixteen hexadecimal digits that change when what a notebook does may have changed.

    Args:
        notebook: path of a notebook; what its code cells do and their tags count. Its outputs,
            the values in its parameters cell, comments, docstrings and layout do not.
        sources: files, and folders standing for what is in them, but for what is compiled or an
            editor's copy, such as .ipynb_checkpoints/x.py.
    """
    digest = hashlib.sha256()
    for cell in read_cells(Path(notebook)):
        if cell["cell_type"] == "code":
            tags = cell.get("metadata", {}).get("tags", [])
            code = "" if "parameters" in tags else _code(cell["source"])
            digest.update(json.dumps([code, tags]).encode())
    for path in (path for source in map(Path, sources) for path in _files(source)):
        digest.update(path.name.encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


def _files(source: Path) -> list[Path]:
    if not source.is_dir():
        return [source]
    found = (p for p in sorted(source.rglob("*")) if p.suffix in SOURCES and p.is_file())
    return [path for path in found if not re.search("/[.#]", f"/{path.relative_to(source)}")]


def _code(source: str) -> str:
    """What a cell does, without comments, docstrings and layout; a cell that is not plain Python,
    such as one with a magic, as it stands."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):
        return source
    for node in ast.walk(tree):
        documented = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
        if documented and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:]
    return ast.dump(tree)


def execute(
    name_or_path: str | Path,
    out: str | Path,
    parameters: Mapping[str, Any] | None = None,
    html: str | Path | None = None,
) -> Path:
    """Execute a notebook with this interpreter, in the current folder, and write the result whole.

    What the cells print goes to stderr as it comes. The exit of the process (a signal, Ctrl-C)
    stops the kernel and leaves the partial notebook.

    Args:
        name_or_path: a name such as "train", or a path.
        out: where the executed notebook goes.
        parameters: values for the notebook's parameters, see `check_parameters`.
        html: where to write the page made of it, if anywhere.
    Raises:
        NotebookFailedError: a cell failed or the kernel died.
        RunExistsError: another process is making the same notebook right now.
    """
    source, out = find_notebook(name_or_path), Path(out)
    if out.suffix != ".ipynb":
        raise SenetError(f"--out {out} must end in .ipynb")
    if html and Path(html).suffix != ".html":
        raise SenetError(f"--html {html} must end in .html")
    partial, failure = out.with_suffix(".partial.ipynb"), out.parent / FAILED
    for path in (out, partial):
        if path.exists() and path.samefile(source):
            raise SenetError(f"{path} is the notebook itself; choose another path than --out {out}")
    for path in (out, *([Path(html)] if html else [])):
        _check_place(path)
    _check_language(source)
    checked = check_parameters(source, parameters or {})
    with locked(out.with_name(f".{out.name}.lock"), f"{out} is being made by another process"):
        failure.unlink(missing_ok=True)
        try:
            _run(source, partial, checked)
            commit, changed = git_state()  # no commit outside a clone
            commit = f"{commit[:12]}{'+' if changed else ''}" if commit else ""
            _tidy(partial, input_path=source.name, output_path=out.name, commit=commit)
            if html:
                from senet_lib.report.page import write_page

                write_page(partial, Path(html), _links_from(source, checked))
        except NotebookFailedError as error:
            with suppress(OSError, ValueError, KeyError, TypeError):  # it may not be there at all
                _tidy(partial)
            if error.error not in ("RunStopped", "Interrupted"):  # such a run goes on next time
                time = datetime.now(UTC).isoformat(timespec="seconds")
                content = {"status": "failed", "error": error.error, "message": error.reason}
                content |= {"cell": error.cell, "notebook": error.partial.name, "time": time}
                write_json(failure, content)
            raise
        except OSError as error:
            if error.errno is None or error.filename:
                raise
            raise OSError(error.errno, error.strerror, str(partial)) from None
        os.replace(partial, out)
    return out


def _links_from(source: Path, given: Mapping[str, Any]) -> Path:
    """The folder that a notebook's links start from, which its page need not be in."""
    values = {p.name: p.default for p in describe_parameters(source)} | given
    if "page_folder" not in values:
        return source.parent
    usual = anchored("outputs/reports") / values["study"] if "study" in values else ""
    return Path(values["page_folder"] or usual)


def _check_place(path: Path) -> None:
    """Refuse, before hours of work, a path that cannot be written afterwards."""
    if path.is_dir():
        raise SenetError(f"{path} is a folder; name a file in it")
    folder = next(p for p in path.absolute().parents if p.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise SenetError(f"{path} cannot be written: {folder} is no folder that one may write to")


def _check_language(source: Path) -> None:
    """Refuse a notebook of another language, which would be run as Python."""
    about = read_notebook(source).get("metadata", {})
    kernel, info = about.get("kernelspec", {}), about.get("language_info", {})
    language = str(kernel.get("language") or info.get("name") or "python")
    if not language.lower().startswith(("python", "ipython")):
        raise SenetError(f"{source} is a notebook in {language}; only Python's are run")


def _run(source: Path, partial: Path, parameters: dict[str, Any]) -> None:
    """Execute into `partial`; whatever ends the notebook early becomes a NotebookFailedError."""
    import papermill
    from nbclient.exceptions import DeadKernelError
    from papermill.iorw import load_notebook_node
    from papermill.parameterize import parameterize_notebook

    logging.getLogger("papermill").setLevel(logging.ERROR)
    notebook = load_notebook_node(str(source))
    kernel = {"kernel_name": "python3", "language": "python"}
    if parameters:
        notebook = parameterize_notebook(notebook, parameters, **kernel)
    # a private folder for one kernel's sockets and settings
    private = tempfile.TemporaryDirectory(prefix="senet-", ignore_cleanup_errors=True)
    # These unwind the stack, as SIGINT does: the kernel is stopped and the folder removed.
    ends = [number for number in stopping() if number != signal.SIGINT]
    with private as folder, handling(ends, lambda number, _: sys.exit(128 + number)):
        try:
            papermill.execute_notebook(
                notebook,
                str(partial),
                **kernel,
                progress_bar=False,
                start_timeout=KERNEL_START_SECONDS,
                stdout_file=sys.stderr,
                stderr_file=sys.stderr,
                kernel_manager_class=_kernel_manager(Path(folder)),
            )
        except papermill.PapermillExecutionError as error:
            where, what = (error.cell_index, error.source), (error.ename, error.evalue)
        except RuntimeError as error:  # DeadKernelError is one
            where, what = _running_cell(partial), (type(error).__name__, str(error))
            if isinstance(error, DeadKernelError):
                what = "DeadKernelError", "the usual reason is a lack of memory"
        else:
            return
    raise NotebookFailedError(
        notebook=source.stem, partial=partial,
        cell=where[0], code=where[1], error=what[0], reason=what[1],
    )  # fmt: skip


def _running_cell(partial: Path) -> tuple[int | None, str]:
    """Place and text of the cell that was running when the kernel went away: the last one begun."""
    found: tuple[int | None, str] = (None, "")
    with suppress(SenetError):  # it may not be there at all
        for place, cell in enumerate(read_cells(partial)):
            if cell.get("metadata", {}).get("papermill", {}).get("start_time"):
                found = place, cell["source"]
    return found


def _kernel_manager(folder: Path) -> type:
    """A kernel manager that starts this very interpreter, without IPython's own settings, and talks
    to it by Unix sockets in `folder`, which nobody else can use, where their path is short enough.
    """
    from jupyter_client import AsyncKernelManager
    from jupyter_client.kernelspec import KernelSpec

    sockets = os.name == "posix" and len(os.fsencode(folder)) <= LONGEST_SOCKET_FOLDER
    environment = {
        "SENET_PROGRESS": os.environ.get("SENET_PROGRESS", "log"),
        "IPYTHONDIR": str(folder / "ipython"),
        "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "PASSIVE"),  # as in `senet train`
    }

    class Manager(AsyncKernelManager):
        def __init__(self, **given: Any) -> None:
            super().__init__(
                shutdown_wait_time=25.0,  # seconds, for a checkpoint; SLURM kills after 30
                connection_file=str(folder / "kernel.json"),
                transport="ipc" if sockets else "tcp",
                **given,
            )

        @property
        def kernel_spec(self) -> KernelSpec:
            words = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
            words += ["--log-level=50"]  # it would report that nobody hears of a stopped cell
            about = {"display_name": "Python 3", "language": "python"}
            return KernelSpec(argv=words, env=environment, **about)

    return Manager


def _tidy(partial: Path, **facts: str) -> None:
    """Join streams, and state in the metadata how it was made, in place of what it ran under."""
    content = json.loads(partial.read_text(encoding="utf-8"))
    content["metadata"]["papermill"].update(facts)
    _join_streams_of(content)
    write_whole(partial, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def _join_streams_of(content: dict[str, Any]) -> None:
    """Make one output of all that a cell wrote to stdout, and one of stderr, with the last state of
    a line that was written over. (nbclient takes time that grows with the square of its length.)"""
    for cell in content["cells"]:
        streams: dict[str, list[str]] = {}
        kept = []
        for output in cell.get("outputs", []):
            name = output["name"] if output["output_type"] == "stream" else ""
            if name not in streams:
                kept.append(output)
            if name:
                streams.setdefault(name, []).append("".join(output["text"]))
        for output in kept:
            if output["output_type"] == "stream":
                lines = "".join(streams[output["name"]]).split("\n")
                output["text"] = "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in lines)
        if "outputs" in cell:
            cell["outputs"] = kept
