"""Pages as people meet them: on a phone, by night, by keyboard, on paper, and without a script."""

import base64
import csv
import hashlib
import io
import json
import re
import shutil
from dataclasses import replace
from html import unescape
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import nbformat
import numpy as np
import pandas as pd
import pytest
import torch
from browser import chromium, violations  # noqa: F401 (one is a fixture)
from matplotlib.figure import Figure

from senet_lib.analysis.cam import CamMaps
from senet_lib.models import create_model
from senet_lib.report.gallery import write_gallery
from senet_lib.report.looking import Looking, choose_images
from senet_lib.report.page import frame, render, write_page
from senet_lib.report.publish import _slim_page
from senet_lib.report.table import folded, table

PHONE, DESKTOP = {"width": 360, "height": 800}, {"width": 1280, "height": 900}
PAPER = {"width": 718, "height": 1000}  # CSS pixels between the margins of an A4 page
PUBLISHED_RUNS = Path(__file__).parent.parent / "outputs" / "published" / "runs"
REMARK = "one two three four five six seven eight nine ten " * 4 + "the end"


def notebook_of(folder: Path, *cells: Any, **metadata: Any) -> Path:
    """An executed notebook: text is a Markdown cell, None a cell without output, anything else the
    output of a cell."""
    content = nbformat.v4.new_notebook(metadata={"senet": {"show_code": False}, **metadata})
    for cell in cells:
        if isinstance(cell, str):
            content.cells.append(nbformat.v4.new_markdown_cell(cell))
        elif cell is None:
            content.cells.append(nbformat.v4.new_code_cell("silent = True"))
        else:
            data = cell if isinstance(cell, dict) else {"text/html": cell._repr_html_()}
            shown = nbformat.v4.new_output("display_data", data)
            content.cells.append(nbformat.v4.new_code_cell("", outputs=[shown]))
    nbformat.write(content, folder / "page.ipynb")
    return folder / "page.ipynb"


def test_code_is_coloured_and_what_has_no_colour_is_plain(tmp_path) -> None:
    notebook = nbformat.v4.new_notebook(metadata={"senet": {"show_code": True}})
    notebook.cells.append(nbformat.v4.new_code_cell("for i in [x]:\n    y = 'z' + i"))
    nbformat.write(notebook, tmp_path / "page.ipynb")
    page = render(tmp_path / "page.ipynb")
    assert '<span class="k">for</span> i <span class="ow">in</span> [x]:' in page


NUMBERS = ["12 %", "1,234", "n/a", "−3", "–", "0.5", "45.60 M", "< 0.001", "+7", "1.5e-4"]
ASCENDING = ["−3", "1.5e-4", "< 0.001", "0.5", "+7", "12 %", "1,234", "45.60 M", "n/a", "–"]
DESCENDING = ["45.60 M", "1,234", "12 %", "+7", "0.5", "< 0.001", "1.5e-4", "−3", "n/a", "–"]
NAMES = ["net10", "Net9", "net100", "art", "zoo", "net2", "", "net1", "b", "a"]
BY_NAME = ["a", "art", "b", "net1", "net2", "Net9", "net10", "net100", "zoo", ""]


def sortable() -> Any:
    """Ten rows; the groups are tied five by five."""
    rows = {"name": NAMES, "value": NUMBERS, "group": ["2", "1"] * 5}
    return table(pd.DataFrame(rows).set_index("name"), "To be sorted")


def long_table() -> Any:
    """Thirty rows: ten right, twenty wrong; every third has a long remark."""
    rows = {
        "claim": [f"claim-{i}" for i in range(30)],
        "n": range(30),
        "verdict": ["right"] * 10 + ["wrong"] * 20,
        "remark": [folded(REMARK if i % 3 == 0 else "short") for i in range(30)],
        "to make it": [folded(f"senet train --model net{i} --seed 0", "how") for i in range(30)],
    }
    caption = "Thirty claims: with a caption that is long enough to need two lines on a phone"
    return table(pd.DataFrame(rows).set_index("claim"), caption)


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """A page of two tables, with a section that is read long and three that are short."""
    folder = tmp_path_factory.mktemp("tables")
    text = "\n\n".join(["A paragraph that is there to be scrolled past."] * 30)
    source = notebook_of(
        folder, f"# Tables\n\n{text}", f"## First\n\n{text}", sortable(), "### A part",
        long_table(), f"## Second\n\n{text}", "## Third\n\nShort.", "## Fourth\n\nShort.",
    )  # fmt: skip
    write_page(source, folder / "page.html")
    return folder / "page.html"


@pytest.fixture(scope="module")
def run_page(tmp_path_factory):
    """The page of one published run: code, what was printed, and pictures."""
    trained = min(PUBLISHED_RUNS.glob("*/*/seed0/train.ipynb"), default=None)
    if trained is None:
        pytest.skip("no run is published here")
    page = tmp_path_factory.mktemp("run") / "train.html"
    write_page(trained, page)
    return page


@pytest.fixture(scope="module")
def gallery(shapes, tmp_path_factory):
    """Maps of a network that was never trained."""
    few = replace(shapes, x_test=shapes.x_test[:40], y_test=shapes.y_test[:40])
    torch.manual_seed(0)
    model = create_model("resnet20", num_classes=shapes.num_classes).eval()
    about = {"name": "resnet20", "mean": few.mean, "std": few.std}
    return write_gallery(model, few, tmp_path_factory.mktemp("gallery"), **about, per_class=1)


@pytest.fixture
def visit(chromium):  # noqa: F811
    """Open a page; what it complained of and asked for is kept in `page.said` and `page.asked`."""
    pages = []

    def visit(path, viewport=DESKTOP, **options):
        page = chromium.new_page(viewport=viewport, **options)
        pages.append(page)
        page.said, page.asked = [], []
        page.on("console", lambda message: page.said.append(message.text))
        page.on("pageerror", lambda error: page.said.append(str(error)))
        page.on("request", lambda request: page.asked.append(request.url))
        page.goto(path.as_uri())
        return page

    yield visit
    for page in pages:
        page.close()


def test_a_page_allows_its_own_script_and_nothing_else(tables):
    text = tables.read_text(encoding="utf-8")
    scripts = re.findall(r"<script[^>]*>(.*?)</script>", text, re.DOTALL)
    assert len(scripts) == 1
    digest = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)[1]
    assert f"script-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert "<noscript>" in text
    bare = frame("a < b", "<p>text</p>")
    assert "<noscript>" not in bare
    assert "script-src 'none'" in bare
    assert "<title>a &lt; b</title>" in bare
    assert not re.search(r"<script|<nav|class=\"skip\"", bare)


def test_the_page_of_a_run_names_network_and_seed(tmp_path):
    given = {"parameters": {"model": "se_res2net29_last", "seed": 3}}
    text = render(notebook_of(tmp_path, "# How well?", papermill=given))
    assert "<title>se_res2net29_last, seed 3: How well?</title>" in text
    assert "<h1>se_res2net29_last, seed 3: How well?</h1>" in text


def test_sections_of_the_same_name_are_linked_apart(tmp_path):
    cells = ["# T", "## Limits\n\n### Costs", "## Content", "## Limits", "### Costs", "### `x` & y"]
    text = render(notebook_of(tmp_path, *cells))
    ids = re.findall(r'<h[23] id="([^"]*)">', text)
    assert ids == ["limits", "costs", "content-2", "limits-2", "costs-2", "x-y"]
    assert len(set(re.findall(r'\bid="([^"]*)"', text))) == len(re.findall(r'\bid="', text))
    contents = re.search(r"<nav.*?</nav>", text, re.DOTALL)[0]
    assert re.findall(r'href="#([^"]*)"', contents) == ids
    assert "<nav" not in render(notebook_of(tmp_path, "# T", "## One", "## Two"))


def test_sections_whose_code_shows_nothing_are_left_out_and_the_answer_is_first(tmp_path):
    cells = "# Title", None, "## Words\n\nNo code.", "## Silent\n\nHidden.", None, "hidden too"
    cells += "### Silent part", None, "## Half", None, "### Full", sortable(), "### Hollow", None
    cells += "## Answers\n\nTwo.", "## Answer\n\nYes.", sortable(), "## End", None, sortable()
    shown = render(notebook_of(tmp_path, *cells))
    heads = re.findall("<h[23].*?>(.*?)</h", shown)
    assert heads == ["Answer", "Words", "Half", "Full", "Answers", "End"]
    assert shown.count("silent <span") == 6  # the code of what is left out too
    assert "idden" not in shown.partition("<main")[2]


def test_where_code_is_shown_parameters_are_folded_and_the_source_is_said_once(tmp_path):
    given = {"parameters": {"seed": 3}, "input_path": "train.ipynb"}
    content = nbformat.read(notebook_of(tmp_path, "# T", papermill=given), as_version=4)
    content.metadata["senet"]["show_code"] = True
    tags = ["parameters"], ["injected-parameters"], [], ["remove_cell"]
    for tag in tags:
        cell = nbformat.v4.new_code_cell(f"x = '{' '.join(tag)}'", metadata={"tags": tag})
        content.cells.append(cell)
    nbformat.write(content, tmp_path / "page.ipynb")
    text = render(tmp_path / "page.ipynb")
    folds = re.findall(r'<details class="input"( open.*?)?><summary>(.*?)</summary>', text)
    assert [bool(is_open) for is_open, _ in folds] == [False, False, True]
    assert folds[2][1] == "Code"
    assert text.count('<p class="made">') == text.count("-p seed=3") == 1
    assert "remove_cell" not in text


def test_equations_are_set_without_a_script_and_code_is_left_alone(tmp_path):
    prose = "It costs $2C^2/r$, as `$SENET_DATA` and `$OUT` do not: $$a < b$$ and 3 $ more."
    page = render(notebook_of(tmp_path, prose, "| a | b |\n|---|---|\n| 1 | 2 |"))
    inline, block = re.findall(r"<math\b.*?</math>", page)
    assert "<msup><mi>C</mi><mn>2</mn></msup>" in inline
    assert 'display="block"' in block
    assert "<mo>&lt;</mo>" in block
    prose = page[page.index("<main") :]
    assert prose.count("$") == 3
    assert re.search(r'<div [^>]*class="table"[^>]*>\s*<table', page)  # it scrolls by itself
    fenced = "```sh\nexport PATH=$HOME/bin:$PATH\n```"
    for kept in (fenced, "A slip, $x_$, and $$\\left( x$$ stay as they are."):
        page = render(notebook_of(tmp_path, kept))
        assert "<math" not in page
        assert page[page.index("<main") :].count("$") == kept.count("$")


@pytest.mark.browser
@pytest.mark.parametrize(
    "name", [pytest.param("report", marks=pytest.mark.slow), "tables", "run_page", "gallery"]
)
def test_a_page_fits_the_window_is_whole_by_itself_and_accessible(name, request, visit):
    path = request.getfixturevalue(name)
    for viewport in (PHONE, DESKTOP):
        page = visit(path, viewport)
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
            paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
            assert (paper == "rgb(255, 255, 255)") == (scheme == "light")
            assert violations(page) == []
        assert page.said == []
        assert [url for url in page.asked if not url.startswith("data:")] == [path.as_uri()]
        assert page.evaluate("[...document.images].every(i => i.naturalWidth > 50 && i.alt)")
        drawings = "[...document.querySelectorAll('.picture > svg')]"
        assert page.evaluate(f"{drawings}.every(d => d.clientWidth > 50 && d.ariaLabel)")
    headings = "[...document.querySelectorAll('h1, h2, h3, h4')].map(h => +h.tagName[1])"
    levels = page.evaluate(headings)
    assert (levels[0], levels.count(1)) == (1, 1)
    assert all(b - a <= 1 for a, b in pairwise(levels))


@pytest.mark.browser
def test_small_drawings_fit_a_phone_and_wide_ones_scroll(tmp_path, visit):
    files = io.StringIO(), io.StringIO()
    for inches, file in zip((5, 8.6), files, strict=True):
        Figure(figsize=(inches, 2)).savefig(file, format="svg")
    drawings = [{"image/svg+xml": file.getvalue()} for file in files]
    write_page(notebook_of(tmp_path, "# Drawings", *drawings), tmp_path / "n.html")
    page = visit(tmp_path / "n.html", PHONE)
    found = "[...document.querySelectorAll('.picture')].map(b => b.scrollWidth > b.clientWidth)"
    assert page.evaluate(found) == [False, True]
    shadow = "getComputedStyle(document.querySelector('.picture')).backgroundImage"
    assert "gradient" in page.evaluate(shadow)


@pytest.mark.browser
def test_nothing_a_page_holds_can_load_or_run(tmp_path, visit):
    there = "http://127.0.0.1:9"
    html = (
        f'<img src="{there}/image.png" alt="x" onerror="window.ran = 1"><script>window.ran = 2'
        f'</script><script src="{there}/x.js"></script><link rel="stylesheet" href="{there}/a">'
    )
    write_page(notebook_of(tmp_path, "# T", {"text/html": html}), tmp_path / "x.html")
    page = visit(tmp_path / "x.html")
    page.wait_for_timeout(300)
    assert "image.png" in page.content()
    assert page.evaluate("window.ran") is None
    refused = [said for said in page.said if "Content Security Policy" in said]
    for name in ("image.png", "x.js", "a"):
        assert any(f"{there}/{name}" in said for said in refused)


# The contents list

CURRENT = "[...document.querySelectorAll('nav [aria-current]')].map(a => a.textContent)"


def eventually(page, expression, expected):
    """Wait up to ten seconds; `wait_for_function` would need what the page's policy forbids."""
    for _ in range(200):
        if page.evaluate(expression) == expected:
            return
        page.wait_for_timeout(50)
    assert page.evaluate(expression) == expected


def expect_current(page, *names):
    eventually(page, CURRENT, list(names))


@pytest.mark.browser
def test_the_contents_mark_what_is_being_read(tables, visit):
    page = visit(tables)
    expect_current(page)
    for name in ("second", "a-part", "first"):
        page.evaluate("name => document.getElementById(name).scrollIntoView()", name)
        expect_current(page, name.replace("-", " ").capitalize())
        assert page.locator("nav").bounding_box()["y"] == 0
    page.evaluate("scrollTo(0, document.body.scrollHeight)")
    expect_current(page, "Fourth")
    # The third section is too short to get to the top; who chose it is told so all the same.
    page.get_by_role("link", name="Third").click()
    expect_current(page, "Third")
    page.mouse.wheel(0, -10_000)
    expect_current(page)
    # The skip link comes first and leads past the contents.
    page = visit(tables)
    page.keyboard.press("Tab")
    assert page.locator(".skip").bounding_box()["y"] >= 0
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert page.evaluate("!!document.activeElement.closest('main')")


@pytest.mark.browser
def test_on_a_phone_the_contents_unfold_and_fold(tables, visit):
    page = visit(tables, PHONE)
    button, link = page.locator("nav summary"), page.locator("nav a").nth(2)
    assert not link.is_visible()
    button.click()
    assert link.is_visible()
    page.keyboard.press("Escape")
    assert not link.is_visible()
    page.keyboard.press("Enter")  # the button has the focus again
    link.click()
    assert not link.is_visible()
    expect_current(page, "Second")
    top, bar = page.locator("#second").bounding_box()["y"], button.bounding_box()
    assert bar["y"] == 0
    assert bar["height"] <= top < 2 * bar["height"]


@pytest.mark.browser
def test_without_a_script_the_page_is_whole(tables, visit):
    page = visit(tables, PHONE, java_script_enabled=False)
    assert page.locator("nav a").count() == 5
    assert all(link.is_visible() for link in page.locator("nav a").all())
    assert page.locator("tbody tr").count() == 40
    assert page.locator(".table[tabindex='0']").count() == 2


def column(page, number, caption="To be sorted"):
    rows = page.get_by_role("table", name=caption).locator("tbody tr:visible")
    return [row.locator("th, td").nth(number).text_content() for row in rows.all()]


@pytest.mark.browser
def test_a_column_sorts_up_then_down_then_not(tables, visit):
    page = visit(tables)
    table = page.get_by_role("table", name="To be sorted")
    head = table.get_by_role("columnheader", name="value")
    for press, direction, expected in (
        ("Enter", "ascending", ASCENDING), ("Space", "descending", DESCENDING),
        ("Enter", None, NUMBERS), ("Space", "ascending", ASCENDING),
    ):  # fmt: skip
        head.get_by_role("button").press(press)
        assert head.get_attribute("aria-sort") == direction
        assert column(page, 1) == expected
    table.get_by_role("button", name="name").click()
    assert head.get_attribute("aria-sort") is None
    assert column(page, 0) == BY_NAME
    table.get_by_role("button", name="group").click()
    assert column(page, 0) == NAMES[1::2] + NAMES[::2]  # ties as they were written


@pytest.mark.browser
def test_a_long_table_is_filtered_by_words_and_by_a_choice(tables, visit):
    page = visit(tables)
    filters = page.get_by_role("group", name="Filter of: Thirty claims")
    assert page.locator(".filter").count() == 1  # the short table needs none
    choice = filters.get_by_label("verdict")
    said = filters.get_by_role("status")
    assert choice.locator("option").all_text_contents() == ["any", "right", "wrong"]
    assert said.text_content() == "30 rows"
    choice.select_option("right")
    assert column(page, 0, "Thirty claims") == [f"claim-{i}" for i in range(10)]
    assert said.text_content() == "10 of 30 rows"
    filters.get_by_label("Filter").fill("CLAIM-7")
    assert column(page, 0, "Thirty claims") == ["claim-7"]
    choice.select_option("any")
    filters.get_by_label("Filter").fill("the end net12")  # in the folded part, and in a command
    assert column(page, 0, "Thirty claims") == ["claim-12"]


@pytest.mark.browser
def test_a_long_tables_head_stays_in_sight_and_it_takes_the_focus_where_it_scrolls(tables, visit):
    page = visit(tables)
    page.get_by_role("row", name="claim-25").scroll_into_view_if_needed()
    head = page.get_by_role("table", name="Thirty claims").get_by_role("columnheader").first
    assert 0 <= head.bounding_box()["y"] < 10
    assert page.locator(".table[tabindex]").count() == 0
    page.set_viewport_size(PHONE)
    eventually(page, "document.querySelectorAll('.table[tabindex]').length", 1)
    page.get_by_role("region", name="Thirty claims").focus()
    page.keyboard.press("ArrowRight")
    eventually(page, "document.querySelector('.long').scrollLeft > 0", True)
    box = page.locator(".long")
    box.evaluate("b => { b.scrollTop = 900; b.scrollLeft = 200; }")
    assert head.bounding_box()["y"] == pytest.approx(box.bounding_box()["y"], abs=1)
    first = page.get_by_role("rowheader").last
    assert first.bounding_box()["x"] == pytest.approx(box.bounding_box()["x"], abs=1)


@pytest.mark.browser
def test_of_a_head_of_two_rows_both_stay_in_sight(tmp_path, visit):
    index = pd.MultiIndex.from_product([range(3), range(20)], names=["trial", "model"])
    shown = pd.DataFrame({"energy": 0.5}, index).rename_axis("metric", axis=1).style
    write_page(notebook_of(tmp_path, "# T", shown), tmp_path / "t.html")
    page = visit(tmp_path / "t.html")
    page.get_by_role("row").last.scroll_into_view_if_needed()
    first, second = (row.bounding_box() for row in page.locator("thead tr").all())
    assert 0 <= first["y"] < 10
    assert second["y"] == pytest.approx(first["y"] + first["height"], abs=1)


@pytest.mark.browser
@pytest.mark.parametrize("name", ["tables", "report"])
def test_on_paper_there_is_no_navigation_and_nothing_is_cut(name, request, visit):
    page = visit(request.getfixturevalue(name), PAPER, color_scheme="dark")
    shown = """[...document.querySelectorAll('td details')].filter(details =>
        getComputedStyle(details, '::details-content').contentVisibility === 'visible').length"""
    assert page.evaluate(shown) == 0
    page.emulate_media(media="print", color_scheme="dark")
    hidden = page.locator("nav, .skip, .filter label, .words")
    assert hidden.count() > 3
    assert not any(one.is_visible() for one in hidden.all())
    colours = "[getComputedStyle(document.body).color, getComputedStyle(document.body).background]"
    ink, paper = page.evaluate(colours)
    assert ink == "rgb(0, 0, 0)"
    assert paper.startswith("rgb(255, 255, 255)")
    cut = "[...document.querySelectorAll('.table')].some(b => b.scrollHeight > b.clientHeight + 1)"
    assert not page.evaluate(cut)
    widths = page.evaluate("[...document.querySelectorAll('table')].map(t => t.offsetWidth)")
    assert max(widths) <= PAPER["width"]
    # What is folded on a screen is printed.
    assert page.evaluate(shown) == page.locator("td details").count() >= 3


def taken(page, link) -> str:
    with page.expect_download() as download:
        link.click()
    return Path(download.value.path()).read_bytes().decode("utf-8")


@pytest.mark.browser
def test_tables_are_taken_away_as_they_are_shown(tables, visit):
    page = visit(tables)
    filters = page.get_by_role("group", name="Filter of: Thirty claims")
    filters.get_by_label("Filter").fill("claim-3")
    rows = list(csv.reader(taken(page, page.get_by_label("CSV of: Thirty")).splitlines()))
    assert rows[0] == ["claim", "n", "verdict", "remark", "to make it"]
    assert rows[1] == ["claim-3", "3", "right", REMARK, "senet train --model net3 --seed 0"]
    page.get_by_role("table", name="To be sorted").get_by_role("button", name="value").click()
    lines = taken(page, page.get_by_label("LaTeX of: To be sorted")).splitlines()
    assert lines[2] == "\\begin{tabular}{lll}"
    assert lines[4] == "name & value & group \\\\"
    special = {"−3": "$-$3", "< 0.001": "$<$ 0.001", "12 %": "12 \\%", "–": "--"}
    expected = [special.get(value, value) for value in ASCENDING]
    assert [line.split(" & ")[1] for line in lines[6:16]] == expected


@pytest.mark.browser
def test_figures_are_taken_away_and_have_light_ink_by_night(report, visit):
    page = visit(report)
    figure = page.locator("figure:has(.get)").first
    drawing = taken(page, figure.get_by_role("button", name="SVG"))
    assert "#1d2329" in drawing
    assert "var(" not in drawing
    assert ElementTree.fromstring(drawing).get("aria-label")
    assert "background" not in drawing  # the page has its own
    assert figure.get_by_role("link", name="PDF").get_attribute("download").endswith(".pdf")
    inked = figure.locator("svg [style*='--ink']").first
    for scheme, ink in (("light", "rgb(29, 35, 41)"), ("dark", "rgb(228, 232, 236)")):
        page.emulate_media(color_scheme=scheme)
        colours = inked.evaluate("e => [getComputedStyle(e).fill, getComputedStyle(e).stroke]")
        assert ink in colours
    assert taken(page, figure.get_by_role("button", name="SVG")) == drawing
    names = page.evaluate("[...document.querySelectorAll('[id]')].map(e => e.id)")
    assert len(names) == len(set(names))


@pytest.mark.browser
def test_a_published_page_offers_its_drawings_without_their_pdf(report, visit, tmp_path):
    published = Path(shutil.copy(report, tmp_path))
    _slim_page(published)
    kept, figure = (visit(path).locator("figure:has(.get)").first for path in (report, published))
    assert [place.get_by_role("link").count() for place in (kept, figure)] == [1, 0]
    one, other = (
        taken(place.page, place.get_by_role("button", name="SVG")) for place in (kept, figure)
    )
    assert one == other
    assert figure.page.said == []


def test_images_to_look_at_are_right_then_doubtful_then_wrong():
    labels = np.array([0, 0, 0, 0, 1, 1])
    one, other = (np.eye(2)[said] for said in ([0, 1, 1, 0, 1, 1], [0, 0, 1, 0, 1, 1]))
    # of class 0 both are right on 0 and 3, one on 1, none on 2; of class 1 both on all
    assert choose_images([one, other], labels, 3).tolist() == [0, 1, 2, 4, 5]
    assert choose_images([one, other], labels, 1).tolist() == [0, 4]


@pytest.mark.browser
def test_class_image_and_networks_are_chosen_by_keyboard_without_a_request(report, visit):
    page = visit(report)
    box, status = page.locator(".look"), page.locator(".look [role=status]")
    canvas = "k => document.querySelectorAll('.look .cases canvas')[k].toDataURL()"
    assert box.locator(".cases figure").count() == 3  # the image and two networks
    before, said = [page.evaluate(canvas, k) for k in range(3)], status.text_content()
    box.get_by_role("radio").first.focus()
    page.keyboard.press("ArrowRight")
    after = [page.evaluate(canvas, k) for k in range(3)]
    assert all(a != b for a, b in zip(before, after, strict=True))
    assert status.text_content() != said
    box.get_by_label("Class").focus()
    page.keyboard.press("ArrowDown")
    name = box.get_by_label("Class").locator("option:checked").text_content()
    assert status.text_content().startswith(f"{name}, image ")
    # The line of a layer's gates is as flat as they are.
    line = page.locator(".look .curve polyline:not(.mean)").first.get_attribute("points")
    heights = [(42 - float(point.split(",")[1])) / 40 for point in line.split()]
    words = page.locator(".look .curve + small").first.text_content()
    ends = list(map(float, re.search(r"([\d.]+) to ([\d.]+)", words).groups()))
    assert [min(heights), max(heights)] == pytest.approx(ends, abs=0.01)
    box.get_by_role("checkbox", name="se_resnet20").press("Space")
    assert box.locator(".cases figure").count() == 2
    assert "se_resnet20" not in status.text_content()
    assert [url for url in page.asked if not url.startswith("data:")] == [report.as_uri()]


def test_of_rounded_shares_the_class_that_is_named_is_the_largest_logit():
    logits = np.array([[2.0, 2.00005, 0.0]])
    maps = CamMaps(maps=np.ones((1, 4, 4)), logits=logits, targets=logits.argmax(1))
    about = {"labels": np.array([1]), "indices": np.array([0]), "classes": ["a", "b", "c"]}
    looking = Looking(images=np.zeros((1, 4, 4, 3)), **about, maps={"net": maps}, gates={})
    (network,) = json.loads(re.search("<script.*?>(.*)</script>", looking._repr_html_())[1])[
        "networks"
    ]
    assert network["shares"][0][0] == network["shares"][0][1]
    assert network["said"] == [1]


def test_a_value_of_a_parameter_stands_in_the_title_as_it_is(tmp_path):
    given = {"parameters": {"model": r"C:\new\1"}}
    page = render(notebook_of(tmp_path, "# Title", papermill=given))
    assert r"C:\new\1: Title" in unescape(page)


@pytest.mark.browser
def test_a_table_of_odd_names_is_named_and_taken_away_whole(tmp_path, visit):
    frame = pd.DataFrame({"<b>n": [1, 2]}, pd.Index(["[sic]", "* x"], name="<i>name"))
    write_page(notebook_of(tmp_path, "# T", table(frame, "A & b's: values")), tmp_path / "x.html")
    page = visit(tmp_path / "x.html")
    assert page.locator("thead th").all_text_contents() == ["<i>name", "<b>n"]
    lines = taken(page, page.get_by_label("LaTeX of: A & b's", exact=True)).splitlines()
    assert [line for line in lines if "sic" in line or "* x" in line] == [
        r"{}[sic] & 1 \\", r"{}* x & 2 \\",
    ]  # fmt: skip


@pytest.mark.browser
def test_what_is_drawn_is_what_the_arrays_hold(tmp_path, visit):
    maps = np.zeros((2, 32, 32), np.float32)
    maps[0, 28, 1] = 2.0
    logits = np.log(np.array([[0.25, 0.75], [0.9, 0.1]]))
    found = CamMaps(maps=maps, logits=logits, targets=logits.argmax(1))
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype(np.uint8)
    looking = Looking(images=images, labels=np.array([0, 0]), indices=np.array([7, 9]),
                      classes=["<cat>", "dog"], maps={"net": found}, gates={})  # fmt: skip
    write_page(notebook_of(tmp_path, "# T", looking), tmp_path / "x.html")
    page = visit(tmp_path / "x.html")
    pixel = """([k, x, y]) => [...document.querySelectorAll('.look .cases canvas')[k]
        .getContext('2d').getImageData(x, y, 1, 1).data]"""
    assert page.evaluate(pixel, [0, 5, 3]) == [*images[0, 3, 5].tolist(), 255]
    assert page.locator(".look [role=status]").text_content() == (
        "<cat>, image 7. net: dog, 75.0 %, wrong."
    )
    page.get_by_label("Shown").select_option("map alone")
    assert page.evaluate(pixel, [1, 1, 28]) == [252, 255, 164, 255]  # the brightest of inferno
    label = page.locator(".cases canvas").nth(1).get_attribute("aria-label")
    assert "lower left" in label
    page.get_by_role("radio").nth(1).check()
    assert "zero" in page.locator(".cases figure").nth(1).text_content()
    assert page.said == []
