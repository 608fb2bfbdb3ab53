"""What the commands of `senet` are made of: options from settings, and one-line mistakes."""

import argparse
import dataclasses
import logging
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn, get_origin

from senet_lib import __version__, strict_yaml
from senet_lib.errors import NonFiniteLossError, SenetError, is_out_of_memory, unknown
from senet_lib.files import anchored, from_here
from senet_lib.recipe import MACHINE, Recipe, Study, check_study, load_study
from senet_lib.strict_yaml import shown


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
    """Make a command of a function, by the function's name, with one sentence of what it does."""

    def keep(run: Callable) -> Callable:
        _COMMANDS[run.__name__.strip("_")] = (text, options, run)
        return run

    return keep


def option(*flags: str, **how: Any) -> Option:
    """An option of a command: its spellings, and the rest as `add_argument` takes it."""
    return flags, how


def said(error: Exception) -> str:
    """What the last line is to say of a mistake or a failure; nothing of a fault of ours."""
    if isinstance(error, SenetError):
        return f"error: {error}"
    if isinstance(error, OSError):
        return f"error: {error.filename or 'output'}: {error.strerror or error}"
    is_failure = isinstance(error, NonFiniteLossError) or hasattr(error, "exit_code")
    if is_failure or is_out_of_memory(error):
        return f"failed: {str(error).partition(chr(10))[0] or 'there is too little memory'}"
    if isinstance(error, ModuleNotFoundError) and not (error.name or "").startswith("senet_lib"):
        return (
            f"error: this command needs the package {error.name}; "
            "install it, or the whole study with: pip install ."
        )
    return ""


def make_parser() -> argparse.ArgumentParser:
    """The command line with every command there is."""
    parser = _Parser(prog="senet", description="A study of channel attention on CIFAR-10.")
    parser.add_argument("--version", action="version", version=f"senet {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for name, (text, options, run) in _COMMANDS.items():
        added = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        added.set_defaults(run=run)
        added.add_argument(
            "--plugin", action="append", default=[], metavar="FILE", dest="plugins",
            help="a Python file that registers attentions or networks of your own; repeatable",
        )  # fmt: skip
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
        about, value = spec.metadata, spec.default
        text = " ".join(map(str, value)) if isinstance(value, tuple) else str(value).lower()
        more = f"; {about['within']}" * bool(about["within"]) + f"; default {text}"
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
        help="of --seeds, so many side by side; 0: what the cores allow, on a GPU 3")  # fmt: skip
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
    add("--tensorboard", metavar="DIR",
        help="write each epoch's numbers there, in <study>/<model>/seed<k>")  # fmt: skip
    add("--progress", choices=("auto", "bar", "log", "none"), default="auto")


def find_config(name: str) -> Path:
    """The file of that path, or of that name in configs/ at the top of the clone."""
    path, folder = from_here(name), anchored("configs")
    if path.is_file() or path.suffix in (".yaml", ".yml"):
        return path
    if not (known := folder / f"{name}.yaml").is_file():
        raise unknown("config", name, [file.stem for file in folder.glob("*.yaml")])
    return known


def train_settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """Recipe, data and the rest: the config's, replaced by what the command line says."""

    def given(names: Iterable[str]) -> dict[str, Any]:
        return {k: v for k in names if (v := getattr(arguments, k)) is not None}

    fields = given(spec.name for spec in dataclasses.fields(Recipe))
    settings = given(("data", "study", *MACHINE))
    for name, value in settings.items():
        check_study(value, name)
    if not arguments.config:
        return {"recipe": Recipe.from_dict(fields), **settings}
    study = load_study(find_config(arguments.config))
    recipe = Recipe.from_dict({**study.recipe.to_dict(), **fields})
    same = recipe == study.recipe and settings.get("data", study.data) == study.data
    if same and not arguments.overrides and not arguments.num_val:
        settings = {"study": study.study, "protocol": study.protocol, **settings}
    machine = {name: getattr(study, name) for name in ("data", *MACHINE)}
    return {"recipe": recipe, **machine, **settings}


def split_pairs(texts: Sequence[str]) -> dict[str, str]:
    """key=value texts, the values as they stand; SenetError for another form, or a key twice."""
    found: dict[str, str] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise SenetError(f"{shown(text)} is not of the form key=value, such as seed=1")
        if key.strip() in found:
            raise SenetError(f"{key.strip()} is given twice")
        found[key.strip()] = value
    return found


def pairs(texts: Sequence[str]) -> dict[str, Any]:
    """key=value texts, the values read as YAML reads them (8 is a number, true is true)."""
    found = {k: strict_yaml.parse(v, f"the value of {k}") for k, v in split_pairs(texts).items()}
    if large := [k for k, v in found.items() if isinstance(v, int) and abs(v) >= 2**63]:
        raise SenetError(f"the value of {large[0]} is too large")
    return found
