"""The command `senet`.

Exit codes: 0 done (or stopped cleanly by --max-minutes), 1 failed or disagrees, 2 a mistake in
what was asked for, 129, 130 and 143 stopped by SIGHUP, SIGINT and SIGTERM at a checkpoint, 141
ended where nobody reads on.
"""

import argparse
import os
import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from senet_lib import errors, plugins
from senet_lib.errors import SenetError
from senet_lib.files import anchored
from senet_lib.listing import ROOT, print_table
from senet_lib.options import (
    command,
    find_config,
    make_parser,
    option,
    pairs,
    said,
    speak,
    split_pairs,
    train_options,
    train_settings,
)
from senet_lib.recipe import DEVICES, check_study

SIGNAL_CODES = {"SIGHUP": 129, "SIGINT": 130, "SIGTERM": 143}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    # Threads that wait for one another by spinning halve the speed as soon as anything else runs
    # on the machine. Read when torch is first imported, which no command has done yet.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # it was closed
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115
    speak()
    # A shell knows ~ in `--out ~/x` and not in `--out=~/x`.
    words = [re.sub("(?<==)~(?=/|$).*", lambda path: os.path.expanduser(path[0]), word)
             for word in (sys.argv[1:] if argv is None else argv)]  # fmt: skip
    parser = make_parser()
    if any(re.fullmatch("(--[a-z-]+=)?", word) for word in words):
        parser.error("a word or an option's value is empty; is a shell variable not set?")
    arguments = parser.parse_args(words)
    arguments.words = words
    try:
        plugins.use(arguments.plugins)
        code = arguments.run(arguments) or 0
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141  # as of any command that SIGPIPE ends
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except errors.RunStopped as stopped:
        print(stopped)
        return SIGNAL_CODES.get(stopped.reason, 0)
    except Exception as error:
        if not (line := said(error)):
            raise
        print(line, file=sys.stderr)
        return getattr(error, "exit_code", 2 if line.startswith("error: ") else 1)


CHECKPOINT = option("--checkpoint", required=True, metavar="PATH",
    help="a run's folder, its weights.safetensors or its checkpoint.pt, or a published "
    "network's name")  # fmt: skip
OWN_DATA = option("--data", default="", metavar="NAME_OR_PATH",
    help="default: what the run was trained on")  # fmt: skip


@command("Fetch and verify a dataset.", option("name", help="cifar10 or cifar100"))
def _data(arguments: argparse.Namespace) -> None:
    from senet_lib.data.datasets import load_data, prepare

    path = prepare(arguments.name)
    dataset = load_data(arguments.name)
    print(f"{path}: {len(dataset.x_train):,} training and {len(dataset.x_test):,} test images")
    print(f"fingerprint {dataset.fingerprint}")


@command("Train one network with one seed, or go on with it.", train_options)
def _train(arguments: argparse.Namespace) -> int:
    settings = train_settings(arguments)
    if arguments.seeds:
        return _train_seeds(arguments, settings)
    if arguments.at_once:
        raise SenetError("--at-once is of several runs; name them with --seeds")
    from senet_lib.tensorboard import write_run
    from senet_lib.training.fit import fit

    names = ("model", "seed", "out", "num_val", "max_minutes", "checkpoint_minutes", "progress")
    settings |= {name: getattr(arguments, name) for name in names}
    with ExitStack() as stack:
        if arguments.tensorboard:
            settings["on_epoch"] = _event_writer(arguments.tensorboard, stack)
        record = fit(overrides=pairs(arguments.overrides), **settings)
    if arguments.tensorboard:
        write_run(record.path, arguments.tensorboard, gates=False)  # with the settings
    print(
        f"{record.evaluated_on} error {100 * record.test_error:.2f} % after "
        f"{errors.counted(record.recipe['epochs'], 'epoch')}; the record is in {record.path}"
    )
    return 0


def _event_writer(logdir: str, stack: ExitStack) -> Any:
    """What writes each epoch's numbers for TensorBoard, of a resumed run those before it too."""
    from senet_lib.tensorboard import add_epoch, event_file, events_of

    errors.need("tensorboard", "tensorboard")  # what cannot be is said before the first epoch
    Path(logdir).mkdir(parents=True, exist_ok=True)
    writer = None

    def tell(history: Sequence[Mapping[str, float]], _: object, run: Path) -> None:
        nonlocal writer
        rows = history[-1:] if writer else history
        writer = writer or stack.enter_context(event_file(events_of(run, logdir)))
        for row in rows:
            add_epoch(writer, row)
        writer.flush()

    return tell


def _train_seeds(arguments: argparse.Namespace, settings: dict[str, Any]) -> int:
    """One process for each seed."""
    from senet_lib.models import check_name
    from senet_lib.training.seeds import train_seeds

    if arguments.out:
        raise SenetError("--out names one run's folder; leave it out with --seeds")
    check_name(arguments.model)  # one line here, not one from each run
    ours = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    ours.add_argument("--seeds", nargs="+")
    ours.add_argument("--at-once")
    ours.add_argument("--progress")
    ours.add_argument("--max-minutes")
    words = ours.parse_known_args(arguments.words[1:])[1]  # without these
    words += ["--progress", "none"] if arguments.progress == "none" else []
    about = {"device": settings.get("device", "auto"), "threads": settings.get("threads")}
    about["max_minutes"] = arguments.max_minutes
    return train_seeds(words, arguments.seeds, arguments.at_once, **about)


@command(
    "Measure the error of saved weights again, in fp32.", CHECKPOINT, OWN_DATA,
    option("--device", choices=DEVICES, default="auto"),
    option("--batch-size", type=int, metavar="N",
           help="images at a time; default: 50 on a CPU, else 500"),
)  # fmt: skip
def _evaluate(arguments: argparse.Namespace) -> int:
    from senet_lib.runs.evaluate import evaluate

    found = evaluate(arguments.checkpoint, arguments.data,
                     device=arguments.device, batch_size=arguments.batch_size)  # fmt: skip
    data, total = found.dataset, len(found.dataset.x_test)
    wrong = f"{100 * found.error:.2f} % ({round(found.error * total):,} of {total:,} wrong)"
    where = f"the {data.test_name} images of {data.name}"
    print(f"{found.spec.network}: error {wrong}, loss {found.loss:.4f}, on {where}")
    if found.recorded is not None:
        verdict = "they agree" if found.agrees else "they do not agree"
        print(f"the record says {100 * found.recorded:.2f} %: {verdict}")
    elif arguments.data:
        print("there is no record of these images, so there is nothing to compare")
    return 0 if found.agrees else 1


@command(
    "Write a network for use elsewhere.", CHECKPOINT,
    option("--format", required=True, choices=("onnx", "torchscript", "pt2")),
    option("--out", metavar="PATH", help="default: the model's name with "
            ".onnx, .ts or .pt2, beside the checkpoint; of a published network, here"),
    option("--normalised", action="store_true",
            help="put the normalisation inside: the input is then RGB in [0, 1]"),
)  # fmt: skip
def _export(arguments: argparse.Namespace) -> None:
    from senet_lib.data.pictures import SIZE
    from senet_lib.export import SUFFIXES, Normalised, export_model, latency_ms, load_exported
    from senet_lib.runs.evaluate import saved_at
    from senet_lib.runs.weights import load_network

    source = Path(arguments.checkpoint)
    model, spec = load_network(saved_at(source))
    folder = source if source.is_dir() else source.parent
    usual = folder / (spec.network + SUFFIXES[arguments.format])
    out = Path(arguments.out) if arguments.out else usual
    size, about = (len(spec.mean), SIZE, SIZE), {"mean": spec.mean, "std": spec.std}
    if arguments.normalised:
        model = Normalised(model, spec.mean, spec.std).eval()
        about = {"mean": (0.0,) * size[0], "std": (1.0,) * size[0]}
    about |= {"model": spec.network, "classes": spec.classes, "input_size": size}
    export_model(model, out, arguments.format, size, about)
    print(out)
    outside = f", minus mean {list(spec.mean)}, over std {list(spec.std)}"
    print(f"input: RGB in [0, 1]{'' if arguments.normalised else outside}")
    written = load_exported(out)[0]
    times = [latency_ms(run, size) for run in (model, written)]
    size_mb = out.stat().st_size / 1e6
    print(f"{size_mb:.2f} MB; one image takes {times[1]:.2f} ms, here {times[0]:.2f}")


@command(
    "Say what a network sees in pictures.",
    option("images", nargs="+", metavar="IMAGE", help="of any size, and of any kind Pillow reads"),
    option("--model", required=True, metavar="NETWORK",
            help="a run's folder, its weights, an exported file, or a published network's name"),
    option("--top", type=int, default=3, metavar="N", help="classes of each picture (default 3)"),
)  # fmt: skip
def _predict(arguments: argparse.Namespace) -> None:
    from senet_lib.evaluation import probability_text
    from senet_lib.runs.evaluate import classify

    if arguments.top < 1:
        raise SenetError(f"--top is {arguments.top}; it must be at least 1")
    found, classes = classify(arguments.model, arguments.images)
    rows = []
    for name, row in zip(arguments.images, found, strict=True):
        best = row.argsort()[::-1][: arguments.top]
        rows.append([name, *(f"{classes[k]} {probability_text(row[k])}" for k in best)])
    print_table(["image", *(f"{i}." for i in range(1, len(rows[0])))], rows)


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
def _notebook(arguments: argparse.Namespace) -> None:
    from senet_lib.report import batch

    if arguments.help_parameters:
        about = batch.describe_parameters(arguments.name)
        rows = [[p.name, p.kind, repr(p.default), p.help] for p in about]
        print_table(["parameter", "type", "default", "what it is"], rows)
        return
    if not arguments.out:
        raise SenetError("the executed notebook needs a place: --out PATH.ipynb")
    parameters = split_pairs(arguments.parameters)
    batch.execute(arguments.name, Path(arguments.out), parameters, html=arguments.html)
    print(arguments.html or arguments.out)


@command(
    "Do what is missing of a study: train its networks, look at them, write the report.",
    option("config", help="its YAML file, or the name of one in configs/"),
    option("--cores", default="all", metavar="N", help="of this machine's (default: all)"),
)  # fmt: skip
def _study(arguments: argparse.Namespace) -> int:
    from senet_lib.workflow import run_study

    config, top = find_config(arguments.config), anchored(".")
    if not config.is_absolute():
        config = Path(os.path.relpath(config, top))
    os.chdir(top)  # where Snakemake works
    return run_study(config, arguments.cores)


@command(
    "Choose recipe and network on held-out training images, with Optuna.",
    option("config", help="the sweep's YAML file, or the name of one in configs/"),
    option("--workers", type=int, default=1, metavar="N",
            help="processes that share the trials (default 1); the same command elsewhere joins"),
    option("--threads", type=int, metavar="N", help="of each run; default: what the file says"),
    option("--root", default="outputs/sweeps", metavar="DIR", help="default: outputs/sweeps"),
)  # fmt: skip
def _sweep(arguments: argparse.Namespace) -> int:
    from senet_lib.runs.provenance import cores
    from senet_lib.sweep import load_sweep, open_sweep, run_sweep
    from senet_lib.training.seeds import side_by_side

    workers, root = arguments.workers, arguments.root
    if workers < 1:
        raise SenetError(f"--workers is {workers}; it must be at least 1")
    sweep = load_sweep(find_config(arguments.config))
    if arguments.threads is not None:
        sweep = replace(sweep, threads=check_study(arguments.threads, "threads"))
    if workers > 1:
        open_sweep(sweep, root)  # a mistake is said once, and the file is there for all
        threads = sweep.threads or max(1, cores() // workers)
        words = ["sweep", arguments.config, "--root", root, "--threads", str(threads)]
        names = [f"worker {number + 1}" for number in range(workers)]
        return side_by_side(dict.fromkeys(names, words), workers)
    study = run_sweep(sweep, root)
    told = [trial for trial in study.trials if trial.value is not None]  # the killed have none
    if finished := [trial for trial in told if "command" in trial.user_attrs]:
        best = min(finished, key=lambda trial: trial.value)
        error = f"{100 * best.value:.2f} % of {sweep.num_val:,} held-out images"
        about = best.user_attrs
        print(f"best: {about['run']}, wrong on {error}; on all images: {about['command']}")
        return 0
    if not all(trial.state.is_finished() for trial in study.trials):  # another process has one
        return 0
    print(f"none of {errors.counted(len(study.trials), 'trial')} came to its end", file=sys.stderr)
    return 1


@command(
    "Open JupyterLab on the notebooks, studies and runs that are here.",
    option("jupyter", nargs="*", metavar="-- WORD", help="for JupyterLab, such as -- --no-browser"),
)  # fmt: skip
def _lab(arguments: argparse.Namespace) -> None:
    from senet_lib import lab

    start = lab.look_at_what_is_here()  # which refuses a folder that is not ours to set up
    lab.keep_outputs_out_of_git()
    words = [*lab.command(start), *arguments.jupyter]
    os.execv(words[0], words)


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
def _publish(arguments: argparse.Namespace) -> None:
    from senet_lib.report.publish import publish_report, publish_study
    from senet_lib.runs.study import collect

    study, target = check_study(arguments.study), arguments.target
    config = str(find_config(arguments.config)) if arguments.config else ""
    collect(study, config, arguments.root)  # a mistake is said before anything is copied
    for copy in publish_study(study, arguments.root, target, arguments.keep):
        print(copy)
    print(publish_report(study, config, target, arguments.root))


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
    from senet_lib.device import Setup
    from senet_lib.report.gallery import write_gallery
    from senet_lib.runs.evaluate import network_and_images

    model, spec, _, dataset = network_and_images(arguments.checkpoint, arguments.data)
    setup = Setup.choose(device="auto", precision="fp32", compile="off", threads=0)
    print(write_gallery(
        setup.place(model), dataset, arguments.out_dir, name=spec.network, mean=spec.mean,
        std=spec.std, method=arguments.method, layer=arguments.layer, per_class=arguments.per_class,
    ))  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
