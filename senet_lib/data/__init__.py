"""Data sets: where images come from, in one canonical order, and how batches are augmented."""

from senet_lib.data.datasets import Dataset, hold_out, load_data, make_shapes, prepare, take

__all__ = ["Dataset", "hold_out", "load_data", "make_shapes", "prepare", "take"]
