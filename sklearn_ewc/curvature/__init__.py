"""How a loss bends around the parameters that a task ended with.

`fisher.py` runs a module over a task's batches: from the criterion
(`criterion.py`) it takes vectors at the output, which `fisher` names, and hands
them to a kind of curvature, which keeps of the matrix Jᵀ H J what it can:
`diagonal.py` the diagonal, `kronecker.py` a diagonal in a basis of each layer
(`basis.py`, found by `pairs.py`). What all kinds can do is in `base.py`.
"""

from .base import Curvature, Resolvent
from .basis import Basis
from .diagonal import Diagonal
from .fisher import (
    FISHERS,
    KINDS,
    Fisher,
    Kind,
    curvature_and_loss,
    curvature_of,
    diagonal_fisher,
    random_signs,
)
from .kronecker import Kronecker

__all__ = [
    "FISHERS",
    "KINDS",
    "Basis",
    "Curvature",
    "Diagonal",
    "Fisher",
    "Kind",
    "Kronecker",
    "Resolvent",
    "curvature_and_loss",
    "curvature_of",
    "diagonal_fisher",
    "random_signs",
]
