"""How Sphinx makes pages of docs/*.md and of the docstrings: `make docs`, without a network."""

import ast
import dataclasses
import inspect
import itertools
import re
import textwrap
from typing import Any, NoReturn

from docutils.nodes import Element, SkipNode
from latex2mathml.converter import convert
from sphinx.application import Sphinx

project = html_title = "senet_lib"
copyright = "the contributors to senet_lib; MIT licence"
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
templates_path = ["_templates"]
exclude_patterns = ["**.npz", "**.safetensors"]  # of what is published, reports and records suffice
default_role = "code"
maximum_signature_line_length = 88
toc_object_entries_show_parents = "hide"

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3

autodoc_default_options = {"members": True, "ignore-module-all": True, "exclude-members": "TABLE"}
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_custom_sections = ["Source", "Differs from the paper", "Differs from the papers"]

add_module_names = False
html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["pages.css"]
html_extra_path = ["../outputs/published"]
html_math_renderer = "mathml"
html_copy_source = False


def fields(cls: type) -> list[str]:
    """What a dataclass says of its own fields, by comments or `recipe.setting`, for Napoleon."""
    lines = textwrap.dedent(inspect.getsource(cls)).splitlines()
    said = []
    for node in ast.parse("\n".join(lines)).body[0].body:
        if isinstance(node, ast.AnnAssign):
            about = getattr(cls, "__dataclass_fields__", {})[node.target.id].metadata
            above = itertools.takewhile(
                lambda line: line.strip()[:1] == "#", lines[node.lineno - 2 :: -1]
            )
            behind = lines[node.end_lineno - 1][node.end_col_offset :].strip()
            words = " ".join(line.strip(" #") for line in [*reversed([*above]), behind])
            words = (
                about["help"] + f", {about['within']}" * bool(about["within"]) if about else words
            )
            said += [f"    {node.target.id}: {words.strip()}"] if words.strip() else []
    return ["", "Attributes:", *said, ""] if said else []


def plain(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Docstrings mark code alone; a source behind its heading goes below it, for Napoleon. Those of
    dataclasses are told their fields."""
    if what == "class" and dataclasses.is_dataclass(obj):
        lines += fields(obj)
    if what in ("attribute", "data", "property") and lines:
        lines[0] = lines[0].replace(": ", " – ", 1)  # Napoleon takes what comes before for a type
    heads = "|".join(napoleon_custom_sections)
    text = re.sub(rf"^({heads}): ", r"\1:\n    ", "\n".join(lines), flags=re.MULTILINE)
    parts = enumerate(re.split(r"(`[^`]*`)", text))
    texts = [p if i % 2 else re.sub(r"[*|]|_\b", r"\\\g<0>", p) for i, p in parts]
    lines[:] = "".join(texts).split("\n")


def inline(self: Any, node: Element) -> NoReturn:
    """A formula as MathML, which browsers draw without a script."""
    self.body.append(convert(node.astext()))
    raise SkipNode


def block(self: Any, node: Element) -> NoReturn:
    """A formula on a line of its own."""
    self.body.append(convert(node.astext(), display="block"))
    raise SkipNode


def setup(app: Sphinx) -> None:
    """What needs more than a value."""
    app.connect("autodoc-process-docstring", plain, priority=400)  # before Napoleon
    app.add_html_math_renderer("mathml", (inline, None), (block, None))
