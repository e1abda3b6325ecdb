"""Continual learning for scikit-learn: Elastic Weight Consolidation on skorch."""

from .fisher import diagonal_fisher
from .memory import Memory, Task
from .modules import MLP
from .regressor import EWCRegressor
from .selection import TaskKFold, estimate_lambda, search_lambda

__all__ = [
    "MLP",
    "EWCRegressor",
    "Memory",
    "Task",
    "TaskKFold",
    "diagonal_fisher",
    "estimate_lambda",
    "search_lambda",
]
__version__ = "0.1.0"
