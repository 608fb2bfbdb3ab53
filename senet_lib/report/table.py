"""What notebooks show: figures with a description, tables of frames, computed prose, and links."""

import base64
import html
import io
import mimetypes
import os
import re
import sys
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import matplotlib
import pandas as pd
from matplotlib.figure import Figure
from pandas.api.types import is_numeric_dtype
from pandas.io.formats.style import Styler

LINK = re.compile(r'<a href="(.*?)">(.*?)</a>')
GROUND = 'style="background: white" '  # of a drawing in a notebook, which may be dark


def show(figure: Figure) -> None:
    """Display a figure as SVG, with the same as PNG, for a notebook that is not trusted, and as PDF
    to take away; its label (`Figure.get_label`) is the description for readers of the text alone.
    """
    from IPython.display import display

    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close(figure)  # or a notebook would draw it once more
    alt = figure.get_label()
    if not alt:
        raise ValueError("a figure needs a description: figure.set_label(...)")
    svg, pdf, png = io.BytesIO(), io.BytesIO(), io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "senet_lib", "svg.fonttype": "path"}):
        for file, kind, date in ((svg, "svg", "Date"), (pdf, "pdf", "CreationDate")):
            options = {"bbox_inches": "tight", "transparent": True, "metadata": {date: None}}
            figure.savefig(file, format=kind, **options)
    figure.savefig(png, format="png", bbox_inches="tight", facecolor="white", dpi=100)
    drawing = svg.getvalue().decode("utf-8").replace("<svg ", f"<svg {GROUND}", 1)
    shown = {"image/svg+xml": drawing, "text/plain": alt}
    for kind, file in (("image/png", png), ("application/pdf", pdf)):
        shown[kind] = base64.b64encode(file.getvalue()).decode("ascii")
    display(shown, metadata={"image/svg+xml": {"alt": alt}}, raw=True)


def take_away(thing: Figure | pd.DataFrame, name: str) -> "Markup":
    """A link by which a notebook's reader saves a figure, or a frame as CSV; the name's ending is
    the kind."""
    file, kind = io.BytesIO(), name.rpartition(".")[2]
    if kind == "csv":
        thing.to_csv(file)
    else:
        thing.savefig(file, format=kind, bbox_inches="tight")
    data = base64.b64encode(file.getvalue()).decode("ascii")
    kind = mimetypes.guess_type(name)[0]
    return Markup(f'<a download="{name}" href="data:{kind};base64,{data}">{name}</a>')


@dataclass(frozen=True)
class Text:
    """Prose computed from data, in Markdown; `escape` what comes from outside."""

    markdown: str

    def _repr_markdown_(self) -> str:
        return LINK.sub(r"[\2](\1)", self.markdown)  # nbconvert empties links written as HTML

    def __repr__(self) -> str:
        return self.markdown


class Markup(str):
    """HTML that tables and prose take as it stands."""


def escape(text: object) -> str:
    """Text that Markdown and HTML show as it stands."""
    safe = html.escape(str(text), quote=False)
    return "".join(f"\\{c}" if c in "\\`*_[]|#~$" else c for c in safe)


def link(path: Path, text: object = "", page_folder: str | Path = "") -> Markup:
    """A relative link, for tables and prose, from the page's folder, by default the current one.
    Without a file the text stands alone; without a text it is the file's name."""
    shown = html.escape(str(text) or path.name)
    if not path.is_file():
        return Markup(shown if text else "")
    target = Path(os.path.relpath(path, page_folder or ".")).as_posix()
    return Markup(f'<a href="{quote(target, safe="/+=")}">{shown}</a>')


def folded(text: object, head: str = "", length: int = 90) -> Markup:
    """Text of which only the beginning, `length` characters or another `head`, is seen until the
    reader asks for the rest; at most half as much again is not folded."""
    whole = str(text)
    if not whole or (not head and len(whole) <= 1.5 * length):
        return Markup(html.escape(whole))
    space = whole.rfind(" ", 0, length)
    cut = 0 if head else space if space > 0 else length
    seen, rest = html.escape(head or whole[:cut]), html.escape(whole[cut:])
    kind = "command" if head else "more"
    return Markup(f'<details class="{kind}"><summary>{seen}</summary>{rest}</details>')


def table(
    frame: pd.DataFrame,
    caption: str = "",
    formats: Mapping[str, str | Callable] | None = None,
    empty: str = "None.",
) -> Styler | Text:
    """A frame as a table: columns of numbers to the right, all others to the left, and those that
    are blank in every row left out.

    Args:
        frame: what is shown. A named index names the rows, and its name stands above it; an index
            that only counts is left out. Cells of `Markup` stand as they are.
        caption: what the table shows.
        formats: of columns, such as {"error": "{:.2f}"}; a missing value is a dash.
        empty: said instead, where the frame has no row.
    """
    if frame.empty:
        return Text(empty)
    blank = frame.map(lambda value: isinstance(value, str | list | tuple) and not value).all()
    frame = frame.loc[:, ~blank]
    counts = isinstance(frame.index, pd.RangeIndex) and not frame.index.name
    if frame.index.name:
        frame = frame.rename_axis(index=None, columns=html.escape(str(frame.index.name)))
    name = f"{zlib.crc32(f'{caption}{list(frame.columns)}{frame.shape}'.encode()):x}"
    shown = Styler(frame, uuid=name, cell_ids=False).format(_cell, na_rep="–")
    shown = shown.format_index(_cell).format_index(_cell, axis=1)
    for column, how in (formats or {}).items():
        if column in frame:
            shown = shown.format(how, subset=[column], na_rep="–")
    sides = {column: "right" if is_numeric_dtype(frame[column]) else "left" for column in frame}
    styles = {c: [{"selector": "", "props": f"text-align: {side}"}] for c, side in sides.items()}
    shown = shown.set_table_styles(styles).set_caption(html.escape(caption))
    return shown.hide(axis="index") if counts else shown


def p_text(p: float) -> str:
    """A p value for a table, to three places, on one line."""
    return "<\N{NO-BREAK SPACE}0.001" if p < 0.0005 else f"{p:.3f}"


def decided_text(row: Any) -> str:
    """A difference with its interval, in points, and what that decides: a row, by name, of what
    `contrasts.compare` or `errors.beside_arithmetic` found. A decided one so near to zero that two
    places would not show its side has three."""
    ends = row.difference, row.low, row.high
    near = row.decision in ("better", "worse") and min(map(abs, ends)) < 5e-5
    ends = (f"{100 * end:+.{2 + near}f}".replace("+nan", "–") for end in ends)
    return "{} ({} to {}), ".format(*ends) + row.decision


def two_digits(number: float) -> str:
    """A large number for a table, to two significant digits."""
    return f"{float(f'{number:.2g}'):,.0f}"


def _cell(value: object) -> str:
    if isinstance(value, (list, tuple)):
        return " ".join(_cell(item) for item in value if item != "") or "–" * (value == ())
    if isinstance(value, float):
        return f"{value:g}"
    return value if isinstance(value, Markup) else html.escape(str(value))
