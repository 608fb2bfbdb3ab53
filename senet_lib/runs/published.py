"""Trained networks that come with the repository: runs of the study, under outputs/published.

Of some runs the record is there and the weights are not: they were not asked for, or their file
would be above 4 MB.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from senet_lib.data.datasets import CIFAR_COUNTS, SHAPES_TRAIN
from senet_lib.errors import CheckpointError, RecordError, UnknownNameError, counted, unknown
from senet_lib.files import anchored
from senet_lib.runs import PUBLISHED
from senet_lib.runs.records import RunRecord, list_runs, load_run
from senet_lib.runs.weights import WEIGHTS

if TYPE_CHECKING:
    import pandas as pd
    from torch import nn

MAX_WEIGHTS_BYTES = 4_000_000
LICENCE = "MIT"  # that of the repository, which the files are part of
NOT_KEPT = "the weights of some runs alone are kept, and no file above 4 MB"
COLUMNS = (
    "model", "study", "seed", "protocol", "num_images", "epochs", "data", "test_error",
    "weights_error", "num_params", "num_bytes", "licence", "path",
)  # fmt: skip
_TOTALS = {name: classes * each for name, (classes, each, _) in CIFAR_COUNTS.items()}
_TOTALS["shapes"] = SHAPES_TRAIN


def published_folder() -> Path:
    """outputs/published of the clone one stands in, or else of the package's."""
    here = anchored(PUBLISHED)
    return here if here.is_dir() else Path(__file__).resolve().parents[2] / PUBLISHED


def list_pretrained(pattern: str = "*", root: str | Path | None = None) -> "pd.DataFrame":
    """A table of the published runs, one row each; that of the most images first.

    Args:
        pattern: of the networks' names, such as "se_*".
        root: the folder of what is published; None for outputs/published.
    Returns:
        model, study, seed, protocol (how it was trained, in words), num_images (trained on; <NA>
        where the data are not ours), epochs, data, test_error (a fraction), weights_error (that of
        the weights as they are kept, in half precision; None if not measured), num_params,
        num_bytes (of the weights; <NA> if not kept), licence, and path (for `load_run`).
    """
    from fnmatch import fnmatchcase

    import pandas as pd

    folder = published_folder() if root is None else Path(root)
    found = list_runs(folder / "runs", status="finished").to_dict("records")
    rows = [row for run in found if fnmatchcase((row := _row(run))["model"], pattern)]
    whole = ("seed", "num_images", "epochs", "num_params", "num_bytes")
    table = pd.DataFrame(rows, columns=list(COLUMNS)).astype(dict.fromkeys(whole, "Int64"))
    order = {"num_images": False, "epochs": False, "study": True, "model": True, "seed": True}
    return table.sort_values(list(order), ascending=list(order.values()), ignore_index=True)


def find_pretrained(
    name: str, seed: int = 0, study: str | None = None, root: str | Path | None = None
) -> RunRecord:
    """The run that `load_pretrained` takes the weights of, with its classes and normalisation.

    Args:
        name: the network, with its settings if it has any.
        seed: the run's seed.
        study: the study it belongs to; None for the one trained on the most images, and of these
            for the most epochs.
        root: the folder of what is published; None for outputs/published.
    Raises:
        RecordError: nothing is published here.
        UnknownNameError: no such network, seed or study is published; the message says which are.
        CheckpointError: the run is published, and its weights are not kept.
    """
    table = list_pretrained(root=root)
    if table.empty:
        raise RecordError(
            f"no published run here; {PUBLISHED} is part of a clone of the repository, and not of "
            "the installed package"
        )
    if name not in set(table["model"]):
        raise unknown("published network", name, set(table["model"]))
    table = table[table["model"] == name]
    if study is not None:
        if study not in set(table["study"]):
            raise unknown(f"published study of {name}", study, set(table["study"]))
        table = table[table["study"] == study]
    asked, kept = table["seed"] == seed, table["num_bytes"].notna()
    if not asked.any():
        known = _listed(table["seed"])
        raise UnknownNameError(f"{name} is not published with seed {seed}; known: {known}")
    if not (asked & kept).any():
        others = f"; those of seed {_listed(table['seed'][kept])} are" if kept.any() else ""
        raise CheckpointError(
            f"the weights of {name}, seed {seed}, are not published ({NOT_KEPT}){others}; the "
            f"record in {table['path'][asked].iloc[0]} says how to train it"
        )
    return load_run(table["path"][asked & kept].iloc[0])


def _listed(seeds: "pd.Series") -> str:
    return ", ".join(map(str, sorted(set(seeds))))


def load_pretrained(name: str, seed: int = 0, study: str | None = None) -> "nn.Module":
    """A trained network, in eval mode and fp32, on the CPU; arguments and errors as in
    `find_pretrained`.

        from senet_lib.evaluation import predict
        from senet_lib.runs.published import find_pretrained

        run = find_pretrained("se_res2net29")  # its classes, normalisation, error and logits
        # images: (N, 32, 32, 3), uint8
        logits = predict(load_pretrained("se_res2net29"), images, run.mean, run.std)

    Its weights were rounded to half precision when they were published, which changes its logits by
    about a thousandth of their size; `weights_error` of the record is of these very weights.
    """
    return find_pretrained(name, seed, study).load_model()


def training_in_words(run: Mapping[str, Any]) -> str:
    """How a network was trained, in a few plain words, by a record's recipe, data and num_val."""
    recipe, images = run["recipe"], _images_used(run)
    falls = [epoch for epoch in recipe["schedule"] if epoch < recipe["epochs"]]
    rate = "constant rate"
    if recipe["lr_policy"] == "one_cycle":
        rate = "one-cycle rate"
    elif falls:
        rate = f"rate falling at {' and '.join(map(str, falls))}"
    over = f"{images:,} images" if images else "all images"
    return f"{counted(recipe['epochs'], 'epoch')} over {over} of {run['data']}, {rate}"


def _images_used(run: Mapping[str, Any]) -> int | None:
    total = _TOTALS.get(run["data"])
    return run["recipe"].get("train_images") or (total and total - int(run["num_val"]))


def _row(run: Mapping[str, Any]) -> dict[str, Any]:
    weights = Path(run["path"]) / WEIGHTS
    return {
        **{key: run[key] for key in COLUMNS if key in run},
        "model": run["network"],
        "protocol": training_in_words(run),
        "num_images": _images_used(run),
        "epochs": run["recipe"]["epochs"],
        "num_bytes": weights.stat().st_size if weights.is_file() else None,
        "licence": LICENCE,
    }
