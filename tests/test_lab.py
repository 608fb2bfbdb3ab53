"""The explorer in a real browser: in JupyterLab, and as an app."""

import re

import pytest
from browser import (
    PATIENCE_MS,
    chromium,  # noqa: F401 (a fixture)
    copy_notebook,
    jupyter_server,
    run_all,
    voila_server,
)

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
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    found = axe.run(page).response["violations"]
    assert not [v["id"] for v in found if v["impact"] in ("serious", "critical")]


def keyboard_opens_a_cell(page) -> None:
    """An arrow key on the list of confusions shows the images of the commonest one."""
    page.get_by_label("Confusion").focus()
    page.keyboard.press("ArrowDown")
    cell = page.get_by_label("Confusion").locator("option").nth(1).inner_text()
    true, said, count = re.match(r"(.+)\staken\sfor\s(.+):\s(.+)", cell).groups()
    page.locator(".senet-pool strong").get_by_text(re.compile(f"^{count} image")).wait_for()
    shown = page.get_by_label("True class").locator("option:checked").inner_text()
    assert shown == true
    assert page.get_by_label("Taken for").locator("option:checked").inner_text() == said


def own_pictures(page, folder) -> None:
    """One is shown with what was done to it; a broken one gives a line."""
    from PIL import Image

    Image.new("RGB", (90, 60), "red").save(folder / "mine.png")
    (folder / "broken.png").write_bytes(b"nothing")
    image = source(page, ".senet-picture")
    _upload(page, folder / "mine.png")
    changed(page, ".senet-picture", image)
    status = page.locator(".senet-status").first
    status.get_by_text("mine.png: 90x60 pixels").wait_for()
    _upload(page, folder / "broken.png")
    status.get_by_text("broken.png is not a readable image").wait_for()


def _upload(page, path) -> None:
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Your own picture").click()
    chooser.value.set_files(path)
