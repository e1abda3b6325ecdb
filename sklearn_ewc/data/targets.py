"""y as a user gives it and as a net is trained on it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.preprocessing import StandardScaler
from sklearn.utils import Tags, check_array
from torch import Tensor

from .arrays import FLOATS

SCALE_Y = "scale y, as ContinualTargetRegressor does"


@dataclass(frozen=True)
class Values:
    """The targets of a regression: numbers, one or more per sample.

    Parameters
    ----------
    n_outputs : int, default=None
        Numbers per sample; None as long as no task has told.
    is_flat : bool, default=True
        Whether y has one axis, and predictions are to have one too.
    centre, scale : tuple of float, default=None
        What is taken off each output, and what it is divided by, to be trained on.
        None: y is trained on as it is.
    """

    kind: ClassVar[str] = "values"

    n_outputs: int | None = None
    is_flat: bool = True
    centre: tuple[float, ...] | None = None
    scale: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if self.n_outputs is not None and not (type(self.n_outputs) is int and self.n_outputs >= 0):
            raise ValueError(f"n_outputs is {self.n_outputs!r}")
        if type(self.is_flat) is not bool:
            raise ValueError(f"is_flat is {self.is_flat!r}")
        if self.centre is None and self.scale is None:
            return
        for name in ("centre", "scale"):
            numbers = getattr(self, name)
            if not (isinstance(numbers, tuple | list) and all(map(_is_finite, numbers))):
                raise ValueError(f"{name} is {numbers!r}")
            object.__setattr__(self, name, tuple(numbers))
        centre, scale = self.centre or (), self.scale or ()
        if len(centre) != len(scale) or not scale or min(scale) <= 0:
            raise ValueError(f"scale is {scale!r}, centre is {centre!r}")

    @staticmethod
    def checked(y: Any, dtype: np.dtype, estimator: Any) -> np.ndarray:
        """Return y as an array of numbers, in the dtype of X."""
        y = check_array(y, ensure_2d=False, dtype=FLOATS, input_name="y", estimator=estimator)
        with np.errstate(over="ignore"):
            converted = y.astype(dtype, copy=False)
        if not np.isfinite(converted).all():
            raise ValueError(f"y is too large for {dtype}: {SCALE_Y}")
        return converted

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

    def scaled_to(self, y: np.ndarray, sample_weight: np.ndarray | None) -> Values:
        """Return what trains on targets of mean 0 and standard deviation 1, as these are then.

        An output that is constant is centred alone.
        """
        table = np.asarray(y, dtype=np.float64).reshape(len(y), -1)
        unit = np.abs(table).max(axis=0)  # squares neither overflow nor vanish
        unit[unit == 0] = 1.0
        scaler = StandardScaler().fit(table / unit, sample_weight=sample_weight)
        centre, scale = (numbers * unit for numbers in (scaler.mean_, scaler.scale_))
        constant = scaler.var_ == 0
        return replace(
            self,
            centre=tuple(centre.tolist()),
            scale=tuple(np.where(constant, 1.0, scale).tolist()),
        )

    def shaped(self, y: Tensor) -> Tensor:
        """Return a batch of targets with the shape of the module's output."""
        return y.unsqueeze(1) if y.ndim == 1 else y

    def to_train_on(self, y: Tensor) -> Tensor:
        """Return a batch of targets as the module is to return them."""
        y = self.shaped(y)
        if self.centre is None or self.scale is None:
            return y
        return (y - _numbers(self.centre, y)) / _numbers(self.scale, y)

    def restored(self, output: Tensor) -> Tensor:
        """Return what the module says of a batch in the units of y."""
        if self.centre is None or self.scale is None:
            return output
        return output * _numbers(self.scale, output) + _numbers(self.centre, output)

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


def _is_finite(number: Any) -> bool:
    return type(number) is float and math.isfinite(number)


def _numbers(numbers: tuple[float, ...], like: Tensor) -> Any:
    """Return one number per output in a form that combines with a batch."""
    if len(numbers) == 1:
        return numbers[0]
    dtype = like.dtype if like.is_floating_point() else torch.get_default_dtype()
    return _as_tensor(numbers, dtype, like.device).reshape(like.shape[1:])


@lru_cache(maxsize=64)
def _as_tensor(numbers: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.tensor(numbers, dtype=dtype, device=device)
