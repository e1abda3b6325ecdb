"""y as a user gives it and as a net is trained on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from sklearn.utils import Tags, check_array
from torch import Tensor


@dataclass(frozen=True)
class Values:
    """The targets of a regression: numbers, one or more per sample.

    Parameters
    ----------
    n_outputs : int, default=None
        Numbers per sample; None as long as no task has told.
    is_flat : bool, default=True
        Whether y has one axis, and predictions are to have one too.
    """

    kind: ClassVar[str] = "values"

    n_outputs: int | None = None
    is_flat: bool = True

    def __post_init__(self) -> None:
        if self.n_outputs is not None and not (type(self.n_outputs) is int and self.n_outputs >= 0):
            raise ValueError(f"n_outputs is {self.n_outputs!r}")
        if type(self.is_flat) is not bool:
            raise ValueError(f"is_flat is {self.is_flat!r}")

    @staticmethod
    def checked(y: Any, dtype: np.dtype, estimator: Any) -> np.ndarray:
        """Return y as an array of numbers, in the dtype of X."""
        return check_array(y, ensure_2d=False, dtype=dtype, input_name="y", estimator=estimator)

    @classmethod
    def of(cls, y: np.ndarray) -> Values:
        """Return what the targets of a first task say."""
        return cls(1 if y.ndim == 1 else y.shape[1], y.ndim == 1)

    def check(self, y: np.ndarray, owner: str) -> None:
        """Raise ValueError unless the targets of a later task are like those of the first."""
        n_outputs = Values.of(y).n_outputs
        if n_outputs != self.n_outputs:
            raise ValueError(
                f"y has {n_outputs} outputs, but {owner} was fitted with {self.n_outputs}"
            )

    def to_train_on(self, y: Tensor) -> Tensor:
        """Return a batch of targets with the shape of the module's output."""
        return y.unsqueeze(1) if y.ndim == 1 else y

    def to_show(self, predicted: np.ndarray) -> np.ndarray:
        """Return predictions with as many axes as y had; all columns, if the module has more."""
        if not self.is_flat:
            return predicted
        if predicted.ndim > 2:
            raise ValueError(
                f"X must have as many axes as in fit: predictions have shape {predicted.shape}"
            )
        is_wider = predicted.size != len(predicted)  # a module with more to say than y has
        return predicted if is_wider else predicted.reshape(-1)

    @staticmethod
    def tag(tags: Tags) -> Tags:
        """Return an estimator's tags with what it says of its targets."""
        tags.target_tags.multi_output = True
        return tags


TARGETS: dict[str, type[Values]] = {kind.kind: kind for kind in (Values,)}
