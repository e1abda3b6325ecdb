"""How well tasks are remembered: their scores after each task, and measures of them."""

from .arguments import Tasks
from .gap import GapClosed, gap_closed_by
from .measures import (
    TaskScores,
    average_score,
    backward_transfer,
    forgetting,
    forward_transfer,
    gap_closed,
)
from .scores import task_scores

__all__ = [
    "GapClosed",
    "TaskScores",
    "Tasks",
    "average_score",
    "backward_transfer",
    "forgetting",
    "forward_transfer",
    "gap_closed",
    "gap_closed_by",
    "task_scores",
]
