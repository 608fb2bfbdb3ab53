"""In a real browser: the explorer in JupyterLab and as an app, and what else JupyterLab shows."""

import io
import json
import re
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
from browser import (
    PATIENCE_MS,
    again,
    chromium,  # noqa: F401 (a fixture)
    copy_notebook,
    jupyter_server,
    run_all,
    violations,
    voila_server,
)
from fake_runs import make_run

from senet_lib import lab, load_run
from senet_lib.report.page import write_page

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny):
    """A folder with the notebook, over the runs of a tiny study."""
    folder = tmp_path_factory.mktemp("lab")
    roots = {"runs_root": str(tiny), "published_root": str(folder / "none")}
    copy_notebook("explore", folder, **roots, num_images=40)
    return folder


@pytest.fixture
def page(chromium):  # noqa: F811
    page = chromium.new_page(viewport={"width": 1000, "height": 900})
    page.set_default_timeout(PATIENCE_MS)
    yield page
    page.close()


def source(page, where: str) -> str:
    """The bytes of a picture, as the data URI it is shown by."""
    found = page.locator(f"{where} img").first.get_attribute("src")
    assert found.startswith("data:image/png;base64,")
    return found


def changed(page, where: str, before: str) -> str:
    """The bytes of a picture once they are others than before."""
    page.wait_for_function(
        "([where, before]) => document.querySelector(where + ' img')?.src !== before",
        arg=[where, before],
    )
    return source(page, where)


def change_network_and_image(page) -> None:
    """Use the widgets, and see that the pictures follow."""
    image, first_map = source(page, ".senet-picture"), source(page, ".senet-map-1")
    page.get_by_label("Network 1").select_option("resnet20, seed 0")
    of_plain = changed(page, ".senet-map-1", first_map)
    assert source(page, ".senet-picture") == image
    page.locator(".senet-app button[title^='test image']").nth(2).click()
    changed(page, ".senet-picture", image)
    changed(page, ".senet-map-1", of_plain)
    page.get_by_label("CAM method").select_option("HiResCAM")
    page.get_by_label("Network 1").select_option("se_resnet20, seed 0")
    page.wait_for_selector(".senet-gates img")
    page.locator(".senet-status").get_by_text("se_resnet20, seed").wait_for()


def test_the_explorer_in_jupyterlab(folder, page):
    with jupyter_server(folder) as address:
        run_all(page, address, "explore.ipynb")
        page.wait_for_selector(".senet-map-1 img")
        change_network_and_image(page)


def test_the_explorer_as_an_app(folder, page):
    with voila_server(folder / "explore.ipynb") as address:
        page.goto(address)
        page.wait_for_selector(".senet-map-1 img")
        assert "explore.open" not in page.content()
        change_network_and_image(page)
        page.locator(".senet-near").get_by_text("Most similar gates").wait_for()
        fits_and_is_accessible(page)
        keyboard_opens_a_cell(page)
        own_pictures(page, folder)


def fits_and_is_accessible(page) -> None:
    """No sideways scrolling at 1000 pixels, every image described, nothing serious for axe."""
    assert page.evaluate("document.documentElement.scrollWidth") <= 1000
    assert page.evaluate("[...document.images].every(i => i.alt.length > 10)")
    assert violations(page) == []


def keyboard_opens_a_cell(page) -> None:
    """An arrow key on the list of confusions shows the images of the commonest one."""
    page.get_by_label("Confusion").focus()
    page.keyboard.press("ArrowDown")
    count = page.get_by_label("Confusion").locator("option").nth(1).inner_text().split()[-1]
    page.locator(".senet-pool strong").get_by_text(re.compile(f"^{count} image")).wait_for()


def own_pictures(page, folder) -> None:
    """One is shown with what was done to it; a broken one gives a line."""
    from PIL import Image

    noise = np.random.default_rng(0).integers(0, 256, (1900, 1920, 3), np.uint8)  # 11 MB
    Image.fromarray(noise).save(folder / "mine.png")
    (folder / "broken.png").write_bytes(b"nothing")
    image, status = source(page, ".senet-picture"), page.locator(".senet-status").first
    broken = " is not a readable image"
    for name, says in (("mine.png", ": 1920x1900 pixels"), ("broken.png", broken)):
        with page.expect_file_chooser() as chooser:
            page.get_by_role("button", name="Your own picture").click()
        chooser.value.set_files(folder / name)
        status.get_by_text(name + says).wait_for()
        changed(page, ".senet-picture", image)


def test_a_reports_links_work(page, tmp_path):
    """To pages, although a frame names no referer, and to notebooks; others are still refused."""
    reports, runs = tmp_path / "reports", tmp_path / "runs"
    reports.mkdir()
    copy_notebook("index", runs)
    links = "[costs](costs.html) [run](../runs/index.ipynb)"
    texts = {"index": f"# Report\n\n{links}", "costs": "# What it costs\n\n[back](index.html)"}
    for name, text in texts.items():
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(text)])
        nbformat.write(notebook, tmp_path / f"{name}.ipynb")
        write_page(tmp_path / f"{name}.ipynb", reports / f"{name}.html", reports)
    with jupyter_server(tmp_path, token="secret") as address:
        page.goto(f"{address}/lab/tree/reports/index.html?token=secret")
        frame = page.frame_locator("iframe.jp-zoom-target")
        frame.get_by_role("link", name="costs").click()
        frame.get_by_role("link", name="back").click()  # from what the server gave
        frame.get_by_role("heading", name="Report").wait_for()
        page.goto(f"{address}/files/reports/index.html")  # as a page of its own
        for name in ("costs", "back", "run in JupyterLab"):
            page.get_by_role("link", name=name).click()
        page.get_by_role("heading", name="What can be asked").first.wait_for()
        assert page.url == f"{address}/lab/tree/runs/index.ipynb"
        page.goto(f"{address}/lab/tree/reports/index.html")
        page.get_by_text("Trust HTML").click()
        with page.expect_popup() as opened:
            frame.get_by_role("link", name="run in JupyterLab").click()
        opened.value.get_by_role("heading", name="What can be asked").first.wait_for()
        cookie = "; ".join(f"{c['name']}={c['value']}" for c in page.context.cookies())
        included = {"Cookie": cookie, "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "script"}
        file = urllib.request.Request(f"{address}/files/reports/index.html", headers=included)
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(file)


def test_a_training_by_the_form_writes_the_parameters_cell(page, tmp_path, tiny, monkeypatch):
    """What is chosen stands there, is trained when all cells are run again, and is all git sees
    of it, although the notebook keeps its outputs."""
    monkeypatch.delenv("SENET_PROGRESS", raising=False)
    machine = {"threads": 1, "precision": "fp32", "compile": "off", "batch_size": 16}
    data = str(tiny.parent / "tiny.npz")
    notebook = copy_notebook("train", tmp_path, data=data, epochs=1, **machine)
    notebook.write_text(lab.written(notebook.read_text(encoding="utf-8")), encoding="utf-8")
    (tmp_path / ".gitattributes").write_text("*.ipynb filter=notebook\n")
    monkeypatch.chdir(tmp_path)
    git("init")
    lab.keep_outputs_out_of_git()
    git("add", ".gitattributes", "train.ipynb")
    git("-c", "user.name=x", "-c", "user.email=x@y", "commit", "-m", "x")
    page.set_viewport_size({"width": 1200, "height": 4000})  # what is far outside is left out
    with jupyter_server(tmp_path) as address:
        run_all(page, address, "train.ipynb")
        page.get_by_text("After 1 epoch").wait_for()
        save(page)
        assert git("status", "--porcelain", "train.ipynb") == ""
        choose(page, "lr", "fast")
        page.locator(".senet-form-says").filter(has_text="must be a number").wait_for()
        folder = """it's "two" # \\ [2]"""
        for name, value in (("schedule", "[1, 2]"), ("epochs", "2"), ("out", "a"), ("out", folder)):
            choose(page, name, value)
        page.get_by_label("nesterov").check()
        written = page.locator(".jp-Cell", has_text="label_smoothing = 0.0").first
        written.get_by_text("nesterov = True").wait_for()
        again(page)
        page.get_by_text("After 2 epochs").wait_for()
        assert page.get_by_label("epochs", exact=True).input_value() == "2"
        save(page)
        assert "After 2 epochs" in notebook.read_text(encoding="utf-8")
    assert load_run(folder).recipe["epochs"] == 2
    changed = re.findall(r'^\+    "(.*?)(?:\\n)?",?$', git("diff", "-U0"), re.MULTILINE)
    assert [json.loads(f'"{line}"') for line in changed] == [
        f"out = {json.dumps(folder)}  # the run's folder; empty: "
        "outputs/runs/<study>/<model>/seed<seed>",
        "epochs = 2  # passes over the training images",
        "schedule = [1, 2]  # step: epochs at which the rate falls",
        "nesterov = True  # Nesterov's form of the momentum",
        "epochs = 2",  # where copy_notebook sets it again
    ]


def choose(page, name: str, value: str) -> None:
    """Fill a field of the form."""
    page.get_by_label(name, exact=True).fill(value)
    page.keyboard.press("Tab")


def save(page) -> None:
    page.keyboard.press("Control+s")
    page.wait_for_function("document.querySelector('.jp-mod-dirty') === null")


def git(*words: str) -> str:
    """What git prints."""
    return subprocess.run(["git", *words], check=True, capture_output=True, text=True).stdout


def test_runs_are_compared_and_taken_away_from_the_index(page, tmp_path):
    root = tmp_path / "runs"
    chosen = [make_run(root, "resnet20", 0, 0.5), make_run(root, "se_resnet20", 1, 0.4)]
    make_run(root, "resnet20", 1, 0.3)
    copy_notebook("index", tmp_path, runs_root=str(root))
    page.set_viewport_size({"width": 1200, "height": 4000})
    names = [f"demo, {run.model}, seed {run.seed}, this disk" for run in chosen]
    files = {}
    with jupyter_server(tmp_path) as address:
        run_all(page, address, "index.ipynb")
        page.get_by_label("Runs").select_option(names)
        page.locator(".jp-OutputArea svg, .jp-OutputArea img[alt^=Loss]").first.wait_for()
        for kind in ("csv", "svg", "png"):
            with page.expect_download() as download:
                page.get_by_role("link", name=f"runs.{kind}").click()
            files[kind] = Path(download.value.path()).read_bytes()
    frame = pd.read_csv(io.BytesIO(files["csv"]), index_col=0)
    assert frame.loc["error %"].to_dict() == dict(zip(names, ("50.00", "40.00"), strict=True))
    assert frame.loc["parameters"].tolist() == [f"{run.num_params:,}" for run in chosen]
    assert "epochs" not in frame.index  # the same in both
    assert files["svg"].startswith(b"<?xml")
    assert files["png"].startswith(b"\x89PNG")
