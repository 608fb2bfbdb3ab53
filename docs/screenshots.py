"""Take the README's pictures of notebooks and report, in a browser: python docs/screenshots.py

Without names, of all; otherwise of those named: index, train, explore, report. Needs Chromium and
the packages of `make test`. The notebooks are copies, so nothing in the clone is changed.
"""

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
IMAGES = ROOT / "docs" / "images"
REPORT = ROOT / "outputs" / "published" / "reports" / "laptop" / "index.html"
SIZE = {"width": 1200, "height": 900}
TALL = {"width": 1200, "height": 2400}  # JupyterLab leaves out what is far outside the window
PATIENCE_MS = 120_000
MOST_BYTES = 250_000
TRAINING = {"epochs": 10, "train_images": 1000, "out": "../run"}  # about a minute on two cores

sys.path.insert(0, str(ROOT / "tests"))
from browser import again, copy_notebook, jupyter_server  # noqa: E402 (where the tests keep them)


def take_index(page: Any, address: str) -> None:
    _open_and_run(page, address, "index")
    page.locator(".jp-OutputArea-output table").nth(3).wait_for()
    page.get_by_text("| Idle").wait_for()
    _show(page, ".jp-Notebook h1", "start", height=1620)


def take_train(page: Any, address: str) -> None:
    _open_and_run(page, address, "train")
    last = f"epoch {TRAINING['epochs']} of "
    page.wait_for_function(
        "text => document.querySelector('.senet-words')?.innerText.startsWith(text)", arg=last
    )
    _show(page, ".senet-curves", "end")


def take_explore(page: Any, address: str) -> None:
    _open_and_run(page, address, "explore")
    page.locator(".senet-map-1 img").first.wait_for()
    page.get_by_text("Most similar gates of the first").wait_for()  # once they have been read
    page.wait_for_timeout(1000)
    _show(page, ".senet-app", "start", height=1450)


def take_report(page: Any, address: str) -> None:
    page.goto(REPORT.as_uri())
    _show(page, "body", "start")


PICTURES: dict[str, Callable[[Any, str], None]] = {
    "index": take_index, "train": take_train, "explore": take_explore, "report": take_report,
}  # fmt: skip


def _show(page: Any, what: str, where: str, height: int = SIZE["height"]) -> None:
    """Bring the window to the picture's size with an element at its start, center or end."""
    page.set_viewport_size({**SIZE, "height": height})
    page.wait_for_timeout(300)
    page.locator(what).first.evaluate("(e, block) => e.scrollIntoView({block})", where)
    page.wait_for_timeout(500)


def _open_and_run(page: Any, address: str, name: str) -> None:
    """Open a notebook without the list of files, and run all its cells."""
    page.goto(f"{address}/lab/workspaces/{name}/tree/notebooks/{name}.ipynb")
    page.get_by_text("| Idle").wait_for()  # before, nothing would be run
    if name != "index":
        page.locator(".jp-SideBar [data-id='filebrowser']").click()
    again(page)


def _copy_of_the_clone(folder: Path) -> None:
    """What the notebooks look for in a clone, with notebooks that may be changed."""
    for name in ("Snakefile", "senet_lib", "configs", "docs", "outputs"):
        (folder / name).symlink_to(ROOT / name)
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        parameters = TRAINING if path.stem == "train" else {}
        copy_notebook(path.stem, folder / "notebooks", **parameters)


def _save(page: Any, name: str) -> None:
    """The picture with a palette, in which it is a third as large."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    path = IMAGES / f"{name}.png"
    page.screenshot(path=path)
    with Image.open(path) as picture:
        rare = Image.Quantize.MAXCOVERAGE  # keeps colours of few pixels, such as a point's; the
        exact = {"kmeans": 1, "dither": Image.Dither.NONE}  # grey of a large plane stays what it is
        small = picture.convert("RGB").quantize(256, rare, **exact)
    small.save(path, optimize=True)
    size = path.stat().st_size
    print(f"{path.relative_to(ROOT)}: {size / 1000:.0f} kB")
    if size > MOST_BYTES:
        raise SystemExit(f"{path} is above {MOST_BYTES / 1000:.0f} kB; make the window smaller")


def main() -> None:
    """Take the pictures asked for; what cannot be taken is said."""
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", choices=[[], *PICTURES], metavar="NAME")
    names = parser.parse_args().names or list(PICTURES)
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if not chromium:
        raise SystemExit("Chromium is not installed; on Debian: apt-get install chromium")
    os.environ.pop("SENET_PROGRESS", None)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        _copy_of_the_clone(Path(folder))
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        with jupyter_server(Path(folder)) as address:
            for name in names:
                page = browser.new_page(viewport=TALL)
                page.set_default_timeout(PATIENCE_MS)
                source = REPORT if name == "report" else ROOT / "notebooks" / f"{name}.ipynb"
                if source.is_file():
                    PICTURES[name](page, address)
                    _save(page, name)
                else:
                    print(f"no picture of {name}: {source.relative_to(ROOT)} is not there")
                page.close()
        browser.close()


if __name__ == "__main__":
    main()
