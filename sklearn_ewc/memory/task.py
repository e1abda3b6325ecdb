"""What one learned task leaves behind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..arguments import check_count, check_finite, check_not_negative
from ..curvature import Curvature, Diagonal
from ..tensors import Tensors, copied, moved


@dataclass(frozen=True, eq=False)
class Task:
    """What one learned task leaves behind: where it ended, and what it needs.

    Parameters
    ----------
    anchor : dict of str to Tensor
        θ*, the parameters at the end of the task, by name. Copied, so that
        training on does not move them.
    curvature : Curvature, or dict of str to Tensor
        The task's curvature there, over the names and shapes of `anchor`, in the
        units of the criterion, without any floor. A dict is its diagonal, as
        from :func:`~sklearn_ewc.diagonal_fisher`, and is copied.
    weight : float, default=1.0
        w, how much this task counts beside the others. 0 forgets it.
    damping : float, default=0.0
        δ, the floor under the curvature, as a fraction of its mean over all
        parameters of the task: the penalty uses
        ``curvature + damping * trace / n_parameters``.
    n_samples : int, default=None
        Number of samples the task had, for the record.
    loss : float, default=None
        The criterion on the task at its end, for the record.

    Attributes
    ----------
    fisher : dict of str to Tensor
        The diagonal of `curvature`.

    Raises
    ------
    ValueError
        If names or shapes differ, the curvature is negative, any value or `loss` is
        not finite, or `weight` or `damping` is negative or not finite.
    TypeError
        If `anchor` or `curvature` hold anything but floating tensors.

    Examples
    --------
    >>> import torch
    >>> from sklearn_ewc import Task
    >>> task = Task({"w": torch.zeros(2)}, {"w": torch.tensor([3.0, 1.0])}, damping=0.5)
    >>> task.stiffness().diagonal()["w"]
    tensor([4., 2.], dtype=torch.float64)
    """

    anchor: Tensors = field(repr=False)
    curvature: Curvature = field(repr=False)
    weight: float = 1.0
    damping: float = 0.0
    n_samples: int | None = None
    loss: float | None = None

    def __post_init__(self) -> None:
        _check_tensors("anchor", self.anchor)
        object.__setattr__(self, "anchor", copied(self.anchor))
        if not isinstance(self.curvature, Curvature):
            _check_tensors("curvature", self.curvature)
            object.__setattr__(self, "curvature", Diagonal(copied(self.curvature)))
        object.__setattr__(self, "curvature", self.curvature.over(self.anchor))
        for name, value in self.anchor.items():
            if not value.isfinite().all():
                raise ValueError(f"anchor is not finite at {name!r}")
        for setting in ("weight", "damping"):
            check_not_negative(setting, getattr(self, setting))
        if self.n_samples is not None:
            check_count("n_samples", self.n_samples)
        if self.loss is not None:
            check_finite("loss", self.loss)

    @property
    def fisher(self) -> Tensors:
        """The diagonal of the curvature, by name of the parameter."""
        return self.curvature.diagonal()

    def stiffness(self) -> Curvature:
        """Return ``weight * (curvature + damping * trace / n_parameters)``, in float64."""
        curvature = self.curvature.to(dtype=torch.float64)
        n_parameters = sum(value.numel() for value in self.anchor.values())
        floor = self.damping * curvature.trace() / max(n_parameters, 1)
        return curvature.plus_identity(floor) * self.weight

    def to(self, device: str | torch.device) -> Task:
        """Return the same task with its tensors on another device."""
        return Task(
            moved(self.anchor, device),
            self.curvature.to(device),
            self.weight,
            self.damping,
            self.n_samples,
            self.loss,
        )


def _check_tensors(argument: str, tensors: Any) -> None:
    if not isinstance(tensors, Mapping):
        raise TypeError(f"{argument} must be a dict of tensors, got {type(tensors).__name__}")
    for name, value in tensors.items():
        if not (isinstance(value, Tensor) and value.is_floating_point()):
            found = value.dtype if isinstance(value, Tensor) else type(value).__name__
            raise TypeError(f"{argument} must hold floating tensors, got {found} at {name!r}")
