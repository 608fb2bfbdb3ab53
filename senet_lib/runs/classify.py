"""What a network says of pictures: a run, a published network, or one exported from a run."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from senet_lib.data.augment import normalise
from senet_lib.data.pictures import SIZE, read_picture
from senet_lib.errors import SenetError
from senet_lib.evaluation import probabilities
from senet_lib.export import SUFFIXES, load_exported
from senet_lib.runs.published import find_pretrained
from senet_lib.runs.weights import load_network


def classify(
    source: str | Path, pictures: Sequence[str | Path]
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Probabilities of the K classes for some pictures, each brought to 32x32 as in training:
    (pictures, K), float64, and the classes' names.

    Args:
        source: a run's folder or its weights, an exported file (.onnx, .ts, .pt2), or the name of a
            published network.
        pictures: files of any kind that Pillow reads.
    """
    path, images = Path(source), np.stack([read_picture(Path(one))[0] for one in pictures])
    if path.suffix in SUFFIXES.values():
        run, about = load_exported(path)
        if not {"classes", "mean", "std", "input_size"} <= set(about):
            raise SenetError(f"{path} does not say what its classes are; export it by senet export")
        classes, mean, std = about["classes"], about["mean"], about["std"]
        if about["input_size"] != [3, SIZE, SIZE]:
            raise SenetError(f"{path} takes images of {about['input_size']}, not of 3x32x32")
    else:
        saved = path.exists() or len(path.parts) > 1
        model, spec = load_network(path) if saved else _published(str(source))
        run, classes, mean, std = model, spec.classes, spec.mean, spec.std
    with torch.inference_mode():
        logits = run(normalise(torch.from_numpy(images), mean, std).contiguous())
    return probabilities(logits.float().numpy()), tuple(classes)


def _published(name: str):
    run = find_pretrained(name)
    return run.load_model(), run
