"""Data sets: where images come from, in one canonical order, and how batches are augmented."""

from senet_lib.data.datasets import Dataset, hold_out, load_data, load_matching
from senet_lib.data.pictures import read_picture, square

__all__ = ["Dataset", "hold_out", "load_data", "load_matching", "read_picture", "square"]
