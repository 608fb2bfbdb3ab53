"""What the commands of `senet` are made of: options from settings, one-line mistakes, tables."""

import argparse
import dataclasses
import logging
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn, get_origin

from senet_lib import __version__, strict_yaml
from senet_lib.errors import SenetError
from senet_lib.recipe import Recipe, Study, check_setting, load_study, study_field
from senet_lib.strict_yaml import shown

MACHINE = ("device", "precision", "compile", "threads", "test_every")


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


def train_options(parser: argparse.ArgumentParser) -> None:
    """The options of `senet train`."""
    add = parser.add_argument
    add("--model", required=True, metavar="NAME", help="registry name; `senet models` lists them")
    add("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides",
        help="an argument of the model's builder, such as reduction=8")  # fmt: skip
    seeds = parser.add_mutually_exclusive_group()
    seeds.add_argument("--seed", type=int, default=0,
        help="initialisation, order and augmentation (default 0)")  # fmt: skip
    seeds.add_argument("--seeds", type=int, nargs="+", metavar="SEED", help="one run for each")
    add("--at-once", type=int, default=0, metavar="N",
        help="of --seeds, so many side by side; 0: as many as fit")  # fmt: skip
    add("--data", metavar="NAME_OR_PATH", help="default: cifar10, or what the config says")
    add("--val", type=int, default=0, metavar="N", dest="num_val",
        help="hold N training images out and evaluate on them instead of the test set")  # fmt: skip
    add("--config", metavar="YAML", help="take recipe, data and the rest from a study's file")
    add("--study", metavar="NAME", help="name of the study")
    add("--out", metavar="DIR", help="default: outputs/runs/<study>/<model>/seed<seed>")
    recipe = parser.add_argument_group("recipe (defaults: the paper protocol, or the config's)")
    add_settings(recipe, Recipe, {spec.name for spec in dataclasses.fields(Recipe)})
    machine = parser.add_argument_group("machine")
    add_settings(machine, Study, MACHINE)
    add = machine.add_argument
    add("--max-minutes", type=float, metavar="M", help="stop at a checkpoint after M minutes")
    add("--checkpoint-minutes", type=float, default=2.0, metavar="M",
           help="longest time between checkpoints (default 2)")  # fmt: skip
    add("--progress", choices=("auto", "bar", "log", "none"), default="auto")


def train_settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """Recipe, data and the rest: the config's, replaced by what the command line says."""

    def said(names: Iterable[str]) -> dict[str, Any]:
        return {k: v for k in names if (v := getattr(arguments, k)) is not None}

    given = said(spec.name for spec in dataclasses.fields(Recipe))
    settings = said(("data", "study", *MACHINE))
    for name, value in settings.items():
        check_setting(study_field(name), value)
    if not arguments.config:
        return {"recipe": Recipe.from_dict(given), **settings}
    study = load_study(arguments.config)
    recipe = Recipe.from_dict({**study.recipe.to_dict(), **given})
    same = recipe == study.recipe and settings.get("data", study.data) == study.data
    if same and not arguments.overrides and not arguments.num_val:
        settings = {"study": study.study, "protocol": study.protocol, **settings}
    machine = {name: getattr(study, name) for name in ("data", *MACHINE)}
    return {"recipe": recipe, **machine, **settings}


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
            raise SenetError(f"{shown(text)} is not of the form key=value")
        if key in found:
            raise SenetError(f"{key} is given twice")
        found[key] = strict_yaml.parse(value, f"the value of {shown(text)}")
        if isinstance(found[key], int) and abs(found[key]) >= 2**63:
            raise SenetError(f"the value of {shown(text)} is too large")
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
