"""What is kept of the tasks learned, and the quadratic penalty it exerts.

A :class:`Task` is what one task leaves behind; a :class:`Memory` holds all of
them, and the quadratic that they add up to. Both are immutable: learning a
task replaces the memory, it never changes one.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from .penalty import BoundPenalty
from .quadratic import FlatQuadratic, Quadratic, Tensors

MODES = ("offline", "online")


@dataclass(frozen=True, eq=False)
class Task:
    """What one learned task leaves behind: where it ended, and what it needs.

    Parameters
    ----------
    anchor : dict of str to Tensor
        θ*, the parameters at the end of the task, by name. Copied, so that
        training on does not move them.
    fisher : dict of str to Tensor
        F, the task's diagonal Fisher, of the names and shapes of `anchor`, in
        the units of the criterion, without any floor. See
        :func:`~sklearn_ewc.diagonal_fisher`. Copied.
    weight : float, default=1.0
        w, how much this task counts beside the others. 0 forgets it.
    damping : float, default=0.0
        δ, the floor under F, as a fraction of its mean over all parameters of
        the task: the penalty uses ``F + damping * mean(F)``.
    n_samples : int, default=None
        Number of samples the task had, for the record.

    Raises
    ------
    ValueError
        If names or shapes differ, F is negative, any value is not finite, or
        `weight` or `damping` is negative or not finite.

    Examples
    --------
    >>> import torch
    >>> from sklearn_ewc import Task
    >>> task = Task({"w": torch.zeros(2)}, {"w": torch.tensor([3.0, 1.0])}, damping=0.5)
    >>> task.curvature()["w"]
    tensor([4., 2.], dtype=torch.float64)
    """

    anchor: Tensors = field(repr=False)
    fisher: Tensors = field(repr=False)
    weight: float = 1.0
    damping: float = 0.0
    n_samples: int | None = None

    def __post_init__(self) -> None:
        for argument in ("anchor", "fisher"):
            _check_tensors(argument, getattr(self, argument))
        if self.anchor.keys() != self.fisher.keys():
            differing = sorted(self.anchor.keys() ^ self.fisher.keys())
            raise ValueError(f"anchor and fisher name different parameters: {differing}")
        for name, fisher in self.fisher.items():
            anchor = self.anchor[name]
            if anchor.shape != fisher.shape:
                raise ValueError(
                    f"anchor and fisher differ in shape at {name!r}: "
                    f"{tuple(anchor.shape)} and {tuple(fisher.shape)}"
                )
            if not (anchor.isfinite().all() and fisher.isfinite().all()):
                raise ValueError(f"anchor or fisher is not finite at {name!r}")
            if (fisher < 0).any():
                raise ValueError(f"fisher is negative at {name!r}")
        for setting in ("weight", "damping"):
            value = getattr(self, setting)
            if not 0 <= value <= sys.float_info.max:
                raise ValueError(f"{setting} must be finite and not negative, got {value!r}")
        if self.n_samples is not None and self.n_samples < 0:
            raise ValueError(f"n_samples must not be negative, got {self.n_samples!r}")
        object.__setattr__(self, "anchor", _copied(self.anchor))
        object.__setattr__(self, "fisher", _copied(self.fisher))

    def curvature(self) -> Tensors:
        """Return ``weight * (F + damping * mean(F))`` by name, in float64."""
        fisher = {name: value.double() for name, value in self.fisher.items()}
        n_parameters = sum(value.numel() for value in fisher.values())
        total = math.fsum(float(value.sum()) for value in fisher.values())
        floor = self.damping * total / max(n_parameters, 1)
        return {name: self.weight * (value + floor) for name, value in fisher.items()}


@dataclass(frozen=True, eq=False)
class Memory:
    """All tasks learned so far, and the penalty that protects them.

    Parameters
    ----------
    store_tasks : bool, default=True
        Whether to keep every :class:`Task` (8 bytes per parameter and task in
        float32) or only the sums that the penalty needs, whose size does not
        grow. The penalty is the same.

    mode : {"offline", "online"}, default="offline"
        "offline" adds a penalty for every task, each around its own anchor [1]_.
        "online" keeps one: a running sum of the tasks' curvatures, around the
        anchor of the last task alone [2]_.
    gamma : float, default=1.0
        γ, by how much the running sum shrinks with every task; less than 1 lets
        old tasks fade. For ``mode="online"``.

    Attributes
    ----------
    tasks : tuple of Task
        The tasks, in the order learned; empty if ``store_tasks=False``.
    n_tasks : int
        Number of tasks consolidated.

    Notes
    -----
    With A_k = w_k (F_k + δ_k mean(F_k)) the penalty is that of offline EWC [1]_,

        ½ Σ_k Σ_i A_k,i (θ_i − θ*_k,i)²  =  ½ Σ_i S_i (θ_i − c_i)² + ½ C,

    S = Σ_k A_k and c = Σ_k A_k θ*_k / S: the sum over tasks collapses exactly,
    and costs the same after 1,000 tasks as after one. It is kept in float64 and
    used in the dtype of the parameters, c centred so that no digits cancel.

    Online, S ← γ S + A_K and c is the last anchor θ*_K. The earlier anchors are
    forgotten, on the grounds that the last one was held close to them.

    References
    ----------
    .. [1] Kirkpatrick et al., "Overcoming catastrophic forgetting in neural
       networks", PNAS 114 (2017), equation 3.
    .. [2] Schwarz et al., "Progress & Compress: A scalable framework for
       continual learning", ICML (2018), equations 8 and 9.

    Examples
    --------
    >>> import torch
    >>> from sklearn_ewc import Memory, Task
    >>> first = Task({"w": torch.tensor([0.0])}, {"w": torch.tensor([2.0])})
    >>> second = Task({"w": torch.tensor([1.0])}, {"w": torch.tensor([4.0])})
    >>> memory = Memory().consolidate(first).consolidate(second)
    >>> memory.penalty({"w": torch.tensor([0.5])})  # ½ (2 · 0.5² + 4 · 0.5²)
    tensor(0.7500)
    """

    store_tasks: bool = True
    mode: str = "offline"
    gamma: float = 1.0
    tasks: tuple[Task, ...] = field(default=(), repr=False)
    n_tasks: int = 0
    quadratic: Quadratic = field(default=Quadratic({}, {}, {}), repr=False)

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ValueError(f"mode must be 'offline' or 'online', got {self.mode!r}")
        if not 0 <= self.gamma <= 1:
            raise ValueError(f"gamma must be between 0 and 1, got {self.gamma!r}")

    def consolidate(self, task: Task) -> Memory:
        """Return a memory that holds `task` too. This one is unchanged.

        Parameters
        ----------
        task : Task
            Parameters that earlier tasks did not store (thawed since) are
            taken up; those that it lacks (frozen since) stay as they are.

        Returns
        -------
        Memory

        Raises
        ------
        ValueError
            If a parameter has another shape than before, or the sums overflow.
        """
        if not isinstance(task, Task):
            raise TypeError(f"task must be a Task, got {type(task).__name__}")
        known = self.quadratic.centre
        for name, anchor in task.anchor.items():
            if name in known and known[name].shape != anchor.shape:
                raise ValueError(
                    f"parameter {name!r} has shape {tuple(anchor.shape)} in this task "
                    f"and {tuple(known[name].shape)} in the memory"
                )
        earlier = self.quadratic
        if self.mode == "online":
            earlier = earlier.moved(task.anchor).scaled(self.gamma)
        quadratic = earlier.added(task.anchor, task.curvature())
        if not quadratic.is_finite():
            raise ValueError(
                f"the task's Fisher with weight={task.weight!r} and damping={task.damping!r} is "
                "too large to be added up in float64"
            )
        return replace(
            self,
            tasks=(*self.tasks, task) if self.store_tasks else (),
            n_tasks=self.n_tasks + 1,
            quadratic=quadratic,
        )

    def penalty(self, params: Mapping[str, Tensor] | Iterable[tuple[str, Tensor]]) -> Tensor:
        """Return ½ Σ_k w_k Σ_i (F_k,i + floor_k) (θ_i − θ*_k,i)², or its online kin, without λ.

        Parameters
        ----------
        params : dict of str to Tensor, or iterable of such pairs
            The parameters θ by name, as from ``module.named_parameters()``.
            Those that the memory does not hold are ignored.

        Returns
        -------
        Tensor of shape ()
            Differentiable once with respect to `params`; 0 for an empty memory.

        Raises
        ------
        ValueError
            If `params` lacks a parameter that the memory holds, or has it in
            another shape.
        TypeError
            If it holds anything but tensors.
        """
        params = dict(params)
        for name, centre in self.quadratic.centre.items():
            if name not in params:
                continue  # named with the others that are missing
            if not isinstance(params[name], Tensor):
                raise TypeError(f"params must hold tensors, got {type(params[name]).__name__}")
            if params[name].shape != centre.shape:
                raise ValueError(
                    f"params has shape {tuple(params[name].shape)} at {name!r}, the memory "
                    f"{tuple(centre.shape)}"
                )
        return self._working(params)

    def to(self, device: str | torch.device) -> Memory:
        """Return the same memory with its tensors on another device."""

        def moved(tensors: Tensors) -> Tensors:
            return {name: value.to(device) for name, value in tensors.items()}

        tasks = tuple(
            replace(task, anchor=moved(task.anchor), fisher=moved(task.fisher))
            for task in self.tasks
        )
        return replace(self, tasks=tasks, quadratic=self.quadratic.to(device))

    def bound(self, params: Mapping[str, Tensor] | Iterable[tuple[str, Tensor]]) -> BoundPenalty:
        """Return the penalty tied to the parameters of one module, for many cheap steps.

        Parameters
        ----------
        params : dict of str to Tensor, or iterable of such pairs
            As for :meth:`penalty`; leaves of the graph.

        Returns
        -------
        BoundPenalty
        """
        return BoundPenalty(self._working, dict(params))

    @cached_property
    def _working(self) -> FlatQuadratic:
        return self.quadratic.flattened()


def _check_tensors(argument: str, tensors: Any) -> None:
    if not isinstance(tensors, Mapping):
        raise TypeError(f"{argument} must be a dict of tensors, got {type(tensors).__name__}")
    for name, value in tensors.items():
        if not (isinstance(value, Tensor) and value.is_floating_point()):
            found = value.dtype if isinstance(value, Tensor) else type(value).__name__
            raise TypeError(f"{argument} must hold floating tensors, got {found} at {name!r}")


def _copied(tensors: Tensors) -> Tensors:
    return {name: value.detach().clone() for name, value in tensors.items()}
