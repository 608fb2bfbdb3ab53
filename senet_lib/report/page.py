"""Turn an executed notebook into one HTML page that needs nothing but itself.

Code stands folded beside what it made, or open where the notebook's metadata say
`"senet": {"show_code": true}`. Where it stands folded, a section called Answer comes first, and one
whose code shows nothing is left out. Cells tagged remove_cell are on no page. The page can be read
without its script.
"""

import base64
import hashlib
import itertools
import json
import os
import re
import shlex
from collections.abc import Sequence
from html import escape, unescape
from pathlib import Path
from typing import Any

import jinja2

from senet_lib.files import write_whole
from senet_lib.report.table import GROUND

TEMPLATES = Path(__file__).resolve().parent / "templates"
# Best first. Widgets and scripts are left out: their fallbacks are shown instead.
FORMATS = ("text/html", "text/markdown", "image/svg+xml", "image/png", "image/jpeg", "text/plain")
HEADING = re.compile(r"<h([23])>(.*?)</h\1>", re.DOTALL)
RELATIVE = re.compile(r'<a [^>]*?href="(?![#/"]|[a-z]+:)')
TABLE = re.compile(r'(<div\b[^>]*class="table\b[^>]*>)?(<table\b.*?</table>)', re.DOTALL)
CAPTION = re.compile(r"<caption>((?:&#?\w+;|[^:;,.(<])*)")  # up to its first stop
CODE = r"<pre\b.*?</pre>|<code\b.*?</code>"
EQUATION = re.compile(CODE + r"|\$\$(.+?)\$\$|\$(\S(?:[^$\n]*\S)?)\$", re.DOTALL)
PLAIN = re.compile(r'<span class="[npw]">([^<]*)</span>')  # names, punctuation and blanks of code
INKS = {"#1d2329": "ink", "#000000": "ink", "#56616c": "muted", "#dfe3e7": "line"}
FOR_ALL = "stroke-linejoin: round; stroke-linecap: butt"  # what Matplotlib asks of every line
SHORTEST_CONTENTS = 3  # sections
SMALL_POINTS = 430
MAIN = "content"  # a name that no section may take
LOOK = 'class="look"'  # what the script for looking without a kernel brings to life


def write_page(notebook: Path, page: Path, links_from: Path | None = None) -> None:
    """Render an executed notebook; the page appears whole or not at all.

    Args:
        notebook, page: where the one lies, and the other goes.
        links_from: the folder that the notebook's links start from; None for that of the page.
    """
    at = os.path.relpath(links_from or page.parent, page.parent)
    write_whole(page, render(notebook, back=way_back(page), at="" if at == "." else f"{at}/"))


def way_back(page: Path) -> str:
    """The relative link from a page of a study to the study's report; empty where none belongs."""
    parts = page.absolute().parts
    for root, depth in (("reports", 2), ("runs", 4)):  # reports/STUDY/x, runs/STUDY/MODEL/SEED/x
        for place in (len(parts) - depth - 1, len(parts) - depth - 2):
            if place >= 0 and parts[place] == root:
                report = Path(*parts[:place], "reports", parts[place + 1], "index.html")
                return "" if report == page.absolute() else os.path.relpath(report, page.parent)
    return ""


def render(notebook: Path, back: str = "", at: str = "") -> str:
    """The notebook as HTML, with styles and images inside and nothing to be loaded.

    Args:
        notebook: path of the executed notebook.
        back: link to the report it belongs to, if there is one.
        at: put before every relative link.
    """
    import nbformat
    from nbconvert import HTMLExporter
    from traitlets.config import Config

    content = nbformat.read(notebook, as_version=4)
    given = content.metadata.get("papermill", {}).get("parameters", {})
    if content.cells and {"model", "axis"} & given.keys():  # one of several: its page says which
        seed = f", seed {given['seed']}" if "seed" in given else ""
        head = content.cells[0]
        which = given.get("model", given.get("axis"))
        head.source = re.sub("^# ", lambda _: f"# {which}{seed}: ", head.source)
    numbers = itertools.count(1)
    exporter = HTMLExporter(
        config=Config({"NbConvertBase": {"display_data_priority": list(FORMATS)}}),
        template_name="senet",
        extra_template_basedirs=[str(TEMPLATES)],
        embed_images=True,
        exclude_anchor_links=True,
        filters={
            "equations": _with_mathml,
            "size": _size,
            "plain": lambda code: PLAIN.sub(r"\1", code),  # of no colour, and half of the page
            "drawing": lambda svg, alt: _drawing(svg, alt, next(numbers)),
        },
    )
    shown = [c for c in content.cells if "remove_cell" not in c.metadata.get("tags", ())]
    content.cells = shown  # but for what is of use by hand alone
    show_code = content.metadata.get("senet", {}).get("show_code", True)
    if not show_code:
        for cell in content.cells:  # what was logged stays in the notebook
            kept = [one for one in cell.get("outputs", ()) if one.get("name") != "stderr"]
            cell |= {"outputs": kept} if cell.cell_type == "code" else {}
        cells = _with_what_they_made(_without_empty_sections(content.cells))
        content.cells = _answer_first(cells)
    resources = {"metadata": {"path": str(notebook.parent)}, "show_code": show_code}
    resources["made"] = _made(content, notebook)
    body, _ = exporter.from_notebook_node(content, resources)
    body, sections = _with_names(TABLE.sub(_in_a_box, RELATIVE.sub(rf"\g<0>{at}", body)))
    return frame(
        " · ".join(filter(None, [_title(content.cells) or notebook.stem, given.get("study")])),
        body,
        contents=sections if len(sections) >= SHORTEST_CONTENTS else (),
        back=back,
        style=_code_style(),
        script=_asset("page.js") + (_asset("look.js") if LOOK in body else ""),
    )


def _made(content: dict, notebook: Path) -> str:
    """What every output of an executed notebook was made by and from, HTML."""
    ran = content.metadata.get("papermill", {})
    name, commit = Path(ran.get("input_path") or notebook).name, ran.get("commit")
    said = escape(name) + (f" at commit {escape(commit)}" if commit else "")
    words = ["senet", "notebook", Path(name).stem, "--out", f"my-{name}"]
    for key, value in ran.get("parameters", {}).items():
        words += ["-p", f"{key}={value if isinstance(value, str) else json.dumps(value)}"]
    if any("## Every run" in cell.source for cell in content.cells):
        said += ', from <a href="#every-run">these runs</a>'
    return f"{said}, by <code>{escape(shlex.join(words))}</code>"


def frame(
    title: str,
    body: str,
    *,
    contents: Sequence[tuple[str, str, str]] = (),
    back: str = "",
    style: str = "",
    head: str = "",
    script: str = "",
) -> str:
    """A whole page in our style, which a browser lets load nothing from elsewhere.

    Args:
        title: of the page, as text.
        body, head: HTML of its main part, and more in the head.
        contents: level, name and HTML of the sections that the navigation beside it lists.
        back: link to the report it belongs to, if there is one.
        style: CSS in addition to that of all pages.
        script: JavaScript. None but this one is run, whatever the body holds.
    """
    digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
    allowed = f"'sha256-{digest}'" if script else "'none'"
    about = {"title": title, "body": body, "contents": contents, "back": back, "style": style}
    about |= {"head": head, "script": script, "allowed": allowed, "main": MAIN, "asset": _asset}
    return filled("page.html.j2", **about)


def filled(template: str, **values: Any) -> str:
    """One of our templates with values in it, those that are text escaped."""
    places = jinja2.FileSystemLoader(TEMPLATES / "senet")
    ours = jinja2.Environment(loader=places, autoescape=True, keep_trailing_newline=True)
    return ours.get_template(template).render(values)


def slug(heading: str) -> str:
    """The name a section is linked by: its heading in lower case, with hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", unescape(heading).lower()).strip("-")


def _asset(name: str) -> str:
    return (TEMPLATES / "senet" / name).read_text(encoding="utf-8")


def _without_empty_sections(cells: list) -> list:
    """The cells but for the headings and prose of sections whose code, where there is any, showed
    nothing; the code goes with what the next shows."""
    levels, gone = [_level(cell) for cell in cells], set()
    for start, level in enumerate(levels):
        if level < 2:
            continue
        later = range(start + 1, len(cells))
        end = next((place for place in later if 0 < levels[place] <= level), len(cells))
        shown = [bool(c.outputs) for c in cells[start:end] if c.cell_type == "code"]
        if shown and not any(shown):
            gone |= {place for place in range(start, end) if cells[place].cell_type != "code"}
    return [cell for place, cell in enumerate(cells) if place not in gone]


def _level(cell: dict) -> int:
    """The level of the heading that a cell begins with, 0 if with none."""
    head = re.match("#+(?= )", cell.source) if cell.cell_type == "markdown" else None
    return len(head[0]) if head else 0


def _answer_first(cells: list) -> list:
    """The cells, a section called Answer before all others: a reader wants it first, a notebook has
    it last."""
    heads = [place for place, cell in enumerate(cells) if _level(cell) == 2]
    for start, end in itertools.pairwise([*heads, len(cells)]):
        if re.match(r"## Answer\s*$", cells[start].source, re.M):
            first = heads[0]
            return cells[:first] + cells[start:end] + cells[first:start] + cells[end:]
    return cells


def _with_what_they_made(cells: list) -> list:
    """The cells, code that shows nothing joined to the next that shows something."""
    kept, waiting = [], []
    for cell in cells:
        if cell.cell_type == "code":
            waiting.append(cell.source)
            if not cell.outputs:
                continue
            cell.source, waiting = "\n\n".join(waiting), []
        kept.append(cell)
    return kept


def _drawing(svg: str, alt: str, number: int) -> str:
    """A drawing of `show` as a part of the page, described in words: its ink is the page's, which
    is light on dark screens, all other colours stay; its ids are no other drawing's."""
    for colour, ink in INKS.items():
        svg = svg.replace(f": {colour}", f": var(--{ink}, {colour})")
    svg = svg[max(svg.find("<svg"), 0) :].replace(GROUND, "", 1)  # without the head of a file
    svg = re.sub("<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = svg.replace(f'<style type="text/css">*{{{FOR_ALL}}}</style>', "")
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>d{number}-", svg)
    about = f'role="img" aria-label="{escape(alt)}" style="{FOR_ALL}"'
    return svg.replace("<svg ", f"<svg {about} ", 1)


def _size(svg: str) -> str:
    """ "small" for a drawing that can still be read at the width of a phone."""
    width = re.search(r'<svg[^>]*? width="([\d.]+)pt"', svg)
    return "small" if width and float(width[1]) <= SMALL_POINTS else ""


def _with_mathml(prose: str) -> str:
    """Prose whose equations in LaTeX are MathML, which browsers set without a script; what is no
    LaTeX stays as it is written."""
    from latex2mathml.converter import convert

    def mathml(match: re.Match[str]) -> str:
        block, inline = match.groups()
        if not (block or inline):  # it is code
            return match[0]
        try:
            return convert(unescape(block or inline), display="block" if block else "inline")
        except Exception:  # the package's own errors have nothing else in common
            return match[0]

    return EQUATION.sub(mathml, prose)


def _title(cells: list) -> str:
    """Text of the first heading."""
    for cell in cells:
        if cell.cell_type == "markdown" and (match := re.search(r"^# +(.+)$", cell.source, re.M)):
            return match[1].strip()
    return ""


def _in_a_box(match: re.Match[str]) -> str:
    """A table that can scroll by itself, by keyboard too, with rows that have names."""
    if match[1]:
        return match[0]
    rows = match[2].replace('<th class="row_heading', '<th scope="row" class="row_heading')
    caption = CAPTION.search(rows)
    rows = re.sub("<caption>(.*?)</caption>", r"<caption><span>\1</span></caption>", rows)
    label = caption[1].strip() if caption else "Table"
    return f'<div class="table" role="region" tabindex="0" aria-label="{label}">{rows}</div>'


def _with_names(body: str) -> tuple[str, list[tuple[str, str, str]]]:
    """Give every heading below the title a name to link to; and level, name and HTML of each."""
    sections, taken = [], {MAIN}

    def name(match: re.Match[str]) -> str:
        level, text = match[1], re.sub(r"<[^>]+>", "", match[2]).strip()
        wanted = found = slug(text) or "section"
        count = 1
        while found in taken:
            found = f"{wanted}-{(count := count + 1)}"
        taken.add(found)
        sections.append((level, found, text))
        return f'<h{level} id="{found}">{match[2]}</h{level}>'

    return HEADING.sub(name, body), sections


def _code_style() -> str:
    """Colours of highlighted code, by day and by night."""
    from pygments.formatters import HtmlFormatter

    day = HtmlFormatter(style="default").get_style_defs(".highlight")
    night = HtmlFormatter(style="monokai").get_style_defs(".highlight")
    return f"{day}\n@media screen and (prefers-color-scheme: dark) {{\n{night}\n}}\n"
