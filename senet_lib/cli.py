"""The command `senet`.

Exit codes: 0 done (or stopped cleanly by --max-minutes), 1 failed or disagrees, 2 a mistake in
what was asked for, 129, 130 and 143 stopped by SIGHUP, SIGINT and SIGTERM at a checkpoint.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from senet_lib import errors
from senet_lib.errors import NonFiniteLossError, SenetError, is_out_of_memory
from senet_lib.options import (
    command,
    make_parser,
    option,
    pairs,
    print_table,
    speak,
    train_options,
    train_settings,
    without,
)
from senet_lib.recipe import DEVICES, check_study, load_study

SIGNAL_CODES = {"SIGHUP": 129, "SIGINT": 130, "SIGTERM": 143}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    # Threads that wait for one another by spinning halve the speed as soon as anything else runs
    # on the machine. Read when torch is first imported, which no command has done yet.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    speak()
    words = list(sys.argv[1:] if argv is None else argv)
    arguments = make_parser().parse_args(words)
    arguments.words = words
    try:
        code = arguments.run(arguments) or 0
        if sys.stdout:
            sys.stdout.flush()
        return code
    except SenetError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        print(f"error: {error.filename or 'file'}: {error.strerror or error}", file=sys.stderr)
        return 2
    except NonFiniteLossError as error:
        print(f"failed: {error}", file=sys.stderr)
        return 1
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        reason = str(error).partition("\n")[0] or "there is too little memory"
        print(f"failed: {reason}", file=sys.stderr)
        return 1
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("senet_lib"):
            raise
        print(f"error: this command needs the package {error.name}; "
              f"install it, or the whole study with: pip install .", file=sys.stderr)  # fmt: skip
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


CHECKPOINT = option("--checkpoint", required=True, metavar="PATH",
    help="a run's folder, its weights.safetensors or its checkpoint.pt")  # fmt: skip
OWN_DATA = option("--data", default="", metavar="NAME_OR_PATH",
    help="default: what the run was trained on")  # fmt: skip
ROOT = option("--root", default="outputs/runs", metavar="DIR", help="default: outputs/runs")


@command("Fetch and verify a dataset.", option("name", help="cifar10 or cifar100"))
def _data(arguments: argparse.Namespace) -> None:
    from senet_lib.data import load_data, prepare

    path = prepare(arguments.name)
    dataset = load_data(arguments.name)
    print(f"{path}: {len(dataset.x_train):,} training and {len(dataset.x_test):,} test images")
    print(f"fingerprint {dataset.fingerprint}")


@command("Train one network with one seed, or go on with it.", train_options)
def _train(arguments: argparse.Namespace) -> int:
    settings = train_settings(arguments)
    if arguments.seeds:
        return _train_seeds(arguments, settings)
    from senet_lib.training.fit import RunStopped, fit

    try:
        names = ("model", "seed", "out", "num_val", "max_minutes", "checkpoint_minutes", "progress")
        settings |= {name: getattr(arguments, name) for name in names}
        record = fit(overrides=pairs(arguments.overrides), **settings)
    except RunStopped as stopped:
        print(stopped)
        return SIGNAL_CODES.get(stopped.reason, 0)
    print(
        f"{record.evaluated_on} error {100 * record.test_error:.2f} % after "
        f"{record.recipe['epochs']} epochs; the record is in {record.path}"
    )
    return 0


def _train_seeds(arguments: argparse.Namespace, settings: dict[str, Any]) -> int:
    """One process for each seed."""
    from senet_lib.models import check_name
    from senet_lib.training.seeds import train_seeds

    if arguments.out:
        raise SenetError("--out names one run's folder; leave it out with --seeds")
    check_name(arguments.model)  # one line here, not one from each run
    if arguments.study is not None:
        check_study(arguments.study)
    words = without(arguments.words[1:], ("--seeds", "--at-once", "--progress"))
    device = settings.get("device", "auto")
    threads = settings.get("threads")
    return train_seeds(words, arguments.seeds, arguments.at_once, device, threads)


@command(
    "Measure the error of saved weights again, in fp32.", CHECKPOINT, OWN_DATA,
    option("--device", choices=DEVICES, default="auto"),
    option("--batch-size", type=int, default=500, metavar="N", help="images at a time"),
)  # fmt: skip
def _evaluate(arguments: argparse.Namespace) -> int:
    from senet_lib.runs.evaluate import evaluate

    found = evaluate(arguments.checkpoint, arguments.data,
                     device=arguments.device, batch_size=arguments.batch_size)  # fmt: skip
    data, total = found.dataset, len(found.dataset.x_test)
    wrong = f"{100 * found.error:.2f} % ({round(found.error * total):,} of {total:,} wrong)"
    where = f"the {data.test_name} images of {data.name}"
    print(f"{found.spec.model}: error {wrong}, loss {found.loss:.4f}, on {where}")
    if found.recorded is not None:
        verdict = "they agree" if found.agrees else "they do not agree"
        print(f"the record says {100 * found.recorded:.2f} %: {verdict}")
    elif arguments.data:
        print("there is no record of these images, so there is nothing to compare")
    return 0 if found.agrees else 1


@command(
    "List the networks.",
    option("pattern", nargs="?", default="*", help="such as 'se_*'"),
    option("--pretrained", action="store_true",
            help="the published weights instead: how they were trained, and their error"),
)  # fmt: skip
def _models(arguments: argparse.Namespace) -> None:
    from senet_lib.models import describe, list_models

    if arguments.pretrained:
        _pretrained(arguments.pattern)
        return
    names = list_models(arguments.pattern)
    if not names:
        raise SenetError(f"no model matches {arguments.pattern!r}; `senet models` lists all")
    print_table(["model", "what it is"], [[name, describe(name)] for name in names])


def _pretrained(pattern: str) -> None:
    from senet_lib.runs.published import NOT_KEPT, list_pretrained

    table = list_pretrained(pattern)
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


@command(
    "List the runs on disk.",
    option("where", nargs="*", metavar="KEY=VALUE",
            help="such as model=resnet20 status=finished"),
    ROOT,
)  # fmt: skip
def _runs(arguments: argparse.Namespace) -> None:
    from senet_lib.runs.records import list_runs

    table = list_runs(arguments.root, **pairs(arguments.where))
    if table.empty:
        which = " with " + " ".join(arguments.where) if arguments.where else ""
        print(f"no run{which} below {arguments.root}")
        return
    head = ["study", "model", "seed", "status", "error %", "epochs", "precision", "minutes", "path"]
    rows = [_run_row(run) for run in table.to_dict("records")]
    print_table(head, rows, right=(2, 4, 5, 7))
    for path, problem in table[table["problem"] != ""][["path", "problem"]].values:
        print(problem if problem.startswith(path) else f"{path}: {problem}")


def _run_row(run: dict[str, Any]) -> list[Any]:
    found = ["", "", "", ""]
    if run["status"] == "finished":
        found = [f"{100 * run['test_error']:.2f}", run["recipe"]["epochs"], run["precision"],
                 f"{run['wall_seconds'] / 60:.1f}"]  # fmt: skip
    return [run["study"], run["model"], run["seed"], run["status"], *found, run["path"]]


@command(
    "Write a network for use elsewhere.", CHECKPOINT,
    option("--format", required=True, choices=("onnx", "torchscript", "pt2")),
    option("--out", metavar="PATH", help="default: <model>.<format> beside the checkpoint"),
)  # fmt: skip
def _export(arguments: argparse.Namespace) -> None:
    from senet_lib.export import export_model
    from senet_lib.models import input_size
    from senet_lib.runs.weights import load_network

    source = Path(arguments.checkpoint)
    model, spec = load_network(source)
    ending = {"onnx": "onnx", "torchscript": "ts", "pt2": "pt2"}[arguments.format]
    folder = source if source.is_dir() else source.parent
    out = Path(arguments.out) if arguments.out else folder / f"{spec.model}.{ending}"
    export_model(model, out, arguments.format, input_size(spec.model))
    print(out)
    print(f"input: RGB in [0, 1], minus mean {list(spec.mean)}, over std {list(spec.std)}")


@command(
    "Run a notebook with parameters, whole or not at all.",
    option("name", help="train, report, or the path of a notebook"),
    option("--out", metavar="PATH.ipynb", help="the executed notebook (required to run)"),
    option("--html", metavar="PATH.html", help="also as one self-contained page"),
    option("-p", "--parameter", action="append", default=[], metavar="KEY=VALUE",
            dest="parameters",
            help="checked against the notebook's own by name and type; repeatable"),
    option("--help-parameters", action="store_true",
            help="list the notebook's parameters and leave"),
)  # fmt: skip
def _notebook(arguments: argparse.Namespace) -> int:
    from senet_lib.report.batch import NotebookFailedError, execute, parse_parameters

    if arguments.help_parameters:
        return _help_parameters(arguments.name)
    if not arguments.out:
        raise SenetError("the executed notebook needs a place: --out PATH.ipynb")
    parameters = parse_parameters(arguments.parameters)
    try:
        execute(arguments.name, Path(arguments.out), parameters, html=arguments.html)
    except NotebookFailedError as error:
        return _failed(error)
    print(arguments.html or arguments.out)
    return 0


def _help_parameters(name: str) -> int:
    from senet_lib.report.batch import describe_parameters

    rows = [[p.name, p.kind, repr(p.default), p.help] for p in describe_parameters(name)]
    print_table(["parameter", "type", "default", "what it is"], rows)
    return 0


def _failed(error: Any) -> int:
    """Say why a notebook failed: 2 for what a cell calls a mistake in what was asked for."""
    print(f"failed: {error}", file=sys.stderr)
    kind = getattr(errors, error.error, None)
    return 2 if isinstance(kind, type) and issubclass(kind, SenetError) else 1


@command(
    "Copy a study's finished runs and report to keep them.",
    option("study", help="its name, a folder below the root"),
    option("--config", default="", metavar="YAML", help="its settings, to name what is missing"),
    ROOT,
    option("--target", default="outputs/published", metavar="DIR",
            help="default: outputs/published"),
    option("--keep", nargs="*", default=["*"], metavar="RUN",
            help="runs whose weights and notebook are kept too, such as 'se_*/seed0'; "
            "default: all"),
)  # fmt: skip
def _publish(arguments: argparse.Namespace) -> int:
    from senet_lib.report.batch import NotebookFailedError
    from senet_lib.report.publish import publish_report, publish_study

    study, target = check_study(arguments.study), arguments.target
    if arguments.config:
        load_study(arguments.config)  # a mistake in it is said before anything is copied
    for copy in publish_study(study, arguments.root, target, arguments.keep):
        print(copy)
    try:
        print(publish_report(study, arguments.config, target))
    except NotebookFailedError as error:
        return _failed(error)
    return 0


@command(
    "What the sources claim, what was found, and the verdicts.",
    option("pattern", nargs="?", default="*", metavar="ID",
            help="one claim, or such as 'b-block-*'"),
    option("--json", action="store_true",
            help="a list of objects, with derivations and commands"),
    option("--runs", metavar="DIR", help="default: outputs/runs and outputs/published/runs"),
)  # fmt: skip
def _claims(arguments: argparse.Namespace) -> None:
    from senet_lib.analysis.scores import all_scores
    from senet_lib.claims.claim import load_claims
    from senet_lib.claims.evidence import claim_runs
    from senet_lib.claims.judge import judge

    claims = load_claims(arguments.pattern)
    roots = [arguments.runs] if arguments.runs else []
    scores = all_scores(*(Path(root).parent / "reports" for root in roots))
    judgements = judge(claims, claim_runs(*roots), scores)
    if arguments.json:
        fields = [judgement.to_dict() for judgement in judgements]
        print(json.dumps(fields, indent=2, allow_nan=False))  # in ASCII, for any terminal
    elif len(judgements) == 1:
        for name, text in judgements[0].lines().items():
            print(f"{name:<12}{text}")
    else:
        _print_judgements(judgements)


def _print_judgements(judgements: Sequence[Any], width: int = 72) -> None:
    """A table with its last column cut to so many characters, and the counts."""
    from senet_lib.claims.judge import counts

    rows = []
    for j in judgements:
        last = j.derivation or j.remark
        last = last if len(last) <= width else f"{last[: width - 3]}..."
        rows.append([j.claim.id, j.claim.claimed, j.measured or "-", j.verdict, last])
    print_table(["claim", "claimed", "measured", "verdict", "remark"], rows)
    found = ", ".join(f"{number} {verdict}" for verdict, number in counts(judgements).items())
    print(f"{len(judgements)} claims: {found}.")
    print("`senet claims ID` shows the arithmetic, the runs and the commands; --json, all of them.")


@command(
    "Write a page of images with class activation maps: right and wrong cases of each class.",
    CHECKPOINT,
    option("--out-dir", required=True, metavar="DIR", help="where index.html and the PNGs go"),
    OWN_DATA,
    option("--method", default="gradcam",
            help="gradcam (default), gradcam++, layercam, hirescam, scorecam or eigencam"),
    option("--layer", default="last",
            help="stage1, stage2, ..., any module's dotted name, "
            "or last: the one before the pooling (default)"),
    option("--per-class", type=int, default=3, metavar="N",
            help="right cases of each class, and wrong ones likewise (default 3)"),
)  # fmt: skip
def _gradcam(arguments: argparse.Namespace) -> None:
    import torch

    from senet_lib.device import Setup
    from senet_lib.report.gallery import write_gallery
    from senet_lib.runs.evaluate import network_and_images

    if arguments.per_class < 1:
        raise SenetError(f"--per-class is {arguments.per_class}; it must be at least 1")
    model, spec, _, dataset = network_and_images(arguments.checkpoint, arguments.data)
    setup = Setup.choose(device="auto", precision="fp32", compile="off", threads=0)
    model = model.to(setup.device, memory_format=torch.channels_last)
    chosen = {name: getattr(arguments, name) for name in ("method", "layer", "per_class")}
    about = {"name": spec.model, "mean": spec.mean, "std": spec.std}
    print(write_gallery(model, dataset, arguments.out_dir, **about, **chosen))


if __name__ == "__main__":
    sys.exit(main())
