"""The command `senet`.

Exit codes: 0 done (or stopped cleanly by --max-minutes), 1 failed or disagrees, 2 a mistake in
what was asked for, 129, 130 and 143 stopped by SIGHUP, SIGINT and SIGTERM at a checkpoint.
"""

import argparse
import dataclasses
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from senet_lib.errors import NonFiniteLossError, SenetError, is_out_of_memory
from senet_lib.recipe import COMPILE_MODES, DEVICES, LR_POLICIES, PRECISIONS, Recipe, load_study

if TYPE_CHECKING:
    from torch import nn

    from senet_lib.data.datasets import Dataset
    from senet_lib.runs.records import RunRecord
    from senet_lib.runs.weights import NetSpec

SIGNAL_CODES = {"SIGHUP": 129, "SIGINT": 130, "SIGTERM": 143}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    # Threads that wait for one another by spinning halve the speed as soon as anything else runs
    # on the machine. Read when torch is first imported, which no command has done yet.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    words = list(sys.argv[1:] if argv is None else argv)
    arguments = _parser().parse_args(words)
    arguments.words = words
    try:
        return arguments.run(arguments) or 0
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


class _Parser(argparse.ArgumentParser):
    """Says a mistake in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message} (see {self.prog} --help)\n")


def _parser() -> argparse.ArgumentParser:
    from senet_lib import __version__

    parser = _Parser(prog="senet", description="A study of channel attention on CIFAR-10.")
    parser.add_argument("--version", action="version", version=f"senet {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for add in (
        _add_data, _add_train, _add_evaluate, _add_models, _add_profile, _add_runs, _add_export,
        _add_notebook, _add_publish, _add_claims, _add_gradcam,
    ):  # fmt: skip
        add(commands)
    return parser


def _command(commands: Any, name: str, run: Any, text: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
    parser.set_defaults(run=run)
    return parser


def _add_data(commands: Any) -> None:
    parser = _command(commands, "data", _data, "Fetch and verify a dataset.")
    parser.add_argument("name", help="cifar10 or cifar100")


def _data(arguments: argparse.Namespace) -> None:
    from senet_lib.data.datasets import load_data, prepare

    path = prepare(arguments.name)
    dataset = load_data(arguments.name)
    print(f"{path}: {len(dataset.x_train):,} training and {len(dataset.x_test):,} test images")
    print(f"fingerprint {dataset.fingerprint}")


def _add_train(commands: Any) -> None:
    parser = _command(
        commands, "train", _train, "Train one network with one seed, or go on with it."
    )
    add = parser.add_argument
    add("--model", required=True, metavar="NAME", help="registry name; `senet models` lists them")
    add("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides",
        help="an argument of the model's builder, such as reduction=8")  # fmt: skip
    seeds = parser.add_mutually_exclusive_group()
    seeds.add_argument(
        "--seed", type=int, default=0, help="initialisation, order and augmentation (default 0)"
    )
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
    option = recipe.add_argument
    option("--epochs", type=int)
    option("--batch-size", type=int)
    option("--lr", type=float, help="peak learning rate")
    option("--lr-policy", choices=LR_POLICIES)
    option(
        "--schedule", type=int, nargs="*", metavar="EPOCH", help="epochs at which the rate falls"
    )
    option("--gamma", type=float, help="factor by which it falls")
    option("--warmup", type=float, help="share of the steps one_cycle rises for")
    option("--momentum", type=float)
    option("--nesterov", action=argparse.BooleanOptionalAction, default=None)
    option("--wd", "--weight-decay", type=float, dest="weight_decay")
    option("--padding", type=int, help="black pixels around the image before the random crop")
    option("--flip", type=float, help="probability of a horizontal flip")
    option("--label-smoothing", type=float)
    option("--cutout", type=int, metavar="PIXELS", help="side of a square covered in each image")
    option("--ema", type=float, metavar="DECAY", help="evaluate a running average of the weights")
    option("--train-images", type=int, metavar="N", help="train on N images alone; 0 takes all")
    machine = parser.add_argument_group("machine")
    option = machine.add_argument
    option("--device", choices=DEVICES)
    option("--precision", choices=PRECISIONS)
    option("--compile", choices=COMPILE_MODES)
    option("--threads", type=int, help="CPU threads; 0 takes all")
    option("--test-every", type=int, metavar="E",
           help="epochs between two evaluations; the last one is always evaluated")  # fmt: skip
    option("--max-minutes", type=float, metavar="M", help="stop at a checkpoint after M minutes")
    option("--checkpoint-minutes", type=float, default=2.0, metavar="M",
           help="longest time between checkpoints (default 2)")  # fmt: skip
    option("--progress", choices=("auto", "bar", "log", "none"), default="auto")


def _train(arguments: argparse.Namespace) -> int:
    settings = _train_settings(arguments)
    if arguments.seeds:
        from senet_lib.models import check_name
        from senet_lib.training.seeds import train_seeds

        if arguments.out:
            raise SenetError("--out names one run's folder; leave it out with --seeds")
        check_name(arguments.model)  # one line here, not one from each run
        words = _without(arguments.words[1:], ("--seeds", "--at-once", "--progress"))
        device = settings.get("device", "auto")
        threads = settings.get("threads")
        return train_seeds(words, arguments.seeds, arguments.at_once, device, threads)
    from senet_lib.training.fit import RunStopped, fit

    try:
        record = fit(
            model=arguments.model,
            seed=arguments.seed,
            out=arguments.out,
            overrides=_pairs(arguments.overrides),
            num_val=arguments.num_val,
            max_minutes=arguments.max_minutes,
            checkpoint_minutes=arguments.checkpoint_minutes,
            progress=arguments.progress,
            **settings,
        )
    except RunStopped as stopped:
        print(stopped)
        return SIGNAL_CODES.get(stopped.reason, 0)
    print(
        f"{record.evaluated_on} error {100 * record.test_error:.2f} % after "
        f"{record.recipe['epochs']} epochs; the record is in {record.path}"
    )
    return 0


def _without(words: Sequence[str], options: Sequence[str]) -> list[str]:
    """A command line without some options and their values."""
    kept, dropping = [], False
    for word in words:
        if word.startswith("--"):
            dropping = word.partition("=")[0] in options
        if not dropping:
            kept.append(word)
    return kept


def _train_settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """Recipe, data and the rest: the config's, replaced by what the command line says."""
    names = [f.name for f in dataclasses.fields(Recipe)]
    given = {k: getattr(arguments, k) for k in names if getattr(arguments, k) is not None}
    settings = {
        k: getattr(arguments, k)
        for k in ("data", "study", "device", "precision", "compile", "threads", "test_every")
    }
    settings = {k: v for k, v in settings.items() if v is not None}
    if not arguments.config:
        return {"recipe": Recipe.from_dict(given), **settings}
    study = load_study(arguments.config)
    recipe = Recipe.from_dict({**study.recipe.to_dict(), **given})
    same = recipe == study.recipe and settings.get("data", study.data) == study.data
    same = same and not arguments.overrides and not arguments.num_val
    if same:
        settings = {"study": study.study, "protocol": study.protocol, **settings}
    names = ("data", "device", "precision", "compile", "threads", "test_every")
    machine = {k: getattr(study, k) for k in names}
    return {"recipe": recipe, **machine, **settings}


def _add_evaluate(commands: Any) -> None:
    parser = _command(
        commands, "evaluate", _evaluate, "Measure the error of saved weights again, in fp32."
    )
    add = parser.add_argument
    add("--checkpoint", required=True, metavar="PATH",
        help="a run's folder, its weights.safetensors or its checkpoint.pt")  # fmt: skip
    add("--data", metavar="NAME_OR_PATH", help="default: what the run was trained on")
    add("--device", choices=DEVICES, default="auto")
    add("--batch-size", type=int, default=500)


def _evaluate(arguments: argparse.Namespace) -> int:
    import torch

    from senet_lib.device import Setup
    from senet_lib.evaluation import error_and_loss, predict

    if arguments.batch_size < 1:
        raise SenetError(f"--batch-size is {arguments.batch_size}; it must be at least 1")
    model, spec, record, dataset = _network_and_data(arguments.checkpoint, arguments.data)
    setup = Setup.choose(device=arguments.device, precision="fp32", compile="off", threads=0)
    model = model.to(setup.device, memory_format=torch.channels_last)
    logits = predict(
        model, dataset.x_test, spec.mean, spec.std, batch_size=arguments.batch_size
    ).cpu()
    error, loss = error_and_loss(logits, torch.from_numpy(dataset.y_test))
    wrong, total = round(error * len(logits)), len(logits)
    print(
        f"{spec.model}: error {100 * error:.2f} % ({wrong:,} of {total:,} wrong), loss {loss:.4f}, "
        f"on the {dataset.test_name} images of {dataset.name}"
    )
    if record is None:
        return 0
    if record.data_fingerprint != dataset.fingerprint:
        print("these are not the images of the record, so there is nothing to compare")
        return 0
    # Another machine or batch size rounds differently, and so may decide a near tie differently;
    # published weights were rounded to half precision, and the error of these stands beside.
    said = record.test_error
    if spec.half_precision and record.weights_error is not None:
        said = record.weights_error
    old = spec.half_precision and record.weights_error is None
    agrees = abs(error - said) <= max(2 / total, 2e-3 if old else 2e-4)
    verdict = "they agree" if agrees else "they do not agree"
    print(f"the record says {100 * said:.2f} %: {verdict}")
    return 0 if agrees else 1


def _network_and_data(
    checkpoint: str, data: str | None
) -> tuple["nn.Module", "NetSpec", "RunRecord | None", "Dataset"]:
    """A saved network, its record if there is one, and the named data or those of its training."""
    from senet_lib.data.datasets import hold_out, load_data
    from senet_lib.runs.records import RECORD, load_run
    from senet_lib.runs.weights import load_network

    path = Path(checkpoint)
    model, spec = load_network(path)
    folder = path if path.is_dir() else path.parent
    record = load_run(folder) if (folder / RECORD).is_file() else None
    if record:
        record.verify()
    source = data or spec.data or (record.data if record else "")
    if not source:
        raise SenetError(f"{path} does not say what it was trained on; name it with --data")
    dataset = load_data(source)
    if len(dataset.classes) != len(spec.classes):
        raise SenetError(
            f"{path} tells {len(spec.classes)} classes apart and {dataset.name} has "
            f"{len(dataset.classes)}; name its own data with --data"
        )
    num_val = record.num_val if record else spec.num_val
    if num_val and not data:
        dataset = hold_out(dataset, num_val)
    return model, spec, record, dataset


def _add_models(commands: Any) -> None:
    parser = _command(commands, "models", _models, "List the networks.")
    parser.add_argument("pattern", nargs="?", default="*", help="such as 'se_*'")
    parser.add_argument("--pretrained", action="store_true",
        help="the published weights instead: how they were trained, and their error")  # fmt: skip


def _models(arguments: argparse.Namespace) -> None:
    from senet_lib.models import describe, list_models

    if arguments.pretrained:
        _pretrained(arguments.pattern)
        return
    names = list_models(arguments.pattern)
    if not names:
        raise SenetError(f"no model matches {arguments.pattern!r}; `senet models` lists all")
    _print_table(["model", "what it is"], [[name, describe(name)] for name in names])


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
    _print_table(head, rows, right=(2, 4, 5, 6))
    print(
        "Error on the test images after the last epoch. Weights are in half precision; in Python:\n"
        "senet_lib.load_pretrained(network, seed, study)."
    )
    if missing.any():
        print(f"Not kept: {NOT_KEPT}; record, logits and history are there.")


def _add_profile(commands: Any) -> None:
    parser = _command(
        commands, "profile", _profile, "Parameters and multiply-accumulates of the networks."
    )
    parser.add_argument("--model", nargs="+", metavar="NAME", help="default: every network")


def _profile(arguments: argparse.Namespace) -> None:
    from senet_lib.models import create_model, input_size, list_models
    from senet_lib.profiling import profile_model

    rows = []
    for name in arguments.model or list_models():
        size = input_size(name)
        profile = profile_model(create_model(name), size)
        shape = "x".join(map(str, size))
        with_bias = profile.macs + profile.bias_adds
        rows.append([name, f"{profile.num_params:,}", f"{profile.macs:,}", f"{with_bias:,}", shape])
    head = ["model", "parameters", "MACs", "MACs + bias", "input"]
    _print_table(head, rows, right=(1, 2, 3))
    print(
        "MACs: multiply-accumulates of convolutions and linear layers, one image, 10 classes.\n"
        "MACs + bias: these and one addition for each output of a layer with a bias. Published\n"
        "totals follow either rule (ResNet-56 is 125,747,840 or 125,747,850)."
    )


def _add_runs(commands: Any) -> None:
    parser = _command(commands, "runs", _runs, "List the runs on disk.")
    add = parser.add_argument
    add("where", nargs="*", metavar="KEY=VALUE", help="such as model=resnet20 status=finished")
    add("--root", default="outputs/runs", metavar="DIR", help="default: outputs/runs")


def _runs(arguments: argparse.Namespace) -> None:
    from senet_lib.runs.records import list_runs

    table = list_runs(arguments.root, **_pairs(arguments.where))
    if table.empty:
        which = " with " + " ".join(arguments.where) if arguments.where else ""
        print(f"no run{which} below {arguments.root}")
        return
    rows = []
    for run in table.to_dict("records"):
        done = run["status"] == "finished"
        rows.append([
            run["study"], run["model"], run["seed"], run["status"],
            f"{100 * run['test_error']:.2f}" if done else "",
            f"{run['recipe']['epochs']}" if done else "",
            run["precision"] if done else "",
            f"{run['wall_seconds'] / 60:.1f}" if done else "",
            run["path"],
        ])  # fmt: skip
    head = ["study", "model", "seed", "status", "error %", "epochs", "precision", "minutes", "path"]
    _print_table(head, rows, right=(2, 4, 5, 7))
    for path, problem in table[table["problem"] != ""][["path", "problem"]].values:
        print(problem if problem.startswith(path) else f"{path}: {problem}")


def _add_export(commands: Any) -> None:
    parser = _command(commands, "export", _export, "Write a network for use elsewhere.")
    add = parser.add_argument
    add("--checkpoint", required=True, metavar="PATH", help="as for `senet evaluate`")
    add("--format", required=True, choices=("onnx", "torchscript", "pt2"))
    add("--out", metavar="PATH", help="default: <model>.<format> beside the checkpoint")


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


def _add_notebook(commands: Any) -> None:
    parser = _command(
        commands, "notebook", _notebook, "Run a notebook with parameters, whole or not at all."
    )
    add = parser.add_argument
    add("name", help="train, report, or the path of a notebook")
    add("--out", metavar="PATH.ipynb", help="the executed notebook (required to run)")
    add("--html", metavar="PATH.html", help="also as one self-contained page")
    add("-p", "--parameter", action="append", default=[], metavar="KEY=VALUE", dest="parameters",
        help="checked against the notebook's own by name and type; repeatable")  # fmt: skip
    add("--help-parameters", action="store_true", help="list the notebook's parameters and leave")


def _notebook(arguments: argparse.Namespace) -> int:
    from senet_lib.report.batch import (
        NotebookFailedError,
        describe_parameters,
        execute,
        parse_parameters,
    )

    if arguments.help_parameters:
        rows = [
            [p.name, p.kind, repr(p.default), p.help] for p in describe_parameters(arguments.name)
        ]
        _print_table(["parameter", "type", "default", "what it is"], rows)
        return 0
    if not arguments.out:
        raise SenetError("the executed notebook needs a place: --out PATH.ipynb")
    html = Path(arguments.html) if arguments.html else None
    try:
        execute(
            arguments.name, Path(arguments.out), parse_parameters(arguments.parameters), html=html
        )
    except NotebookFailedError as error:
        print(f"failed: {error}", file=sys.stderr)
        return 1
    print(arguments.html or arguments.out)
    return 0


def _add_publish(commands: Any) -> None:
    parser = _command(
        commands, "publish", _publish, "Copy a study's finished runs and report to keep them."
    )
    add = parser.add_argument
    add("study", help="its name, a folder below the root")
    add("--config", default="", metavar="YAML", help="its settings, to name what is missing")
    add("--root", default="outputs/runs", metavar="DIR", help="default: outputs/runs")
    add("--target", default="outputs/published", metavar="DIR", help="default: outputs/published")
    words = "runs whose weights and notebook are kept too, such as 'se_*/seed0'; default: all"
    add("--keep", nargs="*", default=["*"], metavar="RUN", help=words)


def _publish(arguments: argparse.Namespace) -> int:
    from senet_lib.report.batch import NotebookFailedError
    from senet_lib.report.publish import publish_report, publish_study

    for copy in publish_study(arguments.study, arguments.root, arguments.target, arguments.keep):
        print(copy)
    try:
        print(publish_report(arguments.study, arguments.config, arguments.target))
    except NotebookFailedError as error:
        print(f"failed: {error}", file=sys.stderr)
        return 1
    return 0


def _add_claims(commands: Any) -> None:
    parser = _command(
        commands, "claims", _claims, "What the sources claim, what was found, and the verdicts."
    )
    add = parser.add_argument
    add("pattern", nargs="?", default="*", metavar="ID", help="one claim, or such as 'b-block-*'")
    add("--json", action="store_true", help="a list of objects, with derivations and commands")
    add("--runs", metavar="DIR", help="default: outputs/runs and outputs/published/runs")


def _claims(arguments: argparse.Namespace) -> None:
    import json

    from senet_lib.analysis.scores import all_scores
    from senet_lib.claims.claim import load_claims
    from senet_lib.claims.evidence import claim_runs
    from senet_lib.claims.judge import counts, judge

    claims = load_claims(arguments.pattern)
    roots = [arguments.runs] if arguments.runs else []
    scores = all_scores(*(Path(root).parent / "reports" for root in roots))
    judgements = judge(claims, claim_runs(*roots), scores)
    if arguments.json:
        fields = [judgement.to_dict() for judgement in judgements]
        print(json.dumps(fields, indent=2, ensure_ascii=False, allow_nan=False))
        return
    if len(judgements) == 1:
        for name, text in judgements[0].lines().items():
            print(f"{name:<12}{text}")
        return
    rows = [
        [j.claim.id, j.claim.claimed, j.measured or "-", j.verdict, j.derivation or j.remark]
        for j in judgements
    ]
    _print_table(["claim", "claimed", "measured", "verdict", "remark"], _shortened(rows))
    found = ", ".join(f"{number} {verdict}" for verdict, number in counts(judgements).items())
    print(f"{len(judgements)} claims: {found}.")
    print("`senet claims ID` shows the arithmetic, the runs and the commands; --json, all of them.")


def _add_gradcam(commands: Any) -> None:
    parser = _command(
        commands,
        "gradcam",
        _gradcam,
        "Write a page of images with class activation maps: right and wrong cases of each class.",
    )
    add = parser.add_argument
    add("--checkpoint", required=True, metavar="PATH", help="as for `senet evaluate`")
    add("--out-dir", required=True, metavar="DIR", help="where index.html and the PNGs go")
    add("--data", metavar="NAME_OR_PATH", help="default: what the run was trained on")
    add("--method", default="gradcam",
        help="gradcam (default), gradcam++, layercam, hirescam, scorecam or eigencam")  # fmt: skip
    add("--layer", default="last",
        help="stage1, stage2, ..., any module's dotted name, "
        "or last: the one before the pooling (default)")  # fmt: skip
    add("--per-class", type=int, default=3, metavar="N",
        help="right cases of each class, and wrong ones likewise (default 3)")  # fmt: skip


def _gradcam(arguments: argparse.Namespace) -> None:
    import torch

    from senet_lib.device import Setup
    from senet_lib.report.gallery import write_gallery

    if arguments.per_class < 1:
        raise SenetError(f"--per-class is {arguments.per_class}; it must be at least 1")
    model, spec, _, dataset = _network_and_data(arguments.checkpoint, arguments.data)
    setup = Setup.choose(device="auto", precision="fp32", compile="off", threads=0)
    page = write_gallery(
        model.to(setup.device, memory_format=torch.channels_last),
        dataset,
        arguments.out_dir,
        name=spec.model,
        mean=spec.mean,
        std=spec.std,
        method=arguments.method,
        layer=arguments.layer,
        per_class=arguments.per_class,
    )
    print(page)


def _shortened(rows: Sequence[Sequence[str]], width: int = 72) -> list[list[str]]:
    """The rows with their last cell cut to so many characters."""
    return [
        [*row[:-1], row[-1] if len(row[-1]) <= width else f"{row[-1][: width - 3]}..."]
        for row in rows
    ]


def _pairs(texts: Sequence[str]) -> dict[str, Any]:
    """key=value texts, the values read as YAML reads them (8 is a number, true is true)."""
    import yaml

    pairs = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise SenetError(f"{text!r} is not of the form key=value")
        try:
            pairs[key] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise SenetError(f"the value of {text!r} is not readable; put it in quotes") from None
    return pairs


def _print_table(
    head: Sequence[str], rows: Sequence[Sequence[Any]], right: Sequence[int] = ()
) -> None:
    texts = [[str(cell) for cell in row] for row in (head, *rows)]
    widths = [max(len(row[i]) for row in texts) for i in range(len(head))]
    for row in texts:
        cells = [
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        print("  ".join(cells).rstrip())


if __name__ == "__main__":
    sys.exit(main())
