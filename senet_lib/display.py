"""What notebooks show: figures with a description, tables with aligned numbers, computed prose."""

import html
import io
import os
import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


def show(figure: "Figure") -> None:
    """Display a figure as SVG; its label (`Figure.get_label`) is the description for readers of
    the text alone."""
    import matplotlib
    from IPython.display import display

    buffer = io.StringIO()
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
        code_columns: names of the columns set in a fixed-width face.
        prose_columns: names of the columns of sentences, which get room.
        row_names: the first column names the rows, and the columns need no heading.
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
        title = html.escape(self.caption)
        caption = f'<p class="caption">{title}</p>' if title else ""
        rows = "".join(f"<tr>{self._row(row)}</tr>" for row in self.frame.to_dict("records"))
        kind = ' class="facts"' if self.row_names else ""
        # A table wider than the page scrolls in a box of its own, by keyboard too.
        return (
            f'{caption}<div class="table" role="region" tabindex="0" '
            f'aria-label="{title or "table"}">'
            f"<table{kind}>{self._head()}<tbody>{rows}</tbody></table></div>"
        )

    def _head(self) -> str:
        if self.row_names:
            return ""
        cells = "".join(
            f'<th scope="col"{self._class(name)}>{html.escape(str(name))}</th>'
            for name in self.frame.columns
        )
        return f"<thead><tr>{cells}</tr></thead>"

    def _row(self, row: Mapping[Hashable, object]) -> str:
        cells = [
            f"<td{self._class(name)}>{(_code if name in self.code_columns else _cell)(value)}</td>"
            for name, value in row.items()
        ]
        if self.row_names:
            cells[0] = f'<th scope="row">{_cell(next(iter(row.values())))}</th>'
        return "".join(cells)

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


def _cell(value: object) -> str:
    if isinstance(value, Link):
        return f'<a href="{html.escape(value.target)}">{html.escape(value.text)}</a>'
    if isinstance(value, (list, tuple)):
        return " ".join(_cell(item) for item in value if item != "")
    return html.escape(str(value))


def _code(command: object) -> str:
    """A command that is broken before an option, not inside one."""
    words = re.split(r" (?=-)", html.escape(str(command)))
    return " ".join(f"<span>{word}</span>" for word in words)


def facts(pairs: Mapping[str, object], caption: str = "") -> Table:
    """A table of names and their values."""
    import pandas as pd

    frame = pd.DataFrame({"name": list(pairs), "value": [str(v) for v in pairs.values()]})
    return Table(frame, caption, text_columns=("name", "value"), row_names=True)
