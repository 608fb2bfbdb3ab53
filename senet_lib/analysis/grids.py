"""Images put side by side, so that where the evidence for a class lies is known exactly.

A grid has n x n tiles in row-major order. A case is one grid and one class to explain on it; the
region is that class's own tiles. A map is asked for in two ways: of the whole grid, where spatial
means and gates see all tiles mixed, and as a control with each tile seen alone.
"""

# Legend: N images, C channels, h w size of a tile, n tiles along a side, T = n n tiles of a grid,
# G grids, M cases, K classes.

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from senet_lib.analysis.statistics import check_rng
from senet_lib.errors import DataError, SenetError

BATCH = 128  # cases at a time; bounds the memory, not the result
Explain = Callable[[Tensor, Tensor], np.ndarray]
"""Normalised images (B, C, H, W) and classes (B,) int64 to raw maps (B, H, W)."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Grids:
    """Grids of images and the cases to explain on them, as many on each grid."""

    source: Tensor  # (N, C, h, w), the images that tiles are taken from
    n: int  # tiles along a side
    tiles: np.ndarray  # (G, T) int64, indices into `source`, row by row
    classes: np.ndarray  # (G, T) int64, the class of each tile
    targets: np.ndarray  # (M,) int64, the class to explain; the cases of a grid follow each other

    @property
    def grid_of(self) -> np.ndarray:
        """(M,) int64, the grid of each case."""
        return np.arange(len(self.tiles)).repeat(len(self.targets) // len(self.tiles))

    def images(self, which: np.ndarray | slice = slice(None)) -> Tensor:
        """Grids by their indices, all by default, as images (G, C, n h, n w)."""
        return assemble(self.source[torch.from_numpy(self.tiles[which])], self.n)

    def masks(self, shift: int = 0) -> np.ndarray:
        """The region of each case, (M, n h, n w) bool; or that of so many tiles further on, the
        first following the last."""
        h, w = self.source.shape[-2:]
        cells = self.classes[self.grid_of] == self.targets[:, None]  # (M, T)
        cells = np.roll(cells, shift, axis=1).reshape(-1, self.n, self.n)
        return cells.repeat(h, axis=1).repeat(w, axis=2)


def make_grids(
    images: Tensor,
    labels: np.ndarray,
    keep: np.ndarray,
    n: int,
    count: int,
    *,
    rng: np.random.Generator,
) -> Grids:
    """Grids of n x n images of distinct classes; each tile's class is a case, in the tiles' order.

    The images of a class are dealt like cards: none comes again before too few others are left.

    Args:
        images: (N, C, h, w), normalised.
        labels: (N,), integer.
        keep: (N,) bool, the images that may be used.
        n: tiles along a side, at least 2.
        count: grids, at least 1.
        rng: decides classes, places and images; the same state gives the same grids.
    Raises:
        DataError: the arrays do not fit together, or too few classes have an image.
    Source: Böhle et al. 2021 (grid pointing game).
    Differs from the paper: tiles are drawn at random instead of taken by falling confidence.
    """
    decks = _decks(images, labels, keep, count, rng)
    if n < 2:
        raise SenetError(f"n is {n}; a grid has at least 2 tiles along a side")
    if len(decks) < n * n:
        raise DataError(f"a {n} x {n} grid needs {n * n} classes; {len(decks)} have an image")
    names = np.array(sorted(decks))
    classes = np.stack([rng.permutation(names)[: n * n] for _ in range(count)])
    tiles = np.array([[decks[k].deal(1)[0] for k in row] for row in classes.tolist()])
    return Grids(source=images, n=n, tiles=tiles, classes=classes, targets=classes.reshape(-1))


def focus_mosaics(
    images: Tensor, labels: np.ndarray, keep: np.ndarray, count: int, *, rng: np.random.Generator
) -> Grids:
    """2 x 2 mosaics with two images of a target class and one of each of two others, shuffled, or
    both of the other where there are two classes: one case a mosaic, ordered by target class; every
    class with an image is a target.

    Args:
        images, labels, keep, rng: as in `make_grids`, whose errors these are.
        count: mosaics for each target class, at least 1; the paper makes 100.
    Source: Arias-Duart et al. 2021 (Focus).
    """
    decks = _decks(images, labels, keep, count, rng)
    if len(decks) < 2 or min(len(deck.cards) for deck in decks.values()) < 2:
        raise DataError("mosaics need at least two classes, each with two images to use")
    names = np.array(sorted(decks))
    tiles, classes, targets = [], [], np.repeat(names, count)
    for target in targets.tolist():
        row = [target, target, *np.resize(rng.permutation(names[names != target]), 2).tolist()]
        cards = [card for k, number in Counter(row).items() for card in decks[k].deal(number)]
        order = rng.permutation(4)
        tiles.append(np.array(cards)[order])
        classes.append(np.array(row)[order])
    tiles, classes = np.stack(tiles), np.stack(classes)
    return Grids(source=images, n=2, tiles=tiles, classes=classes, targets=targets)


def grid_maps(grids: Grids, explain: Explain) -> np.ndarray:
    """The map of every case, (M, n h, n w) float32, raw, the network looking at the whole grid.

    Args:
        grids: the cases.
        explain: gives the maps of a batch, at the size of its images.
    """
    return np.concatenate([
        _explained(explain, grids.images(grids.grid_of[part]), grids.targets[part])
        for part in _parts(len(grids.targets))
    ])  # fmt: skip


def tile_maps(grids: Grids, explain: Explain) -> np.ndarray:
    """The map of every case, put together from its tiles, each of which the network sees alone.

    The case's class is explained on every tile of its grid, its own and the others, and the raw
    maps are laid side by side at their common scale. So nothing of one tile can reach another, not
    by a spatial mean and not by gates: what differs from `grid_maps`, whose arguments these are, is
    the mixture, convolutions across borders and the blur of enlarging the whole picture at once.

    Source: after the DiFull setting of Rao et al. 2022.
    Differs from the paper: DiFull joins a classification head to each tile, so that the other tiles
        cannot matter to it; here every tile has the whole network and is asked for the same class.
    """
    laid = []
    for part in _parts(len(grids.targets)):
        tiles = grids.tiles[grids.grid_of[part]].reshape(-1)  # (B T,)
        targets = grids.targets[part].repeat(grids.n**2)
        order = np.argsort(tiles, kind="stable")  # a tile's classes together: it is run once
        alone = np.empty((len(tiles), *grids.source.shape[-2:]), np.float32)
        for some in _parts(len(order)):
            now = order[some]
            shown = grids.source[torch.from_numpy(tiles[now])]
            alone[now] = _explained(explain, shown, targets[now])
        parts = torch.from_numpy(alone).reshape(-1, grids.n**2, 1, *alone.shape[1:])
        laid.append(assemble(parts, grids.n)[:, 0].numpy())
    return np.concatenate(laid)


def assemble(parts: Tensor, n: int) -> Tensor:
    """Lay tiles (B, T, C, h, w) side by side, n in a row, to (B, C, n h, n w)."""
    batch, _, channels, h, w = parts.shape
    rows = parts.reshape(batch, n, n, channels, h, w).permute(0, 3, 1, 4, 2, 5)
    return rows.reshape(batch, channels, n * h, n * w)


class _Deck:
    """The images of one class, dealt in random order and shuffled anew when too few are left."""

    def __init__(self, cards: np.ndarray, rng: np.random.Generator) -> None:
        self.cards, self._rng, self._left = cards, rng, []

    def deal(self, number: int) -> list[int]:
        """That many different images."""
        if len(self._left) < number:
            self._left = self._rng.permutation(self.cards).tolist()
        return [self._left.pop() for _ in range(number)]


def _decks(
    images: Tensor, labels: np.ndarray, keep: np.ndarray, count: int, rng: np.random.Generator
) -> dict[int, _Deck]:
    """A deck for each class that has an image to use, after a check of the arguments."""
    fit = images.ndim == 4 and labels.shape == keep.shape == (len(images),)
    if not fit or keep.dtype != bool:
        raise DataError(
            f"images {tuple(images.shape)}, labels {labels.shape} and {keep.dtype} keep "
            f"{keep.shape} do not fit: they must be (N, C, h, w), (N,) and (N,) bool"
        )
    if count < 1:
        raise SenetError(f"count is {count}; it must be at least 1")
    check_rng(rng)
    classes = np.unique(labels[keep]).tolist()
    return {k: _Deck(np.flatnonzero(keep & (labels == k)), rng) for k in classes}


def _parts(total: int) -> Iterator[slice]:
    return (slice(start, start + BATCH) for start in range(0, total, BATCH))


def _explained(explain: Explain, images: Tensor, targets: np.ndarray) -> np.ndarray:
    """Maps of a batch, float32, checked against the size of its images."""
    maps = np.asarray(explain(images, torch.from_numpy(targets)), np.float32)
    expected = (len(images), *images.shape[-2:])
    if maps.shape != expected:
        raise DataError(f"maps of shape {maps.shape} for images that need {expected}")
    return maps
