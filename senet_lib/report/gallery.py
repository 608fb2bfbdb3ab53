"""A page of images with their class activation maps: right and wrong cases of every class."""

# Legend: N images, H height, W width, K classes.

import base64
import io
import re
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import nn

from senet_lib.analysis.cam import METHOD_NAMES, compute_maps, scale_for_display
from senet_lib.analysis.confusion import choose_images
from senet_lib.analysis.overlay import heat, panels
from senet_lib.data.augment import normalise
from senet_lib.data.datasets import Dataset
from senet_lib.errors import SenetError
from senet_lib.evaluation import predict, probabilities, probability_text
from senet_lib.files import write_whole
from senet_lib.report.page import filled, frame, slug, way_back

PAGE, PICTURES = "index.html", "maps"
PICTURE = re.compile(r"\d+-(.+-)?(right|wrong)-\d+\.png")
MADE_BY = '<meta name="generator" content="senet gradcam">'


class Case(NamedTuple):
    """One image, by its place in the split from 0, its class, the class with the largest logit, and
    the softmax probability of that, in (0, 1]."""

    index: int
    label: int
    predicted: int
    probability: float

    @property
    def right(self) -> bool:
        """Whether the network is right."""
        return self.label == self.predicted


def choose_cases(logits: np.ndarray, labels: np.ndarray, per_class: int) -> list[Case]:
    """Of every class right and wrong cases, spread evenly from the surest to the least sure.

    Args:
        logits, labels: (N, K), and (N,) integer.
        per_class: right cases of a class, and likewise wrong ones; fewer where there are fewer.
    Returns:
        By class, right before wrong, then by falling probability. The first and the last of each
        group are the surest and the least sure that there are; one alone is the middle one.
    """
    cases, predicted, sure = [], logits.argmax(1).tolist(), probabilities(logits).max(1).tolist()
    for label, verdict in product(range(logits.shape[1]), ("right", "wrong")):
        found = choose_images(logits, labels, label, verdict)
        ends = (0, len(found) - 1) if per_class > 1 else (len(found) // 2,) * 2
        places = np.linspace(*ends, min(per_class, len(found))).round().astype(int)
        cases += [Case(i, label, predicted[i], sure[i]) for i in found[places].tolist()]
    return cases


def write_gallery(
    model: nn.Module,
    dataset: Dataset,
    out_dir: str | Path,
    *,
    name: str,
    mean: Sequence[float],
    std: Sequence[float],
    method: str = "gradcam",
    layer: str = "last",
    per_class: int = 3,
    logits: np.ndarray | None = None,
) -> Path:
    """Write a PNG for every chosen case to `maps/`, and `index.html`, which needs nothing else; the
    path of the page.

    Nothing is written before everything is computed, each file appears whole, the page last. An
    earlier gallery in the folder is replaced; other files in it are left alone.

    Args:
        model: a classifier of the dataset's classes.
        dataset: its second split is shown.
        out_dir: the folder, made if it does not exist.
        name: of the network, for the page's title.
        mean, std: of each channel, that the model expects, in [0, 1].
        method, layer: as in `cam.compute_maps`; the class explained is the predicted one.
        per_class: right cases of each class, and likewise wrong ones; at least 1.
        logits: (N, K), what the model says of all images, where that is known.
    Raises:
        SenetError: the folder is a file or holds a page of another kind.
    """
    out_dir = Path(out_dir)
    _check_folder(out_dir)
    if per_class < 1:
        raise SenetError(f"per-class is {per_class}; it must be at least 1")

    def maps_of(indices: list[int]) -> np.ndarray:
        images = normalise(torch.from_numpy(dataset.x_test[indices]), mean, std)
        return compute_maps(model, images, method=method, layer=layer).maps

    maps_of([0])  # a misspelt method or layer is noticed before all images are classified
    if logits is None:
        logits = predict(model, dataset.x_test, mean, std).cpu().numpy()
    cases = choose_cases(logits, dataset.y_test, per_class)
    maps = maps_of([case.index for case in cases])
    scaled = scale_for_display(maps)
    pictures = {
        _file_name(case, dataset.classes, cases): panels(dataset.x_test[case.index], shown)
        for case, shown in zip(cases, scaled, strict=True)
    }
    zero = [not one.any() for one in maps]
    webp = {"lossless": True, "method": 6}  # three quarters of PNG's bytes
    inline = [source_of(file_of(p, "webp", **webp), "webp") for p in pictures.values()]
    ramp = (255 * heat(np.linspace(0, 1, 256)[None])).round().astype(np.uint8)
    body = filled(
        "gallery.html.j2",
        name=name,
        dataset=dataset,
        right=int((logits.argmax(1) == dataset.y_test).sum()),
        total=len(dataset.y_test),
        method=METHOD_NAMES[method],
        layer=layer,
        num_blank=sum(zero),
        scale=source_of(file_of(ramp)),
        shown=list(zip(cases, inline, zero, strict=True)),
        probability_text=probability_text,
        per_class=per_class,
    )
    text = frame(f"Where {name} looks", body, head=MADE_BY, back=way_back(out_dir / PAGE))
    return _write(out_dir, pictures, text)


def _check_folder(out_dir: Path) -> None:
    """SenetError if the gallery would take the place of something else."""
    if out_dir.exists() and not out_dir.is_dir():
        raise SenetError(f"{out_dir} is a file; name a folder for the gallery")
    page = out_dir / PAGE
    ours = page.is_file() and MADE_BY in page.read_text(encoding="utf-8", errors="replace")
    if page.exists() and not ours:
        raise SenetError(f"{page} is not a gallery of ours and would be lost; name another folder")


def _file_name(case: Case, classes: Sequence[str], cases: Sequence[Case]) -> str:
    """Such as 03-cat-wrong-1.png: class, verdict, and place among those."""
    group = [c.index for c in cases if (c.label, c.right) == (case.label, case.right)]
    name, verdict = slug(classes[case.label])[:60], "right" if case.right else "wrong"
    words = [f"{case.label:02d}", name, verdict, str(group.index(case.index) + 1)]
    return "-".join(filter(None, words)) + ".png"


def file_of(pixels: np.ndarray, kind: str = "png", **how: Any) -> bytes:
    """The bytes of a file of this kind of (H, W, 3) uint8, with Pillow's options."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **how)
    return file.getvalue()


def source_of(picture: bytes, kind: str = "png") -> str:
    """The bytes of a file of this kind as a page's own image."""
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode('ascii')}"


def _write(out_dir: Path, pictures: dict[str, np.ndarray], text: str) -> Path:
    """The pictures, the page, and away with pictures of an earlier gallery."""
    folder, page = out_dir / PICTURES, out_dir / PAGE
    found = folder.glob("*.png") if page.exists() else ()
    earlier = {path for path in found if PICTURE.fullmatch(path.name)}
    for name, pixels in pictures.items():
        write_whole(folder / name, file_of(pixels, optimize=True))
    write_whole(page, text)
    for path in earlier - {folder / name for name in pictures}:
        path.unlink(missing_ok=True)
    return page
