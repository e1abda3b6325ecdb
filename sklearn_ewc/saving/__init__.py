"""Files that are whole, and loading that changes nothing unless all of it fits."""

from .params import load_params, save_params
from .whole_file import whole_file

__all__ = ["load_params", "save_params", "whole_file"]
