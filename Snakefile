# One study as a graph: train (one notebook a model and seed) -> report (one page).
#
#   snakemake --cores 2                                       # configs/smoke.yaml
#   snakemake --cores 2 --configfile configs/laptop.yaml
#   snakemake --workflow-profile profiles/slurm --configfile configs/paper.yaml
#
# Snakemake deletes what a rule declares as output before it runs that rule again. The record of a
# run is therefore never declared: the executed notebook is, and a notebook that is executed again
# finds the finished run and reads it. So no edit, flag or failure can cost a finished run.

import json
import os
import re
import shlex
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from snakemake.utils import min_version

min_version("9.0")
ROOT = Path(workflow.basedir)
sys.path.insert(0, str(ROOT))

from senet_lib import strict_yaml
from senet_lib.data.datasets import NAMES, data_dir, find_path
from senet_lib.errors import SenetError
from senet_lib.files import from_here, read_json, sha256_of
from senet_lib.recipe import MACHINE, Recipe, load_study
from senet_lib.report.batch import code_hash

# A config given on the command line replaces the default one; merging the two would mix recipes.
if not workflow.config_settings.configfiles:
    configfile: str(ROOT / "configs" / "smoke.yaml")


def typed(value):
    """Snakemake leaves what is inside the lists and mappings of --config as text."""
    if isinstance(value, dict):
        return {key: typed(item) for key, item in value.items()}
    if isinstance(value, list):
        return [typed(item) for item in value]
    if value in ("true", "false"):
        return value == "true"
    for kind in (int, float):
        with suppress(TypeError, ValueError):
            return kind(value) if isinstance(value, str) else value
    return value


for key in workflow.config_settings.config or ():
    if isinstance(config[key], (dict, list)):
        config[key] = typed(config[key])
try:
    for file in workflow.config_settings.configfiles:
        strict_yaml.read(Path(file))  # Snakemake would take the last of two equal keys
    STUDY = load_study(config)
except SenetError as error:
    raise WorkflowError(str(error)) from None

SENET = [sys.executable, "-m", "senet_lib.cli"]
LIBRARY = ROOT / "senet_lib"
NOTEBOOKS = Path(os.path.relpath(ROOT / "notebooks"))
RUNS, LOGS = f"outputs/runs/{STUDY.study}", f"outputs/logs/{STUDY.study}"
REPORT = f"outputs/reports/{STUDY.study}"

# A misspelt model, or one without the gates to look at, ends here and not hours later; what is already there needs no looking
# up. PyTorch is imported in a process of its own, as it would stay in this one's memory for as long as the study takes.
CHECK_NAMES = """
import json, sys
import torch
from senet_lib.errors import SenetError
try:
    from senet_lib.analysis.gates import gated_layers
    from senet_lib.device import accelerator
    from senet_lib.models import check_name, create_model
    from senet_lib.recipe import load_study
    study = load_study(json.load(sys.stdin))
    for model in study.models:
        check_name(model)
    for model in study.excitation:
        with torch.device("meta"):
            gated_layers(create_model(model), f"{model} under excitation")
    print(bool(accelerator()))
except SenetError as error:
    sys.exit(str(error))
"""
# What is made of a run depends on its page, which nobody edits as one may a notebook in JupyterLab.
ALL_RUNS = [f"{RUNS}/{model}/seed{seed}/train.html" for model, seed in STUDY.runs]
ACCELERATED = False  # whether PyTorch sees a GPU here; asked when there is something to train
if workflow.is_main_process and not all(map(os.path.exists, ALL_RUNS)):
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-c", CHECK_NAMES], input=json.dumps(config), env={**os.environ, "PYTHONPATH": path},
        text=True, capture_output=True,
    )
    if done.returncode:
        raise WorkflowError(done.stderr.strip())
    ACCELERATED = done.stdout == "True\n"
try:
    STUDY.check_models()
    if STUDY.data in ("cifar10", "cifar100") and not (data_dir() / f"{STUDY.data}.npz").is_file():
        raise SenetError(f"{STUDY.data} is not in {data_dir()}; fetch it first: senet data {STUDY.data}")
    if STUDY.data not in NAMES:
        find_path(STUDY.data)
    # Data known by name is checked whenever it is loaded. Of others it is asked here, which needs torch.
    if workflow.is_main_process and STUDY.data not in NAMES and Path(RUNS).is_dir():
        from senet_lib.runs.evaluate import runs_on_other_images

        if others := [str(run.path) for run in runs_on_other_images([Path(run).parent for run in ALL_RUNS], STUDY.data)]:
            raise SenetError(
                f"{STUDY.data} holds other images than {len(others)} finished runs were trained on, such as "
                f"{others[0]}: bring the images back, or give the study another name"
            )
except SenetError as error:
    raise WorkflowError(str(error)) from None


# A finished run of another recipe, precision or data, or of another text of the study's own files, is refused by `train`; but
# before that, Snakemake would remove its notebook.
def differing(record, own):
    """In what a finished run is another than the study's, with its own files' texts."""
    texts, data, precision = record.get("plugins") or {}, record["data"], record["precision"]
    if Recipe.from_dict(record["recipe"]).id != STUDY.recipe.id:
        yield "recipe"
    if any(own.get(name, text) != text for name, text in texts.items()):
        yield "plugin"
    if STUDY.precision not in ("auto", precision):
        yield f"precision ({precision}, not {STUDY.precision})"
    if data != STUDY.data and {data, STUDY.data} & set(NAMES):
        yield f"data ({data}, not {STUDY.data})"


def of_another_kind():
    own = {Path(name).name: from_here(name).read_text(encoding="utf-8-sig") for name in STUDY.plugins}
    for run in ALL_RUNS:
        path = Path(run).with_name("record.json")
        with suppress(SenetError, KeyError, TypeError, AttributeError):  # a damaged one is named by the run
            if others := list(differing(read_json(path), own)):
                yield f"{path.parent}: another {' and '.join(others)}"


if workflow.is_main_process and (others := list(of_another_kind())):
    raise WorkflowError(
        f"{len(others)} finished runs are not what the study asks for, such as {others[0]} (`senet runs`): give the study"
        " another name, or move them away"
    )


def is_whole(folder):
    """Whether a run has its record, and the files that it names are as it says."""
    with suppress(SenetError, OSError, AttributeError):
        files = read_json(folder / "record.json", ["recipe"]).get("files", {"weights.safetensors": ""})
        return all(sha256_of(folder / name) == digest or not digest for name, digest in files.items())
    return False


# A run that was lost is made again, and a damaged one is named by `train`, which neither comes to without this. And after a
# clock was set back, what is made would be older than what it is made from.
PAGES = map(Path, ALL_RUNS if workflow.is_main_process else ())
LOST = [page for page in PAGES if page.is_file() and not is_whole(page.parent)]
if LOST and workflow.output_settings.dryrun:
    lost = ", ".join(str(page.parent) for page in LOST)
    print(f"Lost or damaged, to be made again beside what follows: {lost}", file=sys.stderr)
elif workflow.is_main_process and not workflow.output_settings.dryrun:
    for page in LOST:
        page.unlink()
    now, made = time.time(), (path for page in ALL_RUNS for path in Path(page).parent.glob("train.*"))
    for path in (*NOTEBOOKS.glob("*.ipynb"), *made, *Path(REPORT).glob("*.*")):
        with suppress(OSError):
            if path.stat().st_mtime > now:
                os.utime(path, (now, now))  # one time for all keeps their order

# What decides a notebook's content, beside its parameters: its own code and the folders it imports.
# What the networks come from counts in train alone, as the others are made again after it.
def hashed(notebook, *behind):
    """A hash of a notebook's code and of the library's files and folders behind it."""
    return code_hash(ROOT / "notebooks" / notebook, [LIBRARY / name for name in behind])


TRAIN_HASH = hashed(
    "train.ipynb", "models", "data", "runs", "training", "figures", "report",
    "recipe.py", "device.py", "evaluation.py", "profiling.py", "analysis/confusion.py",
    *(from_here(name).absolute() for name in STUDY.plugins),
)
PROFILE_HASH = hashed("profile.ipynb", "models", "analysis", "claims/arithmetic.py", "figures", "report")
ABLATION_HASH = hashed("ablation.ipynb", "analysis", "figures", "report")
CAM_HASH = hashed("gradcam.ipynb", "analysis", "figures", "report")
GATES_HASH = hashed("excitation.ipynb", "analysis", "figures", "report")
REPORT_HASH = hashed("report.ipynb", "analysis", "claims", "figures", "report", "plugins.py")


def parameters(**values):
    """Command line words for a notebook's parameters."""
    texts = {k: v if isinstance(v, str) else json.dumps(v) for k, v in values.items()}
    return shlex.join(word for k, v in texts.items() for word in ("-p", f"{k}={v}"))


def train_parameters(wildcards):
    return parameters(
        study=STUDY.study,
        protocol=STUDY.protocol,
        model=wildcards.model,
        seed=int(wildcards.seed),
        data=STUDY.data,
        **STUDY.recipe.to_dict(),
    )


# Known to the commands and not to Snakemake, which would train every network again after a change of `threads`.
MACHINE_WORDS = parameters(**{key: getattr(STUDY, key) for key in MACHINE})


def settings():
    """The study's config as the report takes it: its file, or its text if it was changed here."""
    files = workflow.config_settings.configfiles or [ROOT / "configs" / "smoke.yaml"]
    changed = len(files) > 1 or workflow.config_settings.config
    return json.dumps(config) if changed else os.path.relpath(files[0])


def sees_gpu():
    """Whether PyTorch can use a GPU here or, where jobs go to a cluster, whether that has any."""
    if CORES is not None:  # the jobs run here
        return ACCELERATED
    if any(Path("/dev").glob("nvidia[0-9]*")):
        return True
    with suppress(OSError, subprocess.SubprocessError):
        kinds = subprocess.run(["sinfo", "--noheader", "--format=%G"], capture_output=True, text=True, timeout=20)
        return "gpu" in kinds.stdout
    return False


# What one run asks for: a GPU where there is one, and memory (MB) and minutes, which a cluster needs to know. A run that
# meets its time limit goes on from its checkpoint when it is started again. On a cluster nobody names a number of cores.
# And inside one of its jobs, Snakemake sees the machine's cores, of which the job may have fewer.
try:
    CORES = workflow.cores if workflow.is_main_process else None
except WorkflowError:
    CORES = None
HAS_GPU = STUDY.device != "cpu" and sees_gpu()
THREADS = STUDY.threads or CORES or 1
MEMORY, MINUTES = 4_000, 720
NOTEBOOK = "{SENET:q} notebook {input.notebook:q} --out {output.notebook} --html {output.page} {params.parameters}"
REPORT_PARAMETERS = parameters(study=STUDY.study, config=settings())


def as_is(text):
    """A parameter in which Snakemake takes nothing in braces for a wildcard."""
    return lambda wildcards: text


CAM_SEEDS = STUDY.seeds if STUDY.gradcam else ()


wildcard_constraints:
    gated="|".join(map(re.escape, STUDY.excitation)) or "none",
    axis="|".join(STUDY.axes) or "none",
    model="|".join(map(re.escape, STUDY.models)),
    seed="|".join(map(str, [*STUDY.seeds, *STUDY.more_seeds])),


localrules:
    all,
    ablation,
    report,


rule train:
    input:
        notebook=ancient(f"{NOTEBOOKS}/train.ipynb"),
    output:
        notebook=f"{RUNS}/{{model}}/seed{{seed}}/train.ipynb",
        page=f"{RUNS}/{{model}}/seed{{seed}}/train.html",
    log:
        f"{LOGS}/{{model}}-seed{{seed}}.log",
    params:
        code=TRAIN_HASH,
        parameters=train_parameters,
    priority: 1  # what can be done beside the last maps waits for them, so that no core does
    threads: THREADS
    resources:
        gpu=int(HAS_GPU),
        mem_mb=MEMORY,
        runtime=MINUTES,
    shell:
        "OMP_NUM_THREADS={threads} " + NOTEBOOK + " {MACHINE_WORDS} > {log} 2>&1"


rule ablation:
    input:
        runs=ALL_RUNS,
        notebook=ancient(f"{NOTEBOOKS}/ablation.ipynb"),
    output:
        notebook=f"{REPORT}/ablation-{{axis}}.ipynb",
        page=f"{REPORT}/ablation-{{axis}}.html",
    log:
        f"{LOGS}/ablation-{{axis}}.log",
    params:
        code=ABLATION_HASH,
        parameters=as_is(REPORT_PARAMETERS),
        note=as_is(STUDY.note),  # which the page shows
    shell:
        NOTEBOOK + " -p axis={wildcards.axis} > {log} 2>&1"


# Of all seeds, for the images are chosen that every network classifies correctly.
rule gradcam:
    input:
        runs=[run for run, (model, _) in zip(ALL_RUNS, STUDY.runs) if model in STUDY.gradcam],
        notebook=ancient(f"{NOTEBOOKS}/gradcam.ipynb"),
    output:
        notebook=f"{REPORT}/gradcam-seed{{seed}}.ipynb",
        page=f"{REPORT}/gradcam-seed{{seed}}.html",
        scores=f"{REPORT}/localisation-seed{{seed}}.json",
    log:
        f"{LOGS}/gradcam-seed{{seed}}.log",
    params:
        code=CAM_HASH,
        parameters=as_is(parameters(
            study=STUDY.study,
            config=settings(),
            models=list(STUDY.gradcam),
            grids=STUDY.grids,
            page_folder=REPORT,
        )),
    threads: THREADS
    resources:
        mem_mb=MEMORY,
        runtime=MINUTES,
    shell:
        "OMP_NUM_THREADS={threads} " + NOTEBOOK + " -p seed={wildcards.seed} > {log} 2>&1"


# Of the first seed: a page a network is enough to look at.
rule excitation:
    input:
        run=f"{RUNS}/{{gated}}/seed{STUDY.seeds[0]}/train.html",
        notebook=ancient(f"{NOTEBOOKS}/excitation.ipynb"),
    output:
        notebook=f"{REPORT}/excitation-{{gated}}.ipynb",
        page=f"{REPORT}/excitation-{{gated}}.html",
        numbers=f"{REPORT}/gates-{{gated}}.json",
    log:
        f"{LOGS}/excitation-{{gated}}.log",
    params:
        code=GATES_HASH,
        parameters=as_is(parameters(
            study=STUDY.study,
            seed=STUDY.seeds[0],
            num_images=20 * STUDY.grids,
            num_importance=5 * STUDY.grids,
            page_folder=REPORT,
        )),
    threads: THREADS
    resources:
        mem_mb=MEMORY,
        runtime=MINUTES,
    shell:
        "OMP_NUM_THREADS={threads} " + NOTEBOOK + " -p model={wildcards.gated} > {log} 2>&1"


# Alone on the machine, so that the times are those of the networks.
rule profile:
    input:
        runs=ALL_RUNS,
        notebook=ancient(f"{NOTEBOOKS}/profile.ipynb"),
    output:
        notebook=f"{REPORT}/profile.ipynb",
        page=f"{REPORT}/profile.html",
    log:
        f"{LOGS}/profile.log",
    params:
        code=PROFILE_HASH,
        parameters=as_is(parameters(
            study=STUDY.study, config=settings(), models=list(STUDY.models), device=STUDY.device, repeats=5
        )),
    threads: CORES or THREADS
    resources:
        gpu=int(HAS_GPU),
        mem_mb=MEMORY,
        runtime=MINUTES,
    shell:
        NOTEBOOK + " > {log} 2>&1"


rule report:
    input:
        runs=ALL_RUNS,
        axes=expand(f"{REPORT}/ablation-{{axis}}.html", axis=STUDY.axes),
        maps=expand(f"{REPORT}/gradcam-seed{{seed}}.html", seed=CAM_SEEDS),
        gates=expand(f"{REPORT}/excitation-{{gated}}.html", gated=STUDY.excitation),
        profile=f"{REPORT}/profile.html",
        notebook=ancient(f"{NOTEBOOKS}/report.ipynb"),
    output:
        notebook=f"{REPORT}/report.ipynb",
        page=f"{REPORT}/index.html",
    log:
        f"{LOGS}/report.log",
    params:
        code=REPORT_HASH,
        parameters=as_is(REPORT_PARAMETERS),
        note=as_is(STUDY.note),  # which the page shows
    threads: CORES or THREADS  # the last job has them all
    shell:
        NOTEBOOK + " > {log} 2>&1"


# All that there is to make, for Snakemake does not look for what lies behind a file that is there.
rule all:
    default_target: True
    input:
        rules.report.output,
        rules.profile.output,
        expand(rules.train.output, zip, model=[model for model, _ in STUDY.runs], seed=[seed for _, seed in STUDY.runs]),
        expand(rules.ablation.output, axis=STUDY.axes),
        expand(rules.gradcam.output, seed=CAM_SEEDS),
        expand(rules.excitation.output, gated=STUDY.excitation),


onsuccess:
    Path(REPORT, "incomplete.ipynb").unlink(missing_ok=True)
    print(f"The report is {REPORT}/index.html")


def was_stopped(logs):
    """Whether somebody stopped it, as Snakemake's log says; then nothing has failed."""
    said = "".join(Path(log).read_text(encoding="utf-8", errors="replace") for log in logs if os.path.isfile(log))
    return "Terminating processes on user request" in said or "Will exit after finishing currently running jobs" in said


# The page is built from what there is and names what is missing. The notebook behind it gets
# another name, so that the next call knows that the report is still to be made.
def report_what_there_is():
    Path(REPORT, "report.ipynb").unlink(missing_ok=True)
    Path(LOGS).mkdir(parents=True, exist_ok=True)
    print("Making the report of what there is")
    with open(f"{LOGS}/report.log", "w") as report_log:
        made = subprocess.run(
            [*SENET, "notebook", f"{NOTEBOOKS}/report.ipynb", "--out", f"{REPORT}/incomplete.ipynb"]
            + ["--html", f"{REPORT}/index.html", *shlex.split(REPORT_PARAMETERS)],
            stdout=report_log,
            stderr=subprocess.STDOUT,
        )
    if made.returncode == 0:
        print(f"Not everything could be made; {REPORT}/index.html says which runs are missing, and {LOGS} why")
    else:
        print(f"The report could not be made either; see {LOGS}/report.log")


onerror:
    if was_stopped([log] if isinstance(log, str) else log):
        print("Stopped; the same command goes on from there")
    else:
        report_what_there_is()
