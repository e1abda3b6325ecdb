"""Continual learning for scikit-learn: Elastic Weight Consolidation on skorch."""

from .fisher import diagonal_fisher
from .memory import Memory, Task
from .modules import MLP
from .regressor import EWCRegressor

__all__ = ["MLP", "EWCRegressor", "Memory", "Task", "diagonal_fisher"]
__version__ = "0.1.0"
