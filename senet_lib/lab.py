"""JupyterLab on the study, set up so that links work and looking leaves the notebooks unchanged;
run as a program, git's filter for notebooks."""

import json
import os
import shlex
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from senet_lib.errors import MissingDependencyError, SenetError
from senet_lib.files import is_clone

START, SHOWN = Path("notebooks/index.ipynb"), Path("outputs/index.ipynb")
MOST_BYTES = 20_000_000  # of a message, so that one's own pictures get through to the explorer


def command(start: Path) -> list[str]:
    """What starts JupyterLab in this folder with a notebook of it open."""
    root = hasattr(os, "geteuid") and os.geteuid() == 0  # as which it wants to be told
    return [
        *(sys.executable, "-m", "jupyterlab", *["--allow-root"] * root),
        f"--LabApp.default_url=/lab/tree/{start.as_posix()}",
        "--LabApp.expose_app_in_browser=True",  # for explore.form, which writes into a cell
        "--ContentsManager.files_handler_class=senet_lib.served.Files",
        "--FileContentsManager.post_save_hook=senet_lib.lab.saved",
        f"--ServerApp.tornado_settings={{'websocket_max_message_size': {MOST_BYTES}}}",
    ]


def look_at_what_is_here() -> Path:
    """The index, executed into outputs/ so that it opens full; where that fails, as it is.
    SenetError where this is no clone."""
    from senet_lib.report.batch import NotebookFailedError, execute

    if not is_clone(Path()):
        raise SenetError("this is no clone of the study; start in the top folder of one")
    try:
        return execute(START, SHOWN, {"page_folder": str(SHOWN.parent.absolute())})
    except (NotebookFailedError, SenetError, OSError) as error:
        if isinstance(error, MissingDependencyError) or not START.is_file():
            raise
        print(error, file=sys.stderr)
        return START


def keep_outputs_out_of_git() -> None:
    """Let git take the notebooks of this clone by what is written in them alone."""
    filtering = shlex.join([sys.executable, "-m", "senet_lib.lab"])
    _git(".", "config", "--local", "filter.notebook.clean", filtering)


def saved(os_path: str, **_: Any) -> None:
    """Tell git that nothing has changed in a saved notebook, if so: it does not look for itself
    where the size of the file is another than it knows."""
    folder, name = os.path.split(os_path)
    if name.endswith(".ipynb") and _git(folder, "diff", "--quiet", "--", name):
        _git(folder, "add", "--update", "--", name)


def _git(folder: str, *words: str) -> bool:
    """Whether git does it, if there is git and a clone."""
    with suppress(OSError):
        done = subprocess.run(["git", "-C", folder, *words], capture_output=True, check=False)
        return done.returncode == 0
    return False


def written(text: str) -> str:
    """A notebook without what running it or opening it elsewhere adds; any other text as it is."""
    try:
        notebook = json.loads(text)
        for cell in notebook["cells"]:
            if cell["cell_type"] == "code":
                cell |= {"outputs": [], "execution_count": None}
            for passing in ("execution", "trusted", "collapsed"):
                cell["metadata"].pop(passing, None)
        about = notebook["metadata"]
        about.pop("widgets", None)
        if about.get("kernelspec", {}).get("name") == "python3":
            about["kernelspec"]["display_name"] = "Python 3"
            about["language_info"] = {"name": "python"}
    except (ValueError, KeyError, TypeError, AttributeError):
        return text
    return json.dumps(notebook, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.stdout.buffer.write(written(sys.stdin.buffer.read().decode()).encode())
