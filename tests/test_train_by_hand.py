"""train.ipynb in a real JupyterLab: a bar and curves that move in sight, and an interrupt."""

import os

import pytest
from browser import (
    PATIENCE_MS,
    again,
    chromium,  # noqa: F401 (a fixture)
    copy_notebook,
    jupyter_server,
)

SETTINGS = {
    "model": "resnet20", "epochs": 3, "batch_size": 32, "train_images": 160, "threads": 1,
    "precision": "fp32", "compile": "off", "out": "run",
}  # fmt: skip
# Notes each picture of the curves as it appears, and how often they were taken away between two.
WATCH = """() => {
    window.pictures = []; window.gaps = 0; let shown = false;
    window.watcher?.disconnect();
    window.watcher = new MutationObserver(() => {
        const curves = document.querySelector('.senet-curves');
        if (!curves && shown && document.querySelector('.senet-words')) window.gaps++;
        shown = Boolean(curves);
        const last = window.pictures.at(-1);
        if (curves && curves.outerHTML !== last) window.pictures.push(curves.outerHTML);
    });
    window.watcher.observe(document.body, {childList: true, subtree: true});
}"""


@pytest.fixture
def page(chromium, tmp_path, monkeypatch):  # noqa: F811
    """train.ipynb, with settings for a few seconds, open in a browser."""
    monkeypatch.delenv("SENET_PROGRESS", raising=False)
    copy_notebook("train", tmp_path, **SETTINGS)
    with jupyter_server(tmp_path) as address:
        # Tall enough for all cells: JupyterLab leaves out what is far outside the window.
        page = chromium.new_page(viewport={"width": 1200, "height": 3600})
        page.set_default_timeout(PATIENCE_MS)
        page.goto(f"{address}/lab/tree/train.ipynb")
        page.get_by_text("| Idle").wait_for()  # before, nothing would be run
        yield page
        page.close()


def wait_for_box(page, selector: str, condition: str) -> None:
    """Wait until an element, which is drawn anew all the time, lies as wanted."""
    page.wait_for_function(f"""() => {{
        const box = document.querySelector("{selector}")?.getBoundingClientRect();
        const {{y, width, height}} = box ?? {{}};
        return {condition};
    }}""")


@pytest.mark.browser
@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
def test_the_curves_move_and_an_interrupted_run_goes_on(page, tmp_path):
    errors = page.locator("[data-mime-type='application/vnd.jupyter.stderr'], .jp-mod-error")
    words = page.locator(".senet-words")

    page.evaluate(WATCH)
    again(page)
    page.wait_for_function("document.querySelector('.senet-words')?.innerText.match('epoch 2')")
    page.locator("[role=progressbar][aria-label=training]").wait_for()
    wait_for_box(page, ".senet-bar", "100 < width")  # a third of 824 pixels
    page.wait_for_function("window.pictures.length >= 2")  # without an epoch, and after one
    wait_for_box(page, ".senet-curves", "500 < width")
    page.get_by_role("button", name="Interrupt the kernel").click()
    page.get_by_text("Interrupted in epoch ").wait_for()
    assert words.inner_text().startswith("stopped in epoch ")
    (line,) = errors.all_inner_texts()
    assert len(line.strip().splitlines()) == 1
    assert (tmp_path / "run" / "checkpoint.pt").is_file()
    assert page.locator("img[alt]:not(.senet-curves)").count() == 0  # the cells below were not run

    page.set_viewport_size({"width": 1200, "height": 900})
    page.evaluate(WATCH)
    again(page)
    page.get_by_text("; going on in epoch ").wait_for()
    page.get_by_text("is wrong on").wait_for()  # the answer, in the last cell
    words.filter(has_text="3 epochs in ").wait_for()  # drawn when the browser has the time
    wait_for_box(
        page, ".senet-curves", "100 < y && height > 0 && y + height < 850"
    )  # of a notebook much longer
    pictures = page.evaluate("window.pictures")
    assert "after epoch 3 of 3" in pictures[-1]
    assert not any("No epoch" in picture for picture in pictures[1:])
    assert page.evaluate("window.gaps") == 0
    assert errors.count() == 0
    history = (tmp_path / "run" / "history.csv").read_text(encoding="utf-8").splitlines()
    assert [row.split(",")[0] for row in history[1:]] == ["1", "2", "3"]
