"""Turn an executed notebook into one HTML page that needs nothing but itself.

Whether the page shows the code is the notebook's own choice: `"senet": {"show_code": false}` in its
metadata hides it. The page's script adds to what is there (contents that follow the reader, tables
that sort and filter) and is not needed to read it.
"""

import base64
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape, unescape
from pathlib import Path

from senet_lib.errors import MissingDependencyError, SenetError
from senet_lib.files import write_whole

TEMPLATES = Path(__file__).resolve().parent / "templates"
# Best first. Widgets and scripts are left out: their fallbacks are shown instead.
FORMATS = ("text/html", "text/markdown", "image/svg+xml", "image/png", "image/jpeg", "text/plain")
HEADING = re.compile(r"<h([23])>(.*?)</h\1>", re.DOTALL)
TABLE = re.compile(r'(<div\b[^>]*class="table\b[^>]*>)?(<table\b.*?</table>)', re.DOTALL)
EQUATION = re.compile(r"<code\b.*?</code>|\$\$(.+?)\$\$|\$(\S(?:[^$\n]*\S)?)\$", re.DOTALL)
SHORTEST_CONTENTS = 3  # sections
MAIN, LIST = "content", "contents-list"  # names no section may take


@dataclass(frozen=True, slots=True)
class Section:
    """A heading that the contents list links to."""

    level: int
    """2 for a section, 3 for a part of one."""
    name: str
    """What it is linked by, unique in the page."""
    text: str
    """The heading, as HTML without tags."""


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
    write_whole(page, text)


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
    show_code = content.metadata.get("senet", {}).get("show_code", True)
    config = Config()
    config.NbConvertBase.display_data_priority = list(FORMATS)
    exporter = HTMLExporter(
        config=config,
        template_name="senet",
        extra_template_basedirs=[str(TEMPLATES)],
        embed_images=True,
        exclude_anchor_links=True,
        exclude_input=not show_code,
        filters={"equations": lambda prose: EQUATION.sub(_mathml, prose)},
    )
    body, _ = exporter.from_notebook_node(content, {"metadata": {"path": str(notebook.parent)}})
    body, sections = _with_names(TABLE.sub(_in_a_box, body))
    return frame(
        _title(content.cells) or notebook.stem,
        body,
        contents=_contents(sections),
        style=_code_style() if show_code else "",
        script=_asset("page.js"),
    )


def frame(
    title: str, body: str, *, contents: str = "", style: str = "", head: str = "", script: str = ""
) -> str:
    """A whole page in our style, which a browser lets load nothing from elsewhere.

    Args:
        title: of the page, as text.
        body: what stands in its main part, HTML.
        contents: the navigation beside it, HTML, if there is one.
        style: CSS in addition to that of all pages.
        head: further elements of the head, HTML.
        script: JavaScript. None but this one is run, whatever the body holds.
    """
    allowed = f"'sha256-{_sha256(script)}'" if script else "'none'"
    policy = (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {allowed}; "
        "base-uri 'none'; form-action 'none'"
    )
    beside = f'<a class="skip" href="#{MAIN}">Skip to the content</a>\n{contents}\n'
    parts = [
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f'<meta name="color-scheme" content="light dark">\n{head}',
        f"<title>{escape(title, quote=False)}</title>",
        f"<style>\n{_asset('page.css')}{style}</style>",
        f"<script>{script}</script>" if script else "",
        "</head>",
        f'<body class="with-contents">\n{beside}' if contents else "<body>",
        f'<main id="{MAIN}">\n{body}\n</main>\n</body>\n</html>\n',
    ]
    return "\n".join(parts)


def slug(heading: str) -> str:
    """The name a section is linked by: its heading in lower case, with hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", unescape(heading).lower()).strip("-")


def _asset(name: str) -> str:
    return (TEMPLATES / "senet" / name).read_text(encoding="utf-8")


def _sha256(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")


def _mathml(match: re.Match[str]) -> str:
    """An equation in LaTeX as MathML, which browsers set without a script; code stays as it is."""
    from latex2mathml.converter import convert

    block, inline = match.groups()
    if not (block or inline):
        return match[0]
    return convert(unescape(block or inline), display="block" if block else "inline")


def _title(cells: list) -> str:
    """Text of the first heading."""
    for cell in cells:
        if cell.cell_type == "markdown" and (match := re.search(r"^# +(.+)$", cell.source, re.M)):
            return match[1].strip()
    return ""


def _in_a_box(match: re.Match[str]) -> str:
    """A table that can scroll by itself; ours can already, those of Markdown and pandas cannot."""
    if match[1]:
        return match[0]
    return f'<div class="table" role="region" tabindex="0" aria-label="Table">{match[2]}</div>'


def _with_names(body: str) -> tuple[str, list[Section]]:
    """Give every heading below the title a name to link to."""
    sections: list[Section] = []
    taken = {MAIN, LIST}

    def name(match: re.Match[str]) -> str:
        text = re.sub(r"<[^>]+>", "", match[2]).strip()
        wanted = found = slug(text) or "section"
        count = 1
        while found in taken:
            found = f"{wanted}-{(count := count + 1)}"
        taken.add(found)
        sections.append(Section(int(match[1]), found, text))
        return f'<h{match[1]} id="{found}">{match[2]}</h{match[1]}>'

    return HEADING.sub(name, body), sections


def _contents(sections: Sequence[Section]) -> str:
    """The list of sections, each with its parts, if there are enough; a plain list by itself."""
    if sum(section.level == 2 for section in sections) < SHORTEST_CONTENTS:
        return ""
    items: list[tuple[str, list[str]]] = []
    for section in sections:
        link = f'<a href="#{section.name}">{section.text}</a>'
        if section.level == 2 or not items:
            items.append((link, []))
        else:
            items[-1][1].append(f"<li>{link}</li>")
    lines = "\n".join(
        f"<li>{link}" + (f"<ol>{''.join(parts)}</ol>" if parts else "") + "</li>"
        for link, parts in items
    )
    return (
        '<nav class="contents" aria-label="Contents">\n'
        f'<button type="button" aria-expanded="false" aria-controls="{LIST}" hidden>'
        '<span>Contents</span> <span class="here"></span></button>\n'
        f'<p aria-hidden="true">Contents</p>\n<ol id="{LIST}">\n{lines}\n</ol>\n</nav>'
    )


def _code_style() -> str:
    """Colours of highlighted code, by day and by night."""
    from pygments.formatters import HtmlFormatter

    day = HtmlFormatter(style="default").get_style_defs(".highlight")
    night = HtmlFormatter(style="monokai").get_style_defs(".highlight")
    return f"{day}\n@media screen and (prefers-color-scheme: dark) {{\n{night}\n}}\n"
