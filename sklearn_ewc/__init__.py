"""Continual learning for scikit-learn: Elastic Weight Consolidation on skorch."""

from .curvature import diagonal_fisher
from .memory import Memory, Task
from .pipeline import ContinualPipeline, make_continual_pipeline
from .regressor import EWCRegressor
from .selection import TaskKFold, estimate_lambda, search_lambda
from .target import ContinualTargetRegressor
from .training import MLP

__all__ = [
    "MLP",
    "ContinualPipeline",
    "ContinualTargetRegressor",
    "EWCRegressor",
    "Memory",
    "Task",
    "TaskKFold",
    "diagonal_fisher",
    "estimate_lambda",
    "make_continual_pipeline",
    "search_lambda",
]
__version__ = "0.1.0"
