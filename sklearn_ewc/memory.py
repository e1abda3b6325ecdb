"""What is kept of the tasks learned, and the quadratic penalty it exerts.

A :class:`Task` is what one task leaves behind; a :class:`Memory` holds all of
them and answers with one number, the penalty. Both are immutable: learning a
task replaces the memory, it never changes one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

Tensors = dict[str, Tensor]


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

    anchor: Tensors
    fisher: Tensors
    weight: float = 1.0
    damping: float = 0.0
    n_samples: int | None = None

    def __post_init__(self) -> None:
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
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{setting} must be finite and not negative, got {value!r}")
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
class Quadratic:
    """A diagonal quadratic, ½ Σ_i [S_i (θ_i − r_i)² − 2 M_i (θ_i − r_i)] + ½ C.

    The sum of any number of anchored quadratics is of this form, exactly: a
    memory of 1,000 tasks pulls with the arithmetic of one. The reference r
    follows the last anchor, so that S (θ − r) and M stay small where training
    happens and their difference keeps its digits.
    """

    reference: Tensors
    stiffness: Tensors
    pull: Tensors
    constant: float = 0.0

    def added(self, anchor: Tensors, curvature: Tensors) -> Quadratic:
        """Return this plus ½ Σ_i curvature_i (θ_i − anchor_i)², referred to `anchor`.

        Parameters that `anchor` lacks (frozen since) keep their reference.
        """
        reference, stiffness, pull = dict(self.reference), dict(self.stiffness), dict(self.pull)
        constant = self.constant
        for name, position in anchor.items():
            if name in reference:
                shift = position.double() - reference[name].double()
                constant += float(((stiffness[name] * shift - 2 * pull[name]) * shift).sum())
                pull[name] = pull[name] - stiffness[name] * shift
                stiffness[name] = stiffness[name] + curvature[name]
            else:
                pull[name] = torch.zeros_like(curvature[name])
                stiffness[name] = curvature[name]
            reference[name] = position
        return Quadratic(reference, stiffness, pull, max(constant, 0.0))

    def rounded(self) -> Quadratic:
        """Return the same quadratic with S and M in the dtype of each parameter."""
        stiffness, pull = (
            {name: value.to(self.reference[name].dtype) for name, value in values.items()}
            for values in (self.stiffness, self.pull)
        )
        return Quadratic(self.reference, stiffness, pull, self.constant)

    def __call__(self, params: Mapping[str, Tensor]) -> Tensor:
        """Return the value at `params`, differentiable once."""
        names = self.reference.keys()
        missing = [name for name in names if name not in params]
        if missing:
            raise ValueError(f"params lacks parameters that the memory holds: {missing}")
        if not names:
            return torch.zeros(())
        return _QuadraticForm.apply(self, *(params[name] for name in names))


class _QuadraticForm(torch.autograd.Function):
    """One node in the graph for all parameters, value and gradient in one pass."""

    @staticmethod
    def forward(ctx: Any, quadratic: Quadratic, *params: Tensor) -> Tensor:
        pull = list(quadratic.pull.values())
        shift = torch._foreach_sub(params, list(quadratic.reference.values()))
        gradient = torch._foreach_mul(shift, list(quadratic.stiffness.values()))
        torch._foreach_sub_(gradient, pull)
        ctx.save_for_backward(*gradient)
        terms = torch._foreach_mul(torch._foreach_sub(gradient, pull), shift)
        total = torch.cat([term.flatten() for term in terms]).sum()
        return 0.5 * (total + quadratic.constant)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        return None, *torch._foreach_mul(ctx.saved_tensors, upstream)


class BoundPenalty:
    """A memory's penalty on the parameters of one module, added to their gradients directly.

    The same value and gradient as :meth:`Memory.penalty`, without a graph: three
    passes over the parameters a step, and none for a value that nobody asks for.
    """

    def __init__(self, quadratic: Quadratic, params: Mapping[str, Tensor]) -> None:
        self.quadratic = quadratic
        self.params = params
        self.terms = [
            (params[name], reference, quadratic.stiffness[name], quadratic.pull[name])
            for name, reference in quadratic.reference.items()
        ]

    @torch.no_grad()
    def value(self) -> Tensor:
        """Return the penalty, without λ."""
        return self.quadratic(self.params)

    @torch.no_grad()
    def add_gradient(self, ewc_lambda: float) -> None:
        """Add λ (S (θ − r) − M) to the ``.grad`` of every parameter that is being trained."""
        terms = [term for term in self.terms if term[0].requires_grad]
        if not terms:
            return
        params, reference, stiffness, pull = (list(column) for column in zip(*terms, strict=True))
        for p in params:
            if p.grad is None:
                p.grad = torch.zeros_like(p)
        gradients = [p.grad for p in params]
        shift = torch._foreach_sub(params, reference)
        torch._foreach_addcmul_(gradients, shift, stiffness, value=ewc_lambda)
        torch._foreach_sub_(gradients, pull, alpha=ewc_lambda)


@dataclass(frozen=True, eq=False)
class Memory:
    """All tasks learned so far, and the penalty that protects them.

    Parameters
    ----------
    store_tasks : bool, default=True
        Whether to keep every :class:`Task` (8 bytes per parameter and task in
        float32) or only the sums that the penalty needs, whose size does not
        grow. The penalty is the same.

    Attributes
    ----------
    tasks : tuple of Task
        The tasks, in the order learned; empty if ``store_tasks=False``.
    n_tasks : int
        Number of tasks consolidated.

    Notes
    -----
    With A_k = w_k (F_k + δ_k mean(F_k)) the penalty is that of offline EWC [1]_,

        ½ Σ_k Σ_i A_k,i (θ_i − θ*_k,i)²  =  ½ Σ_i [S_i (θ_i − r_i)² − 2 M_i (θ_i − r_i)] + C,

    S = Σ_k A_k and M = Σ_k A_k (θ*_k − r), for any r: the sum over tasks
    collapses exactly, and costs the same after 1,000 tasks as after one. r is
    the last task's anchor; the sums are accumulated in float64 and used in the
    dtype of the parameters.

    References
    ----------
    .. [1] Kirkpatrick et al., "Overcoming catastrophic forgetting in neural
       networks", PNAS 114 (2017), equation 3.

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
    tasks: tuple[Task, ...] = field(default=(), repr=False)
    n_tasks: int = 0
    quadratic: Quadratic = field(default=Quadratic({}, {}, {}), repr=False)

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
        """
        known = self.quadratic.reference
        for name, anchor in task.anchor.items():
            if name in known and known[name].shape != anchor.shape:
                raise ValueError(
                    f"parameter {name!r} has shape {tuple(anchor.shape)} in this task "
                    f"and {tuple(known[name].shape)} in the memory"
                )
        return Memory(
            store_tasks=self.store_tasks,
            tasks=(*self.tasks, task) if self.store_tasks else (),
            n_tasks=self.n_tasks + 1,
            quadratic=self.quadratic.added(task.anchor, task.curvature()),
        )

    def penalty(self, params: Mapping[str, Tensor] | Iterable[tuple[str, Tensor]]) -> Tensor:
        """Return ½ Σ_k w_k Σ_i (F_k,i + floor_k) (θ_i − θ*_k,i)², without λ.

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
            If `params` lacks a parameter that the memory holds.
        """
        return self._working(dict(params))

    def to(self, device: str | torch.device) -> Memory:
        """Return the same memory with its tensors on another device."""

        def moved(tensors: Tensors) -> Tensors:
            return {name: value.to(device) for name, value in tensors.items()}

        q = self.quadratic
        return replace(
            self,
            tasks=tuple(
                replace(task, anchor=moved(task.anchor), fisher=moved(task.fisher))
                for task in self.tasks
            ),
            quadratic=Quadratic(moved(q.reference), moved(q.stiffness), moved(q.pull), q.constant),
        )

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
    def _working(self) -> Quadratic:
        return self.quadratic.rounded()


def _copied(tensors: Tensors) -> Tensors:
    return {name: value.detach().clone() for name, value in tensors.items()}
