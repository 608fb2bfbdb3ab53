"""What the commands of `senet` are made of: options from settings, one-line mistakes, tables."""

import argparse
import dataclasses
import logging
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn, get_origin

from senet_lib import __version__, strict_yaml
from senet_lib.errors import SenetError


def speak() -> None:
    """Let a terminal of few characters show the others as escapes, and show what the log says."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    ours = logging.getLogger("senet_lib")
    ours.handlers = [logging.StreamHandler()]
    ours.setLevel(logging.INFO)


class _Parser(argparse.ArgumentParser):
    """Says a mistake in one line."""

    def error(self, message: str) -> NoReturn:
        line = " ".join(message.split())
        self.exit(2, f"error: {line} (see {self.prog} --help)\n")


# What each command is: its name, one sentence, its options, and the function that runs it.
Option = tuple[tuple[str, ...], dict[str, Any]] | Callable[[argparse.ArgumentParser], None]
_COMMANDS: dict[str, tuple[str, tuple[Option, ...], Callable[[argparse.Namespace], Any]]] = {}


def command(text: str, *options: Option) -> Callable[[Callable], Callable]:
    """Make a command of a function, by the function's name."""

    def keep(run: Callable) -> Callable:
        _COMMANDS[run.__name__.strip("_")] = (text, options, run)
        return run

    return keep


def option(*flags: str, **how: Any) -> Option:
    """An option of a command, as `add_argument` takes it."""
    return flags, how


def make_parser() -> argparse.ArgumentParser:
    """The command line with every command there is."""
    parser = _Parser(prog="senet", description="A study of channel attention on CIFAR-10.")
    parser.add_argument("--version", action="version", version=f"senet {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for name, (text, options, run) in _COMMANDS.items():
        added = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        added.set_defaults(run=run)
        for one in options:
            if callable(one):
                one(added)
            else:
                added.add_argument(*one[0], **one[1])
    return parser


def add_settings(group: Any, kind: type, names: Iterable[str]) -> None:
    """An option for each of these fields of a recipe or a study, from what the field says."""
    for spec in dataclasses.fields(kind):
        if spec.name not in names:
            continue
        about = spec.metadata
        more = "".join(f"; {word}" for word in (about["within"], _default(spec)) if word)
        how: dict[str, Any] = {"dest": spec.name, "help": about["help"].replace("%", "%%") + more}
        if spec.type is bool:
            how |= {"action": argparse.BooleanOptionalAction, "default": None}
        elif about["choices"]:
            how["choices"] = about["choices"]
        elif get_origin(spec.type) is tuple:
            how |= {"nargs": "*", "type": int, "metavar": "N"}
        else:
            how |= {"type": spec.type, "metavar": {int: "N", float: "X"}[spec.type]}
        group.add_argument(f"--{spec.name.replace('_', '-')}", *about["flags"], **how)


def _default(spec: dataclasses.Field) -> str:
    value = spec.default
    text = " ".join(map(str, value)) if isinstance(value, tuple) else str(value).lower()
    return f"default {text}"


def pairs(texts: Sequence[str]) -> dict[str, Any]:
    """key=value texts, the values read as YAML reads them (8 is a number, true is true).

    Raises:
        SenetError: a text has another form, a key comes twice, or a value is not valid YAML.
    """
    found: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise SenetError(f"{text!r} is not of the form key=value")
        if key in found:
            raise SenetError(f"{key} is given twice")
        found[key] = strict_yaml.parse(value, f"the value of {text!r}")
    return found


def without(words: Sequence[str], options: Sequence[str]) -> list[str]:
    """A command line without some options and their values.

    Args:
        words: the command line.
        options: such as "--seeds", each with all the values that follow it.
    """
    kept, dropping = [], False
    for word in words:
        if word.startswith("--"):
            dropping = word.partition("=")[0] in options
        if not dropping:
            kept.append(word)
    return kept


def print_table(
    head: Sequence[str], rows: Sequence[Sequence[Any]], right: Sequence[int] = ()
) -> None:
    """Print rows below a head, in columns as wide as they need.

    Args:
        head: names of the columns.
        rows: each with as many cells.
        right: the columns that are set to the right.
    """
    texts = [[str(cell) for cell in row] for row in (head, *rows)]
    widths = [max(len(row[i]) for row in texts) for i in range(len(head))]
    for row in texts:
        cells = [
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        print("  ".join(cells).rstrip())
