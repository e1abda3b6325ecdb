"""An estimator around another that learns tasks, and how a task comes to it."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

from ..wrapped import part_within


@dataclass(frozen=True)
class Arrival:
    """How a task comes to an estimator.

    Parameters
    ----------
    name : str
        What the task is called in messages.
    starts_anew : bool, default=False
        Whether the estimator first forgets what it has learned.
    routed_by : {"fit", "partial_fit"}, default="partial_fit"
        The method whose metadata requests say what goes where.
    """

    name: str
    starts_anew: bool = False
    routed_by: str = "partial_fit"


class Continual:
    """An estimator around another that learns tasks.

    It says what the other is, and how one task passes through to it. ``fit`` with
    `task`, and what the net inside has to tell, follow from that.
    """

    @property
    @abstractmethod
    def _learner(self) -> Any:
        """The estimator inside, as the user gave it: the final step, the regressor."""

    @abstractmethod
    def _learn_task(self, X: Any, y: Any, metadata: dict[str, Any], arrival: Arrival) -> None:
        """Learn one task. What fails is rolled back by the caller."""

    def _check_inside(self) -> None:
        """Raise ValueError or TypeError where what is inside, at any depth, is no estimator."""
        if isinstance(self._learner, Continual):
            self._learner._check_inside()

    @property
    def n_tasks_(self) -> int:
        """Number of tasks that the net inside has learned."""
        return self._told_by_net("n_tasks_")

    @property
    def memory_(self) -> Any:
        """What the net inside keeps of the tasks learned, a :class:`~sklearn_ewc.Memory`."""
        return self._told_by_net("memory_")

    @property
    def history(self) -> Any:
        """The history of the net inside, see :class:`~sklearn_ewc.EWCRegressor`."""
        return self._told_by_net("history")

    def _told_by_net(self, attribute: str) -> Any:
        part = part_within(self, attribute)
        if part is None:
            raise AttributeError(
                f"{type(self).__name__} has no {attribute}: there is no net inside that has, "
                "or it has learned nothing yet"
            )
        return getattr(part, attribute)

    def _next_task(self) -> Arrival:
        return Arrival(f"task {self.n_tasks_ + 1}" if hasattr(self, "n_tasks_") else "a later task")
