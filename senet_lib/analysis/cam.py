"""Class activation maps: where in an image a network finds what speaks for a class.

The formulas are those of pytorch-grad-cam. Its scaling, hooks and handling of the model are not
used: maps stay raw, so that they can be measured, and the model is left as it was found.
"""

# Legend: N images, C channels, H height, W width, K classes.

import difflib
import io
from contextlib import redirect_stderr
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from senet_lib.device import memory_format
from senet_lib.errors import DataError, SenetError, unknown
from senet_lib.evaluation import evaluating
from senet_lib.models.blocks import Head, Network
from senet_lib.models.neighbours import Neighbour
from senet_lib.profiling import black_image, calls_of

if TYPE_CHECKING:
    from pytorch_grad_cam.base_cam import BaseCAM

METHOD_NAMES = {
    "gradcam": "Grad-CAM",
    "gradcam++": "Grad-CAM++",
    "layercam": "LayerCAM",
    "hirescam": "HiResCAM",
    "scorecam": "Score-CAM",
    "eigencam": "Eigen-CAM",
}
_CLASSES = ("GradCAM", "GradCAMPlusPlus", "LayerCAM", "HiResCAM", "ScoreCAM", "EigenCAM")
METHODS = dict(zip(METHOD_NAMES, _CLASSES, strict=True))
"""Methods by name, and their classes in pytorch-grad-cam."""
BATCH = 64  # images at a time; bounds the memory, not the result
SCORECAM_NUMBERS = 2**24  # of masked images in memory at a time: 64 MiB in float32


class LayerError(SenetError):
    """A layer that exists but whose output gives no map."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CamMaps:
    """Maps of N images, and what the network said about them."""

    maps: np.ndarray  # (N, H, W) float32, 0 or more, in the method's own unit
    logits: np.ndarray  # (N, K) float32
    targets: np.ndarray  # (N,) int64, the class each map speaks of


def compute_maps(
    model: nn.Module,
    images: Tensor | np.ndarray,
    targets: Tensor | np.ndarray | None = None,
    *,
    method: str = "gradcam",
    layer: str = "last",
) -> CamMaps:
    """The class activation map of every image, in eval mode and fp32 on the model's device.

    The model stays as it is, and what follows the layer may work in place. An image that stands
    several times in a row, to be explained for several classes, is run once.

    Args:
        model: maps (N, C, H, W) to logits (N, K), each image independently of the others.
        images: (N, C, H, W), float, normalised as the model expects.
        targets: (N,), integer, the class to explain; None takes the predicted one.
        method: a name in `METHODS`. EigenCAM does not depend on the class, and the sign of its map
            is the linear algebra library's choice.
        layer: where the map is taken: a dotted module name, such as "stage2" or "stage3.0.conv1",
            or "last", what is averaged over H and W before the linear layer. In a network whose
            head begins with a normalisation that is the output of that, else of the last stage.
    Returns:
        The maps, raw: neither shifted nor scaled, but after the ReLU enlarged bilinearly (corners
        not aligned) to the images' size.
    Raises:
        UnknownNameError: no such method or layer.
        DataError: images or targets have the wrong shape or type.
        LayerError: the layer's output is not one (N, C, H, W) map that the logits depend on.
    Source: Selvaraju et al. 2017 (arXiv:1610.02391), Chattopadhay et al. 2018 (arXiv:1710.11063),
        Jiang et al. 2021 (LayerCAM), Draelos and Carin 2020 (arXiv:2011.08891), Wang et al. 2020
        (arXiv:1910.01279), Muhammad and Yeasin 2020 (arXiv:2008.00299).
    Differs from the papers: as pytorch-grad-cam does. Grad-CAM++ takes the logit where its paper
        has the exponential of it, and adds 1e-6 to a denominator that on large maps is no larger.
        Score-CAM masks the normalised image, so what is covered has the mean colour, weights by the
        softmax over channels of the logit, and enlarges its masks with corners aligned, while the
        map it gives is enlarged like every other, corners not aligned.
    """
    import pytorch_grad_cam

    if method not in METHODS:
        raise unknown("method", method, METHODS)
    module = find_layer(model, layer)
    images, targets = _checked(images, targets)
    device, parts = next(model.parameters()).device, []
    with evaluating(model), torch.inference_mode(False), torch.autocast(device.type, enabled=False):
        # Without layers it has no hooks of its own; it puts the model into eval mode for good.
        explainer = getattr(pytorch_grad_cam, METHODS[method])(model, [])
        explainer.batch_size = BATCH  # Score-CAM's, in masked images
        for start in range(0, len(images), BATCH):
            part = slice(start, start + BATCH)
            chosen = None if targets is None else targets[part]
            try:
                parts.append(_explain(explainer, module, images[part], chosen))
            except LayerError as error:
                raise LayerError(f"layer {layer!r} gives no map: {error}") from None
    maps, logits, classes = (np.concatenate(some) for some in zip(*parts, strict=True))
    return CamMaps(maps=maps, logits=logits, targets=classes)


def scale_for_display(maps: np.ndarray) -> np.ndarray:
    """Maps (N, H, W), each stretched to the range 0 to 1, to be looked at and not to be measured;
    float32. One that is the same everywhere becomes 0."""
    low = maps.min((1, 2), keepdims=True)
    spread = maps.max((1, 2), keepdims=True) - low
    return ((maps - low) / np.where(spread > 0, spread, 1)).astype(np.float32)


def find_layer(model: nn.Module, layer: str) -> nn.Module:
    """The module that a layer's name stands for, see `compute_maps`; UnknownNameError, or
    LayerError where "last" is asked of a model of no kind known here."""
    if layer == "last":
        if isinstance(model, Neighbour):
            return _last_map(model)
        if isinstance(model, Network):
            return model.head.norm if isinstance(model.head, Head) else model.stages[-1]
        raise LayerError(f"a {type(model).__name__} has no stages to take the last of")
    modules = {name: module for name, module in model.named_modules() if name}
    if layer in modules:
        return modules[layer]
    top = [name for name in modules if "." not in name]
    near = isinstance(layer, str) and difflib.get_close_matches(layer, modules, n=1, cutoff=0.5)
    known = modules if near else top  # hundreds of names would help nobody
    raise unknown("layer", layer, ["last", *known] if isinstance(model, Network) else known)


def _last_map(model: Neighbour) -> nn.Module:
    """What gives the last map of more than one place; only vectors may come after it, and no
    sequence of places such as a transformer's."""
    channels = next(p.shape[1] for p in model.parameters() if p.dim() == 4)
    last: nn.Module | None = None

    def note(name: str, module: nn.Module, inputs: Any, output: Any) -> None:
        nonlocal last
        shape = output.shape if isinstance(output, Tensor) else ()
        if len(shape) == 4 and shape[2] == shape[3] > 1:  # of a square image, channels first
            last = module
        elif len(shape) > 2 and shape[2:].numel() > 1:
            last = None

    modules = dict(model.network.named_modules())
    size = channels, model.size, model.size
    with black_image(model, size) as image, calls_of(modules, note):
        model(image)
    if last is None:
        raise LayerError("the network pools no map of more than one place; name a layer")
    return last


def _checked(
    images: Tensor | np.ndarray, targets: Tensor | np.ndarray | None
) -> tuple[Tensor, Tensor | None]:
    """Both as tensors; DataError where a shape or type is wrong."""
    images = torch.as_tensor(images).detach()
    if images.dim() != 4 or not images.is_floating_point() or 0 in images.shape:
        found = f"{tuple(images.shape)} of {images.dtype}"
        raise DataError(f"images must be (N, C, H, W), normalised floats, not {found}")
    if targets is None:
        return images, None
    targets = torch.as_tensor(targets)
    whole = not (targets.is_floating_point() or targets.is_complex() or targets.dtype == torch.bool)
    if targets.shape != images.shape[:1] or not whole:
        found = f"{tuple(targets.shape)} of {targets.dtype}"
        raise DataError(f"targets must be {len(images)} whole numbers, one an image, not {found}")
    return images, targets.long()


def _explain(
    explainer: "BaseCAM", layer: nn.Module, images: Tensor, targets: Tensor | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Maps, logits and classes of one batch."""
    model = explainer.model
    weights = {name: weight.detach() for name, weight in model.named_parameters()}
    some = next(iter(weights.values()))
    # A copy where the images are inference tensors, which no graph may hold.
    images = (images.clone() if images.is_inference() else images).to(some.device, some.dtype)
    single, place = torch.unique_consecutive(images, dim=0, return_inverse=True)  # place: (N,)
    single = single.contiguous(memory_format=memory_format(some.device.type))
    outputs: list[Any] = []

    def keep(name: str, module: nn.Module, inputs: Any, output: Any) -> Tensor | None:
        """A leaf of the graph that nothing later can change."""
        outputs.append(output)
        if not isinstance(output, Tensor) or not output.is_floating_point():
            return None
        outputs[-1] = output.detach().clone().requires_grad_(torch.is_grad_enabled())
        return outputs[-1].clone()  # the rest of the network may overwrite this one

    # With detached weights the graph begins at the layer, so nothing before it is kept.
    with calls_of({"": layer}, keep), torch.set_grad_enabled(explainer.uses_gradients):
        logits = functional_call(model, weights, (single,))
    activation = _only_map(outputs, len(single))
    targets = _classes(logits, targets, place)
    gradient = _gradient(logits, targets, place, activation) if explainer.uses_gradients else None
    logits = logits.detach()[place]
    raw = _combine(explainer, images, targets, activation.detach()[place], gradient)
    maps = torch.from_numpy(np.maximum(raw, 0).astype(np.float32))[:, None]
    maps = F.interpolate(maps, images.shape[2:], mode="bilinear", align_corners=False)[:, 0]
    return maps.numpy(), logits.float().cpu().numpy(), targets.cpu().numpy()


def _only_map(outputs: list[Any], num_images: int) -> Tensor:
    """The layer's one output; LayerError if there is another number of them or it is no map."""
    if len(outputs) != 1:
        raise LayerError(f"it is used {len(outputs)} times for an image instead of once")
    output = outputs[0]
    if not isinstance(output, Tensor) or output.dim() != 4 or len(output) != num_images:
        found = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise LayerError(f"its output for {num_images} images is {found}, not (N, C, H, W)")
    return output


def _classes(logits: Tensor, targets: Tensor | None, place: Tensor) -> Tensor:
    """The classes to explain, (N,), on the logits' device; place: each image's row of logits."""
    if not isinstance(logits, Tensor) or logits.dim() != 2 or len(logits) != int(place[-1]) + 1:
        raise DataError("the model must give logits (N, K) for images (N, C, H, W)")
    if targets is None:
        return logits.argmax(1)[place]
    if targets.min() < 0 or targets.max() >= logits.shape[1]:
        raise DataError(f"targets must lie in 0 to {logits.shape[1] - 1}")
    return targets.to(logits.device)


def _gradient(logits: Tensor, targets: Tensor, place: Tensor, activation: Tensor) -> Tensor:
    """Derivative of each image's target logit by the layer's output of it, (N, C', H', W')."""
    first = torch.searchsorted(place, torch.arange(len(logits), device=place.device))
    turn = torch.arange(len(place), device=place.device) - first[place]  # 0: an image's first class
    gradient = activation.new_empty((len(place), *activation.shape[1:]))
    for number in range(int(turn.max()) + 1):
        now = turn == number
        # Images do not influence one another, so the sum's derivative holds each one's own.
        score, slope = logits[place[now], targets[now]].sum(), None
        if score.requires_grad:
            (slope,) = torch.autograd.grad(score, activation, retain_graph=True, allow_unused=True)
        if slope is None:
            raise LayerError("the logits do not depend on it")
        gradient[now] = slope[place[now]]
    return gradient


def _combine(
    explainer: "BaseCAM", images: Tensor, targets: Tensor, activation: Tensor, slope: Tensor | None
) -> np.ndarray:
    """The method's weighted sum of channels, (N, H', W') at the layer's size, before the ReLU."""
    from pytorch_grad_cam import ScoreCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    functions = [ClassifierOutputTarget(index) for index in targets.tolist()]
    values, slopes = (x if x is None else _numpy(x) for x in (activation, slope))
    if not isinstance(explainer, ScoreCAM):
        return explainer.get_cam_image(images, None, functions, values, slopes, False)
    # It holds an image for every channel, and shows a progress bar for every image.
    step = max(SCORECAM_NUMBERS // (activation.shape[1] * images[0].numel()), 1)
    pieces = [slice(start, start + step) for start in range(0, len(images), step)]
    with redirect_stderr(io.StringIO()):
        return np.concatenate([
            explainer.get_cam_image(images[p], None, functions[p], values[p], None, False)
            for p in pieces
        ])  # fmt: skip


def _numpy(x: Tensor) -> np.ndarray:
    """On the CPU, in float32 or wider."""
    return x.detach().contiguous().to("cpu", torch.promote_types(x.dtype, torch.float32)).numpy()
