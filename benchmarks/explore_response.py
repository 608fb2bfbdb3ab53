"""How long the explorer takes to answer, measured in a real browser.

Serves a copy of notebooks/explore.ipynb (by JupyterLab, or with --app by voila), opens it in
headless Chromium, changes image, class, method and network in turn, and takes the time from the
change to the new picture on the screen. Wants Chromium, playwright, and runs of both networks with
their data:

    python benchmarks/explore_response.py --study "laptop (published)" --model se_res2net29
"""

import argparse
import math
import os
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from browser import copy_notebook, jupyter_server, run_all, voila_server  # noqa: E402

WATCHED, PATIENCE_SECONDS = ".senet-map-1", 20
SETTLE_MS = 1200
# Gives the time when a picture under the selector is another one and has been painted; null when
# none came.
ANSWERED = """
([where, before, patience]) => new Promise(done => {
  const end = performance.now() + 1000 * patience;
  const look = () => {
    const shown = [...document.querySelectorAll(where + " img")].map(i => i.src).join();
    if (shown && shown !== before) requestAnimationFrame(() => done(performance.now()));
    else if (performance.now() > end) done(null);
    else requestAnimationFrame(look);
  };
  look();
})
"""
# Notes when the page last changed.
OBSERVED = """
() => new MutationObserver(() => { window.lastChange = performance.now(); }).observe(
  document.querySelector(".senet-app"),
  {subtree: true, childList: true, attributes: true, characterData: true})
"""
PICTURES = """where => [...document.querySelectorAll(where + " img")].map(i => i.src).join()"""


KINDS = ("image", "method", "class", "network")
# At the last layer HiResCAM is Grad-CAM, so it would show no other picture.
METHODS = ("Grad-CAM", "LayerCAM", "Eigen-CAM")


def change(page, turn: int, networks: tuple[str, str]) -> str:
    """Make one change, of each kind by turns; returns its kind."""
    kind = KINDS[turn % len(KINDS)]
    if kind == "image":
        _type(page, 11 + 7 * turn)
    elif kind == "method":
        _next(page, "CAM method", METHODS)
    elif kind == "class":
        _next(page, "True class", ())
    else:
        _next(page, "Network 1", networks)
    return kind


def _next(page, label: str, names: tuple[str, ...]) -> None:
    """Choose the next of these names, or of all options but the first, as fast as a script can."""
    page.get_by_label(label, exact=True).evaluate(
        """(list, names) => {
          const texts = [...list.options].map(o => o.text);
          const named = texts.filter(t => names.some(n => t === n || t.startsWith(n + ", ")));
          const among = named.length ? named : texts.slice(1);
          const next = among[(among.indexOf(texts[list.selectedIndex]) + 1) % among.length];
          list.selectedIndex = texts.indexOf(next);
          list.dispatchEvent(new Event("change", {bubbles: true}));
        }""",
        names,
    )


def _type(page, number: int) -> None:
    page.get_by_label("Image number", exact=True).evaluate(
        """(field, number) => {
          field.value = number;
          field.dispatchEvent(new Event("input", {bubbles: true}));
          field.dispatchEvent(new Event("change", {bubbles: true}));
        }""",
        number,
    )


def measure(
    page, count: int, networks: tuple[str, str], first: int
) -> list[tuple[str, float, float]]:
    """What was changed, and milliseconds to the new picture and to the last change of the page."""
    taken = []
    for turn in range(first, first + count):
        before = page.evaluate(PICTURES, WATCHED)
        start = page.evaluate("performance.now()")
        kind = change(page, turn, networks)
        end = page.evaluate(ANSWERED, [WATCHED, before, PATIENCE_SECONDS])
        if end is None:
            raise SystemExit(f"{kind}: no other picture within {PATIENCE_SECONDS} s")
        page.wait_for_timeout(SETTLE_MS)  # the rest of the page follows
        taken.append((kind, end - start, page.evaluate("window.lastChange") - start))
    return taken


def report(taken: list[tuple[str, float, float]]) -> None:
    """Print median, 90th percentile and maximum, over all and by what was changed."""
    for column, title in ((1, "to the new picture"), (2, "until nothing on the page changes")):
        print(f"{title}, milliseconds over {len(taken)} changes:")
        for kind in ("all", *KINDS):
            times = sorted(row[column] for row in taken if kind in ("all", row[0]))
            if not times:
                continue
            ninetieth = times[math.ceil(0.9 * len(times)) - 1]
            print(
                f"  {kind:8} n {len(times):3}   median {median(times):5.0f}   "
                f"90th percentile {ninetieth:5.0f}   maximum {times[-1]:5.0f}"
            )


def main() -> None:
    """Serve, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--study", default="laptop (published)")
    parser.add_argument("--model", default="se_res2net29")
    parser.add_argument("--plain", default="res2net29", help="the network beside it")
    parser.add_argument("--changes", type=int, default=30)
    parser.add_argument("--app", action="store_true", help="measure the app instead of JupyterLab")
    options = parser.parse_args()
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        notebook = copy_notebook(
            "explore",
            Path(folder),
            study=options.study,
            models=[options.model, options.plain],
            runs_root=str(ROOT / "outputs" / "runs"),
            published_root=str(ROOT / "outputs" / "published" / "runs"),
        )
        path = os.environ.get("CHROMIUM", "/usr/bin/chromium")
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 1000})
        page.set_default_timeout(180_000)
        serve = voila_server(notebook) if options.app else jupyter_server(Path(folder))
        with serve as address:
            begun = time.monotonic()
            if options.app:
                page.goto(address)
            else:
                run_all(page, address, notebook.name)
            page.wait_for_selector(".senet-map-1 img")
            print(f"first picture {time.monotonic() - begun:.1f} s after the page was asked for")
            page.get_by_text("Most similar gates of the first").wait_for()  # all gates are read
            page.evaluate(OBSERVED)
            networks = (options.model, options.plain)
            measure(page, 8, networks, 0)  # the first of a kind takes longer
            page.wait_for_timeout(3000)
            report(measure(page, options.changes, networks, 8))
        browser.close()


if __name__ == "__main__":
    main()
