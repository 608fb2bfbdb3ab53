"""A page of images with their class activation maps: right and wrong cases of every class."""

# Legend: N images, H height, W width, K classes.

import base64
import io
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from senet_lib.analysis.cam import METHOD_NAMES, compute_maps, scale_for_display
from senet_lib.analysis.overlay import heat, panels
from senet_lib.data.augment import normalise
from senet_lib.data.datasets import Dataset
from senet_lib.errors import SenetError
from senet_lib.evaluation import predict, probabilities
from senet_lib.files import write_whole
from senet_lib.report.page import frame, slug, way_back

PAGE, PICTURES = "index.html", "maps"
PICTURE = re.compile(r"\d+-(.+-)?(right|wrong)-\d+\.png")
MADE_BY = '<meta name="generator" content="senet gradcam">'


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
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
        group are the surest and the least sure that there are, unless only one is asked for.
    """
    predicted = logits.argmax(1)
    sure = probabilities(logits).max(1)
    cases = []
    for label in range(logits.shape[1]):
        for right in (True, False):
            found = np.flatnonzero((labels == label) & ((predicted == label) == right))
            found = found[np.argsort(-sure[found], kind="stable")]
            places = np.linspace(0, len(found) - 1, min(per_class, len(found))).round().astype(int)
            for i in found[places].tolist():
                said, share = int(predicted[i]), float(sure[i])
                cases.append(Case(index=i, label=label, predicted=said, probability=share))
    return cases


def write_gallery(
    model: nn.Module,
    dataset: Dataset,
    out_dir: str | Path,
    *,
    name: str = "the network",
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
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
        mean, std: of each channel, that the model expects, in [0, 1]; the dataset's by default.
        method, layer: as in `cam.compute_maps`; the class explained is the predicted one.
        per_class: right cases of each class, and likewise wrong ones; at least 1.
        logits: (N, K), what the model says of all images, where that is known.
    Raises:
        SenetError: the folder is a file or holds a page of another kind.
    """
    out_dir = Path(out_dir)
    _check_folder(out_dir)
    if per_class < 1:
        raise SenetError(f"per_class is {per_class}; it must be at least 1")
    mean = tuple(dataset.mean if mean is None else mean)
    std = tuple(dataset.std if std is None else std)

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
        _file_name(case, dataset.classes, cases): _png(panels(dataset.x_test[case.index], shown))
        for case, shown in zip(cases, scaled, strict=True)
    }
    blank = [not one.any() for one in maps]
    summary = _summary(dataset, logits, method, layer, sum(blank))
    shown = _body(f"Where {name} looks", summary, dataset.classes, cases, pictures, blank)
    back = way_back(out_dir / PAGE)
    text = frame(f"Where {name} looks", shown, head=MADE_BY, back=back)
    return _write(out_dir, pictures, text)


def _check_folder(out_dir: Path) -> None:
    """SenetError if the gallery would take the place of something else."""
    if out_dir.exists() and not out_dir.is_dir():
        raise SenetError(f"{out_dir} is a file; name a folder for the gallery")
    page = out_dir / PAGE
    if page.exists() and (
        not page.is_file() or MADE_BY not in page.read_text(encoding="utf-8", errors="replace")
    ):
        raise SenetError(f"{page} is not a gallery of ours and would be lost; name another folder")


def _file_name(case: Case, classes: Sequence[str], cases: Sequence[Case]) -> str:
    """Such as 03-cat-wrong-1.png: class, verdict, and place among those."""
    group = [c.index for c in cases if (c.label, c.right) == (case.label, case.right)]
    words = [f"{case.label:02d}", slug(classes[case.label]), "right" if case.right else "wrong"]
    return "-".join([*filter(None, words), str(group.index(case.index) + 1)]) + ".png"


def _png(pixels: np.ndarray) -> bytes:
    """The bytes of a PNG file of (H, W, 3) uint8."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", optimize=True)
    return file.getvalue()


def _img(png: bytes, alt: str) -> str:
    """The image with its bytes inside the tag."""
    code = base64.b64encode(png).decode("ascii")
    return f'<img src="data:image/png;base64,{code}" alt="{escape(alt)}">'


def _summary(
    dataset: Dataset, logits: np.ndarray, method: str, layer: str, num_blank: int
) -> list[str]:
    """What was done and how it is to be read, a paragraph each."""
    right, total = int((logits.argmax(1) == dataset.y_test).sum()), len(dataset.y_test)
    place = "the last layer before the pooling" if layer == "last" else f"layer {layer}"
    texts = [
        f"{right:,} of {total:,} {dataset.test_name} images of {dataset.name} are classified "
        f"correctly ({100 * right / total:.2f} %). Below are right and wrong cases of each class, "
        "from the one the network is surest of to the one it is least sure of.",
        "Every picture shows, from left to right, the image, its map, and the map over the grey "
        f"image. The map is that of {METHOD_NAMES[method]} for the class that the network names, "
        f"taken at {place}. Each is stretched from its own minimum to its own maximum, so colours "
        "cannot be compared between images.",
        "A percentage is the network's own probability; no test says that it is right so often.",
    ]
    if num_blank:
        texts.append(
            f"{num_blank} of the maps shown are zero everywhere: nothing at that layer speaks for "
            "the class named."
        )
    return texts


def _body(
    title: str,
    summary: Sequence[str],
    classes: Sequence[str],
    cases: Sequence[Case],
    pictures: dict[str, bytes],
    blank: Sequence[bool],
) -> str:
    """The page's main part."""
    ramp = (255 * heat(np.linspace(0, 1, 256)[None])).round().astype(np.uint8)
    bar = _img(_png(ramp), "Colours of the maps, from black over red to pale yellow")
    links = "".join(f'<li><a href="#class-{k}">{escape(c)}</a></li>' for k, c in enumerate(classes))
    parts = [
        f"<h1>{escape(title)}</h1>",
        *(f"<p>{escape(text)}</p>" for text in summary),
        f'<figure class="scale">{bar}<figcaption><span>minimum</span><span>maximum</span>'
        "</figcaption></figure>",
        f'<nav class="strip" aria-label="Classes"><ol>{links}</ol></nav>',
    ]
    shown = list(zip(cases, pictures.values(), blank, strict=True))
    for label, text in enumerate(classes):
        parts.append(f'<h2 id="class-{label}">{escape(text)}</h2>')
        for right, heading in ((True, "Right"), (False, "Wrong")):
            group = [s for s in shown if (s[0].label, s[0].right) == (label, right)]
            figures = "\n".join(_figure(*one, classes) for one in group)
            parts.append(f"<h3>{heading}</h3>")
            parts.append(f'<div class="cases">\n{figures}\n</div>' if group else "<p>None.</p>")
    return "\n".join(parts)


def _figure(case: Case, png: bytes, blank: bool, classes: Sequence[str]) -> str:
    """One case with its caption."""
    label, predicted = classes[case.label], classes[case.predicted]
    sure = probability_text(case.probability)
    note = " The map is zero everywhere." if blank else ""
    alt = f"{label}, image {case.index}: the image, its map for {predicted}, and the map over it"
    return (
        f"<figure>{_img(png, alt)}<figcaption>It is <strong>{escape(label)}</strong>; the network "
        f"says <strong>{escape(predicted)}</strong>, {sure}.{note}</figcaption></figure>"
    )


def probability_text(probability: float) -> str:
    """With a decimal, and never rounded up to certainty."""
    return "over 99.9 %" if probability > 0.999 else f"{100 * probability:.1f} %"


def _write(out_dir: Path, pictures: dict[str, bytes], text: str) -> Path:
    """The pictures, the page, and away with pictures of an earlier gallery."""
    folder, page = out_dir / PICTURES, out_dir / PAGE
    found = folder.glob("*.png") if page.exists() else ()
    earlier = {path for path in found if PICTURE.fullmatch(path.name)}
    for name, png in pictures.items():
        write_whole(folder / name, png)
    write_whole(page, text)
    for path in earlier - {folder / name for name in pictures}:
        with suppress(FileNotFoundError):
            path.unlink()
    return page
