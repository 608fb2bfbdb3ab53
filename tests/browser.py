"""What tests that drive a browser share: Chromium, and servers of their own.

Imported by name (`from browser import chromium`); nothing here needs playwright until it is used.
"""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from senet_lib import lab

ROOT = Path(__file__).resolve().parent.parent
START_SECONDS = 90
PATIENCE_MS = 120_000  # for the first answer of a kernel, on a machine with other work to do


@pytest.fixture(scope="module")  # playwright bears no second one of its kind beside it
def chromium() -> Iterator[Any]:
    """Chromium, driven by playwright; skips where either is missing."""
    sync_api = pytest.importorskip("playwright.sync_api")
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if not path:
        pytest.skip("Chromium is not installed")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


def violations(page: Any) -> list[tuple[str, str]]:
    """What axe finds serious or critical on a page: rule and HTML of the first place. Skips where
    axe is not installed."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    options = {"resultTypes": ["violations"]}  # telling all that passes takes as long as looking
    found = axe.run(page, options=options).response["violations"]
    bad = [v for v in found if v["impact"] in ("serious", "critical")]
    return [(v["id"], v["nodes"][0]["html"]) for v in bad]


@contextmanager
def jupyter_server(folder: Path, token: str = "") -> Iterator[str]:
    """A JupyterLab on the folder, with settings of its own; gives its address."""
    port = _free_port()
    settings = folder / ".settings" / "config"
    quiet = {"disabledExtensions": {"@jupyterlab/apputils-extension:announcements": True}}
    _write(settings / "labconfig" / "page_config.json", quiet)
    command = [
        *(*lab.command(lab.START), "--no-browser"),
        *(f"--ServerApp.port={port}", "--ServerApp.port_retries=0"),
        *(f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={folder}"),
    ]
    with _served(command, folder, f"http://127.0.0.1:{port}", "/api") as address:
        yield address


@contextmanager
def voila_server(notebook: Path) -> Iterator[str]:
    """The notebook as an app, with settings of its own; gives its address."""
    port = _free_port()
    command = [sys.executable, "-m", "voila", str(notebook), "--no-browser", f"--port={port}"]
    makefile = (Path(__file__).resolve().parents[1] / "Makefile").read_text(encoding="utf-8")
    (setting,) = re.findall(r'(--Voila\.tornado_settings=)"(.*)"', makefile)  # as `make app` has it
    command.append("".join(setting))
    with _served(command, notebook.parent, f"http://127.0.0.1:{port}", "/voila/") as address:
        yield address


def run_all(page: Any, address: str, notebook: str) -> None:
    """Open a notebook of `jupyter_server` and start all its cells, as a user would."""
    page.goto(f"{address}/lab/tree/{notebook}")
    page.get_by_text("| Idle").wait_for()  # without a kernel JupyterLab runs nothing, silently
    again(page)


def again(page: Any) -> None:
    """Start all cells of the notebook that is open."""
    page.locator("#jp-MainMenu").get_by_text("Run", exact=True).click()
    page.locator('[data-command="runmenu:run-all"]').click()


def copy_notebook(name: str, folder: Path, **parameters: Any) -> Path:
    """A copy of one of the repository's notebooks, with other values of its parameters."""
    content = json.loads((ROOT / "notebooks" / f"{name}.ipynb").read_text(encoding="utf-8"))
    for cell in content["cells"]:
        if "parameters" in cell["metadata"].get("tags", []):
            added = [f"\n{key} = {value!r}" for key, value in parameters.items()]
            cell["source"] = "".join([*cell["source"], *added]).splitlines(keepends=True)
    return _write(folder / f"{name}.ipynb", content)


@contextmanager
def _served(command: list[str], folder: Path, address: str, ready: str) -> Iterator[str]:
    """Run a server until the block ends; it and its kernels keep their files in the folder."""
    own = folder / ".settings"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "IPYTHONDIR": str(own / "ipython")}
    for kind in ("config", "data", "runtime"):
        environment[f"JUPYTER_{kind.upper()}_DIR"] = str(own / kind)
    own.mkdir(parents=True, exist_ok=True)
    log = own / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT
        )
        try:
            deadline = time.monotonic() + START_SECONDS
            while not _answers(address + ready):
                late = process.poll() is not None or time.monotonic() > deadline
                assert not late, log.read_text(errors="replace")[-2000:]
                time.sleep(0.2)
            yield address
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _answers(url: str) -> bool:
    """Whether a server answers, whatever it is."""
    try:
        urllib.request.urlopen(url, timeout=5).close()
    except OSError as error:
        return isinstance(error, urllib.error.HTTPError)
    return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _write(path: Path, content: dict) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
    return path
