"""Pictures of what is remembered, in scikit-learn's Display convention.

Each display has class methods that compute and draw (``from_estimator`` and the
like), a method ``plot`` that draws again, and the artists it drew as attributes
that end in an underscore. Only drawing needs matplotlib.
"""

from .fisher import FisherDisplay
from .lambda_curve import LambdaDisplay
from .loss_curve import LossCurveDisplay
from .memory import MemoryDisplay
from .task_scores import TaskScoresDisplay

__all__ = [
    "FisherDisplay",
    "LambdaDisplay",
    "LossCurveDisplay",
    "MemoryDisplay",
    "TaskScoresDisplay",
]
