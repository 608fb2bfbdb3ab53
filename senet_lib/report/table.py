"""What notebooks show: figures with a description, tables with aligned numbers, computed prose."""

import html
import io
import os
import re
import sys
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

SHORT_HEADING = 8  # characters
LONG_TABLE = 25  # rows; from there on commands are folded away, and a page's script adds a filter
FOLDED_FROM, FOLDED_AT = 140, 90  # characters: prose longer than the first is cut near the second


def show(figure: "Figure") -> None:
    """Display a figure as SVG; its label (`Figure.get_label`) is the description for readers of
    the text alone."""
    import matplotlib
    from IPython.display import display

    buffer = io.StringIO()
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close(figure)  # or a notebook would draw it once more
    with matplotlib.rc_context({"svg.hashsalt": "senet_lib", "svg.fonttype": "path"}):
        figure.savefig(buffer, format="svg", bbox_inches="tight", metadata={"Date": None})
    alt = figure.get_label()
    if not alt:
        raise ValueError("a figure needs a description: figure.set_label(...)")
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
        return self.markdown

    def __repr__(self) -> str:
        return self.markdown


def escape(text: object) -> str:
    """Text that Markdown and HTML show as it stands."""
    safe = html.escape(str(text), quote=False)
    return "".join(f"\\{c}" if c in "\\`*_[]|#~" else c for c in safe)


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
            cells[0] = f'<th scope="row">{_cell(row[first])}</th>'
        return "".join(cells)

    def _content(self, name: Hashable, value: object) -> str:
        if name in self.code_columns:
            return _folded_code(value) if self._long else _code(value)
        return _folded(value) if name in self.prose_columns else _cell(value)

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


def _cell(value: object) -> str:
    if isinstance(value, Link):
        return f'<a href="{html.escape(value.target)}">{html.escape(value.text)}</a>'
    if isinstance(value, (list, tuple)):
        return " ".join(_cell(item) for item in value if item != "")
    return html.escape(str(value))


def _opening(caption: str) -> str:
    """The caption as far as its first colon, semicolon, comma, bracket or end of a sentence."""
    return re.split(r"[:;,(]|\. ", caption, maxsplit=1)[0].strip()


def _folded(value: object) -> str:
    """Prose of which only the beginning is seen until it is asked for."""
    text = str(value)
    if not isinstance(value, str) or len(text) <= FOLDED_FROM:
        return _cell(value)
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
