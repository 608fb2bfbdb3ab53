"""Turn an executed notebook into one HTML page that needs nothing but itself.

Whether the page shows the code is the notebook's own choice: `"senet": {"show_code": false}` in its
metadata hides it.
"""

import re
from html import unescape
from pathlib import Path

from senet_lib.errors import MissingDependencyError, SenetError
from senet_lib.files import write_atomically

TEMPLATES = Path(__file__).resolve().parent / "templates"
# Best first. Widgets and scripts are left out: their fallbacks are shown instead.
FORMATS = ("text/html", "text/markdown", "image/svg+xml", "image/png", "image/jpeg", "text/plain")
SECTION = '<section class="prose">'
HEADING = re.compile(r"<h2>(.*?)</h2>", re.DOTALL)
SHORTEST_CONTENTS = 3


def write_page(notebook: Path, page: Path) -> None:
    """Render an executed notebook; the page appears whole or not at all.

    Args:
        notebook: path of the notebook.
        page: where the HTML goes.
    Raises:
        MissingDependencyError: nbconvert is not installed.
        SenetError: `page` does not end in .html.
    """
    if page.suffix != ".html":
        raise SenetError(f"--html {page} must end in .html")
    text = render(notebook)
    write_atomically(page, lambda partial: partial.write_text(text, encoding="utf-8"))


def render(notebook: Path) -> str:
    """The notebook as HTML, with styles and images inside and nothing to be loaded."""
    try:
        import nbformat
        from nbconvert import HTMLExporter
        from traitlets.config import Config
    except ImportError as error:
        raise MissingDependencyError(
            f"an HTML page needs the package {error.name}: pip install nbconvert"
        ) from None

    content = nbformat.read(notebook, as_version=4)
    config = Config()
    config.NbConvertBase.display_data_priority = list(FORMATS)
    exporter = HTMLExporter(
        config=config,
        template_name="senet",
        extra_template_basedirs=[str(TEMPLATES)],
        embed_images=True,
        exclude_anchor_links=True,
        exclude_input=not content.metadata.get("senet", {}).get("show_code", True),
    )
    resources = {
        "senet": {
            "title": _title(content.cells) or notebook.stem,
            "style": (TEMPLATES / "senet" / "page.css").read_text(encoding="utf-8"),
            "code_style": _code_style(),
        },
        "metadata": {"path": str(notebook.parent)},
    }
    body, _ = exporter.from_notebook_node(content, resources)
    return _with_contents(body)


def _title(cells: list) -> str:
    """Text of the first heading."""
    for cell in cells:
        if cell.cell_type == "markdown" and (match := re.search(r"^# +(.+)$", cell.source, re.M)):
            return match[1].strip()
    return ""


def _with_contents(body: str) -> str:
    """Give every section a name to link to, and list them before the first if there are enough."""
    texts = [re.sub(r"<[^>]+>", "", text).strip() for text in HEADING.findall(body)]
    names = iter(slugs := [slug(text) for text in texts])
    body = HEADING.sub(lambda match: f'<h2 id="{next(names)}">{match[1]}</h2>', body)
    if len(texts) < SHORTEST_CONTENTS:
        return body
    items = "".join(f'<li><a href="#{s}">{t}</a></li>' for s, t in zip(slugs, texts, strict=True))
    contents = f'<nav aria-label="Contents"><ol>{items}</ol></nav>\n'
    place = body.rfind(SECTION, 0, body.index("<h2 id="))
    return body[:place] + contents + body[place:]


def slug(heading: str) -> str:
    """The name a section is linked by: its heading in lower case, with hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", unescape(heading).lower()).strip("-")


def _code_style() -> str:
    """Colours of highlighted code, by day and by night."""
    from pygments.formatters import HtmlFormatter

    day = HtmlFormatter(style="default").get_style_defs(".highlight")
    night = HtmlFormatter(style="monokai").get_style_defs(".highlight")
    return f"{day}\n@media (prefers-color-scheme: dark) {{\n{night}\n}}"
