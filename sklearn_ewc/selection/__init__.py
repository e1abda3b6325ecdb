"""Choosing λ: by cross-validation over all tasks, or from a new task and the memory alone."""

from .estimate import LambdaEstimate, estimate_lambda
from .folds import TaskKFold
from .search import search_lambda

__all__ = ["LambdaEstimate", "TaskKFold", "estimate_lambda", "search_lambda"]
