"""What is kept of the tasks learned, and how it holds on to them while the next is trained."""

from .memory import MODES, WEIGH_BY, Memory, Mode, WeighBy
from .penalty import PENALTY_STEPS, Penalty, PenaltyStep
from .task import Task

__all__ = [
    "MODES",
    "PENALTY_STEPS",
    "WEIGH_BY",
    "Memory",
    "Mode",
    "Penalty",
    "PenaltyStep",
    "Task",
    "WeighBy",
]
