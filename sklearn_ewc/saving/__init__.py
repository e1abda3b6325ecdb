"""Files that are whole, and loading that changes nothing unless all of it fits."""

from .reading import load_params
from .whole_file import whole_file
from .writing import save_params

__all__ = ["load_params", "save_params", "whole_file"]
