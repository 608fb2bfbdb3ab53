"""The commands of `senet` that list what there is: networks, their costs, runs and claims."""

import argparse
import json
import sys
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from senet_lib.errors import MissingDependencyError, SenetError, unknown
from senet_lib.files import anchored
from senet_lib.options import command, option, pairs
from senet_lib.runs import REPORTS

ROOT = option("--root", default="outputs/runs", metavar="DIR", help="default: outputs/runs")


def print_table(
    head: Sequence[str], rows: Sequence[Sequence[Any]], right: Sequence[int] = ()
) -> None:
    """Print rows below a head, in columns as wide as they need; some are set to the right."""
    texts = [[str(cell) for cell in row] for row in (head, *rows)]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    forms = [f"{'>' if i in right else '<'}{width}" for i, width in enumerate(widths)]
    for row in texts:
        print("  ".join(map(format, row, forms)).rstrip())


@command(
    "List the networks.",
    option("pattern", nargs="?", default="*", help="such as 'se_*', or how names begin"),
    option("--pretrained", action="store_true",
            help="the published weights instead: how they were trained, and their error"),
)  # fmt: skip
def _models(arguments: argparse.Namespace) -> None:
    from senet_lib.models import describe, list_attentions, list_models

    if arguments.pretrained:
        _pretrained(arguments.pattern)
        return
    names = list_models(arguments.pattern) or list_models(f"{arguments.pattern}*")
    if not names:
        raise SenetError(f"no model matches {arguments.pattern!r}; `senet models` lists all")
    print_table(["model", "what it is"], [[name, describe(name)] for name in names])
    if arguments.pattern == "*":
        print(f"attentions, as in resnet20+attention=NAME: {', '.join(list_attentions()[1:])}")


def _pretrained(pattern: str) -> None:
    from senet_lib.runs.published import NOT_KEPT, list_pretrained

    table = list_pretrained(pattern)
    table = list_pretrained(f"{pattern}*") if table.empty else table
    if table.empty:
        raise SenetError(
            f"no published network matches {pattern!r}; `senet models --pretrained` lists those "
            "that lie in outputs/published"
        )
    missing = table["num_bytes"].isna()
    rows = [
        [
            run["model"], run["study"], run["seed"], run["protocol"],
            f"{100 * run['test_error']:.2f}", f"{run['num_params']:,}",
            "not kept" if lost else f"{run['num_bytes'] / 1e6:.2f} MB", run["licence"],
        ]
        for run, lost in zip(table.to_dict("records"), missing, strict=True)
    ]  # fmt: skip
    head = ["network", "study", "seed", "trained for", "error %", "parameters", "file", "licence"]
    print_table(head, rows, right=(2, 4, 5, 6))
    print(
        "Error on the test images after the last epoch. Weights are in half precision; in Python:\n"
        "senet_lib.load_pretrained(network, seed, study)."
    )
    if missing.any():
        print(f"Not kept: {NOT_KEPT}; record, logits and history are there.")


@command(
    "Parameters and multiply-accumulates of the networks.",
    option("--model", nargs="+", metavar="NAME", help="default: every network"),
)
def _profile(arguments: argparse.Namespace) -> None:
    from senet_lib.models import create_model, input_size, list_models
    from senet_lib.profiling import profile_model

    rows = []
    for name in arguments.model or list_models():
        size = input_size(name)
        found = profile_model(create_model(name), size)
        counts = (found.num_params, found.macs, found.macs + found.bias_adds)
        rows.append([name, *(f"{count:,}" for count in counts), "x".join(map(str, size))])
    print_table(["model", "parameters", "MACs", "MACs + bias", "input"], rows, right=(1, 2, 3))
    print(
        "MACs: multiply-accumulates of convolutions and linear layers, one image, 10 classes.\n"
        "MACs + bias: these and one addition for each output of a layer with a bias. Published\n"
        "totals follow either rule (ResNet-56 is 125,747,840 or 125,747,850)."
    )


def _check_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise SenetError(f"{folder} is no folder, so there are no runs to read")


@command(
    "List the runs on disk.",
    option("where", nargs="*", metavar="KEY=VALUE",
            help="such as model=resnet20 status=finished"),
    ROOT,
)  # fmt: skip
def _runs(arguments: argparse.Namespace) -> None:
    from senet_lib.runs.records import DEFAULT_ROOT, list_runs, runs_folder

    where = pairs(arguments.where)
    if "root" in where:
        raise SenetError("unknown column 'root'; --root names the folder")
    if arguments.root != str(DEFAULT_ROOT):
        _check_folder(runs_folder(arguments.root))
    table = list_runs(arguments.root, **where)
    if table.empty:
        which = " with " + " ".join(arguments.where) if arguments.where else ""
        print(f"no run{which} below {arguments.root}")
        return
    head = ["study", "network", "seed", "status", "error %", "epochs", "precision", "minutes"]
    rows = []
    for run in table.to_dict("records"):
        found = [""] * 4
        if run["status"] == "finished":
            found = [f"{100 * run['test_error']:.2f}", run["recipe"]["epochs"], run["precision"],
                     f"{run['wall_seconds'] / 60:.1f}"]  # fmt: skip
        rows.append([*(run[name] for name in head[:4]), *found, run["path"]])
    print_table([*head, "path"], rows, right=(2, 4, 5, 7))
    for path, problem in table[table["problem"] != ""][["path", "problem"]].values:
        print(problem if problem.startswith(path) else f"{path}: {problem}")


@command(
    "What the sources claim, what was found, and the verdicts.",
    option("pattern", nargs="?", default="*", metavar="ID",
            help="one claim, or such as 'b-block-*'"),
    option("--json", action="store_true",
            help="a list of objects, with derivations and commands"),
    option("--runs", metavar="DIR", help="default: outputs/runs and outputs/published/runs"),
)  # fmt: skip
def _claims(arguments: argparse.Namespace) -> None:
    from senet_lib.claims.judge import counts, judge_all
    from senet_lib.runs import DEFAULT_ROOT

    if arguments.runs:
        _check_folder(Path(arguments.runs))
    judgements = judge_all(arguments.runs or DEFAULT_ROOT, arguments.pattern)
    if arguments.json:
        found = [judgement.to_dict() for judgement in judgements]
        print(json.dumps(found, indent=2, allow_nan=False))  # in ASCII, for any terminal
        return
    if len(judgements) == 1:
        for name, text in judgements[0].lines().items():
            print(f"{name:<12}{text}")
        return
    rows = []
    for j in judgements:
        last = j.derivation or j.remark
        last = last if len(last) <= 72 else f"{last[:69]}..."
        rows.append([j.claim.id, j.claim.claimed, j.measured or "-", j.verdict, last])
    print_table(["claim", "claimed", "measured", "verdict", "remark"], rows)
    found = ", ".join(f"{number} {verdict}" for verdict, number in counts(judgements).items())
    print(f"{len(judgements)} claims: {found}.")
    print("`senet claims ID` shows the arithmetic, the runs and the commands; --json, all of them.")


@command(
    "Open a study's report in the browser, and print where it is.",
    option("study", nargs="?", default="", help="default: the newest report"),
)
def _open(arguments: argparse.Namespace) -> None:
    import webbrowser

    pages = [page for root in map(anchored, REPORTS) for page in root.glob("*/index.html")]
    made = {page.parent.name: page for page in reversed(pages)}  # one's own before the published
    if not made:
        raise SenetError("there is no report yet; make one: make study")
    study = arguments.study or max(made, key=lambda name: made[name].stat().st_mtime)
    if study not in made:
        raise unknown("report", study, made)
    print(made[study].resolve())
    webbrowser.open(made[study].resolve().as_uri())


@command(
    "Write runs as TensorBoard's event files; then: tensorboard --logdir DIR",
    option("study", nargs="?", default="*", help="default: all of them"),
    ROOT,
    option("--logdir", default="outputs/tensorboard", metavar="DIR",
            help="default: outputs/tensorboard"),
    option("--gates", action=argparse.BooleanOptionalAction, default=True,
            help="histograms of the gates of finished runs, for which their data is read"),
)  # fmt: skip
def _tensorboard(arguments: argparse.Namespace) -> int:
    from senet_lib.runs.records import HISTORY, find_runs, runs_folder
    from senet_lib.tensorboard import write_run

    root = runs_folder(arguments.root)
    studies = {run: "".join(run.relative_to(root).parts[:1]) for run in find_runs(root, [HISTORY])}
    runs = [run for run, study in studies.items() if fnmatchcase(study, arguments.study)]
    if not runs:
        raise SenetError(f"no run of {arguments.study} below {arguments.root} has an epoch")
    left_out = 0
    for run in runs:
        try:
            print(write_run(run, arguments.logdir, gates=arguments.gates, root=root))
        except MissingDependencyError:
            raise
        except SenetError as error:
            left_out = 1
            print(f"{run} is left out: {error}", file=sys.stderr)
    return left_out
