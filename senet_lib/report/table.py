"""What notebooks show: figures with a description, tables of frames, computed prose, and links."""

import html
import io
import os
import re
import sys
import zlib
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure
    from pandas.io.formats.style import Styler


LINK = re.compile(r'<a href="(.*?)">(.*?)</a>')


def show(figure: "Figure") -> None:
    """Display a figure as SVG; its label (`Figure.get_label`) is the description for readers of
    the text alone."""
    import matplotlib
    from IPython.display import display

    buffer = io.StringIO()
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close(figure)  # or a notebook would draw it once more
    alt = figure.get_label()
    if not alt:
        raise ValueError("a figure needs a description: figure.set_label(...)")
    options = {"bbox_inches": "tight", "transparent": True, "metadata": {"Date": None}}
    with matplotlib.rc_context({"svg.hashsalt": "senet_lib", "svg.fonttype": "path"}):
        figure.savefig(buffer, format="svg", **options)
    display(
        {"image/svg+xml": buffer.getvalue(), "text/plain": alt},
        metadata={"image/svg+xml": {"alt": alt}},
        raw=True,
    )


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

    __slots__ = ()


def escape(text: object) -> str:
    """Text that Markdown and HTML show as it stands."""
    safe = html.escape(str(text), quote=False)
    return "".join(f"\\{c}" if c in "\\`*_[]|#~" else c for c in safe)


def link(path: Path, text: object = "", page_folder: str | Path = "") -> Markup:
    """A relative link, for tables and prose, so that a folder of results can be moved.

    Args:
        path: the file; where there is none the text stands alone.
        text: what is shown; empty: the file's name.
        page_folder: the folder of the page; empty: the current one.
    """
    shown = html.escape(str(text) or path.name)
    if not path.is_file():
        return Markup(shown if text else "")
    target = Path(os.path.relpath(path, page_folder or ".")).as_posix()
    return Markup(f'<a href="{quote(target, safe="/+=")}">{shown}</a>')


def folded(text: object, head: str = "", length: int = 90) -> Markup:
    """Text of which only the beginning is seen until the reader asks for the rest.

    Args:
        text: of any length; at most half as much again as `length` is not folded.
        head: seen in the place of the beginning.
        length: characters of the beginning, cut between words.
    """
    whole = str(text)
    if not whole or (not head and len(whole) <= 1.5 * length):
        return Markup(html.escape(whole))
    cut = 0 if head else max(whole.rfind(" ", 0, length), 1)
    seen, rest = html.escape(head or whole[:cut]), html.escape(whole[cut:])
    kind = "command" if head else "more"
    return Markup(f'<details class="{kind}"><summary>{seen}</summary>{rest}</details>')


def table(
    frame: "pd.DataFrame",
    caption: str = "",
    formats: Mapping[str, str | Callable] | None = None,
    empty: str = "None.",
) -> "Styler | Text":
    """A frame as a table: columns of numbers to the right, all others to the left.

    Args:
        frame: what is shown. A named index names the rows, and its name stands above it; an index
            that only counts is left out. Cells of `Markup` stand as they are.
        caption: what the table shows.
        formats: of columns, such as {"error": "{:.2f}"}; a missing value is a dash.
        empty: said instead, where the frame has no row.
    Returns:
        pandas' Styler, which a notebook can go on styling, or `empty`.
    """
    import pandas as pd
    from pandas.api.types import is_numeric_dtype
    from pandas.io.formats.style import Styler

    if frame.empty:
        return Text(empty)
    counts = isinstance(frame.index, pd.RangeIndex)
    if frame.index.name:
        frame = frame.rename_axis(index=None, columns=frame.index.name)
    name = f"{zlib.crc32(f'{caption}{list(frame.columns)}{frame.shape}'.encode()):x}"
    shown = Styler(frame, uuid=name, cell_ids=False).format(_cell, na_rep="–").format_index(_cell)
    for column, how in (formats or {}).items():
        if column in frame:
            shown = shown.format(how, subset=[column], na_rep="–")
    sides = {column: "right" if is_numeric_dtype(frame[column]) else "left" for column in frame}
    styles = {
        column: [{"selector": "", "props": f"text-align: {sides[column]}"}] for column in frame
    }
    shown = shown.set_table_styles(styles).set_caption(html.escape(caption))
    return shown.hide(axis="index") if counts else shown


def _cell(value: object) -> str:
    if isinstance(value, (list, tuple)):
        return " ".join(_cell(item) for item in value if item != "")
    if isinstance(value, float):
        return f"{value:g}"
    return value if isinstance(value, Markup) else html.escape(str(value))


# Until the last notebook has its tables from `table`

SHORT_HEADING, LONG_TABLE, FOLDED_FROM, FOLDED_AT = 8, 25, 140, 90


@dataclass(frozen=True)
class Link:
    """A link in a table's cell; it is relative, so that a folder of results can be moved."""

    text: str
    target: str

    @classmethod
    def to(cls, path: Path, text: str, page_folder: Path) -> "Link | str":
        """A link from a page in `page_folder` to a file, or nothing where there is no such file."""
        if not path.is_file():
            return ""
        return cls(text, Path(os.path.relpath(path, page_folder)).as_posix())


@dataclass(frozen=True)
class Table:
    """A data frame as a table of text.

    Attributes:
        frame: the cells: text, `Link`s or sequences of them; numbers already formatted.
        caption: what the table shows.
        text_columns: names of the columns that are aligned to the left; the others are numbers.
            If the first column is one of them, it names the rows.
        code_columns: names of the columns set in a fixed-width face.
        prose_columns: names of the columns of sentences, which get room; long ones are folded.
        row_names: the first column names the rows, and the columns have no heading.
        empty: shown instead of a table without rows.
    """

    frame: "pd.DataFrame"
    caption: str = ""
    text_columns: Sequence[str] = field(default_factory=tuple)
    code_columns: Sequence[str] = field(default_factory=tuple)
    prose_columns: Sequence[str] = field(default_factory=tuple)
    row_names: bool = False
    empty: str = "None."

    def _repr_html_(self) -> str:
        if self.frame.empty:
            return f"<p>{html.escape(self.empty)}</p>"
        rows = "".join(f"<tr>{self._row(row)}</tr>" for row in self.frame.to_dict("records"))
        kind = ' class="facts"' if self.row_names else ""
        # A table wider than the page scrolls in a box of its own, by keyboard too.
        return (
            f'<div class="table{" long" if self._long else ""}" role="region" tabindex="0" '
            f'aria-label="{html.escape(_opening(self.caption)) or "Table"}">'
            f"<table{kind}>{self._caption()}{self._head()}<tbody>{rows}</tbody></table></div>"
        )

    @property
    def _long(self) -> bool:
        return len(self.frame) >= LONG_TABLE

    def _caption(self) -> str:
        text = html.escape(self.caption)
        return f"<caption><span>{text}</span></caption>" if text else ""

    def _head(self) -> str:
        if self.row_names:
            return ""
        cells = "".join(
            f'<th scope="col"{self._class(name)}>{_heading(name)}</th>'
            for name in self.frame.columns
        )
        return f"<thead><tr>{cells}</tr></thead>"

    def _row(self, row: Mapping[Hashable, object]) -> str:
        cells = [f"<td{self._class(name)}>{self._content(name, row[name])}</td>" for name in row]
        first = next(iter(row))
        if self.row_names or (first in self.text_columns and first not in self.code_columns):
            cells[0] = f'<th scope="row">{_old_cell(row[first])}</th>'
        return "".join(cells)

    def _content(self, name: Hashable, value: object) -> str:
        if name in self.code_columns:
            return _folded_code(value) if self._long else _code(value)
        return _old_folded(value) if name in self.prose_columns else _old_cell(value)

    def __repr__(self) -> str:
        return (
            self.empty
            if self.frame.empty
            else self.frame.to_string(index=False, header=not self.row_names)
        )

    def _class(self, name: Hashable) -> str:
        if name in self.code_columns:
            return ' class="code"'
        if name in self.prose_columns:
            return ' class="sentences"'
        return "" if name in self.text_columns else ' class="number"'


def _heading(name: Hashable) -> str:
    """A column's heading; a short one stays on one line."""
    text = html.escape(str(name))
    return text.replace(" ", "&nbsp;") if len(str(name)) <= SHORT_HEADING else text


def _old_cell(value: object) -> str:
    if isinstance(value, Link):
        return f'<a href="{html.escape(value.target)}">{html.escape(value.text)}</a>'
    return " ".join(map(_old_cell, value)) if isinstance(value, list) else html.escape(str(value))


def _opening(caption: str) -> str:
    """The caption as far as its first colon, semicolon, comma, bracket or end of a sentence."""
    return re.split(r"[:;,(]|\. ", caption, maxsplit=1)[0].strip()


def _old_folded(value: object) -> str:
    """Prose of which only the beginning is seen until it is asked for."""
    text = str(value)
    if not isinstance(value, str) or len(text) <= FOLDED_FROM:
        return _old_cell(value)
    cut = text.rfind(" ", 0, FOLDED_AT)
    cut = FOLDED_AT if cut < 0 else cut
    return (
        f'<details class="more"><summary>{html.escape(text[:cut])}</summary>'
        f"{html.escape(text[cut:])}</details>"
    )


def _code(commands: object) -> str:
    """Commands, a line each, that are broken before an option, not inside one."""
    lines = [re.split(r" (?=-)", html.escape(one)) for one in str(commands).split("; ") if one]
    return "; <br>".join(" ".join(f"<span>{word}</span>" for word in words) for words in lines)


def _folded_code(commands: object) -> str:
    """Commands out of sight until they are asked for."""
    code = _code(commands)
    return f"<details><summary>command</summary>{code}</details>" if code else ""


def facts(pairs: Mapping[str, object], caption: str = "") -> Table:
    """A table of names and their values."""
    import pandas as pd

    frame = pd.DataFrame({"name": list(pairs), "value": [str(v) for v in pairs.values()]})
    return Table(frame, caption, text_columns=("name", "value"), row_names=True)
