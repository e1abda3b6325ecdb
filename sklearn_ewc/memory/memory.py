"""All tasks learned so far, as one immutable value."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor

from ..arguments import (
    check_choice,
    check_count,
    check_finite,
    check_not_negative,
    check_switch,
    naming,
    shown,
)
from ..tensors import cached_property
from .density import Density, OldInputs
from .penalty import Penalty
from .quadratic import Quadratic
from .task import Task

Mode: TypeAlias = Literal["offline", "online"]
MODES: tuple[str, ...] = get_args(Mode)
WeighBy: TypeAlias = Literal["task", "sample"]
WEIGH_BY: tuple[str, ...] = get_args(WeighBy)


@dataclass(frozen=True, eq=False)
class Memory:
    """All tasks learned so far, and the penalty that protects them.

    Immutable: learning a task replaces the memory, it never changes one.

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
        γ, by how much the running sum, and what replayed inputs count, shrinks with
        every task; less than 1 lets old tasks fade. For ``mode="online"``.
    weigh_by : {"task", "sample"}, default="task"
        How tasks count. "task": each by its mean loss, whatever its size. "sample":
        by its loss summed over its samples, as in the loss over all rows together;
        the penalty is then in units of a sum, to be divided by the number of samples
        of the task that is trained under it, see :meth:`bound`.

    Attributes
    ----------
    tasks : tuple of Task
        The tasks, in the order learned; empty if ``store_tasks=False``.
    n_tasks : int
        Number of tasks consolidated.
    n_samples : int or None
        Number of samples that all tasks had; None if one of them did not tell.
    loss : float or None
        The mean over all those samples of the criterion at the end of their task,
        which is what is left of the noise in the tasks; None if one did not tell.
    inputs : tuple of OldInputs
        Densities of the inputs of those tasks that were consolidated with one, each
        with what its task counts; kept with ``store_tasks=False`` too. The penalty
        does not depend on them.

    Notes
    -----
    With A_k = w_k (F_k + δ_k mean(F_k)), here for diagonal curvatures, and w_k n_k in
    the place of w_k where tasks count by their n_k samples, the penalty is that of
    offline EWC [1]_,

        ½ Σ_k Σ_i A_k,i (θ_i − θ*_k,i)²  =  ½ Σ_i S_i (θ_i − c_i)² + ½ C,

    S = Σ_k A_k and c = Σ_k A_k θ*_k / S: the sum over tasks collapses exactly,
    and costs the same after 1,000 tasks as after one. It is kept in float64 and
    used in the dtype of the parameters, c centred so that no digits cancel.

    Online, S ← γ S + A_K and c is the last anchor θ*_K. The earlier anchors are
    forgotten, on the grounds that the last one was held close to them. Curvatures of
    the kind :class:`~sklearn_ewc.curvature.Kronecker` add up in no other way: offline
    the sum would be none of their kind, and is refused.

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
    mode: Mode = "offline"
    gamma: float = 1.0
    weigh_by: WeighBy = "task"
    tasks: tuple[Task, ...] = field(default=(), repr=False)
    n_tasks: int = 0
    n_samples: int | None = 0
    loss: float | None = 0.0
    quadratic: Quadratic = field(default_factory=Quadratic.zero, repr=False)
    inputs: tuple[OldInputs, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        check_switch("store_tasks", self.store_tasks)
        check_choice("mode", self.mode, MODES)
        check_choice("weigh_by", self.weigh_by, WEIGH_BY)
        check_not_negative("gamma", self.gamma)
        if self.gamma > 1:
            raise ValueError(f"gamma must be between 0 and 1, got {self.gamma!r}")
        check_count("n_tasks", self.n_tasks)
        if self.n_samples is not None:
            check_count("n_samples", self.n_samples)
        if self.loss is not None:
            check_finite("loss", self.loss)
        if not (isinstance(self.tasks, tuple) and all(isinstance(k, Task) for k in self.tasks)):
            raise TypeError(f"tasks must be a tuple of Task, got {shown(self.tasks)}")
        if not isinstance(self.quadratic, Quadratic):
            raise TypeError(f"quadratic must be a Quadratic, got {shown(self.quadratic)}")
        if not (
            isinstance(self.inputs, tuple) and all(isinstance(k, OldInputs) for k in self.inputs)
        ):
            raise TypeError(f"inputs must be a tuple of OldInputs, got {shown(self.inputs)}")

    def consolidate(self, task: Task, inputs: Density | None = None) -> Memory:
        """Return a memory that holds `task` too. This one is unchanged.

        Parameters
        ----------
        task : Task
            Parameters that earlier tasks did not store (thawed since) are
            taken up; those that it lacks (frozen since) stay as they are.
        inputs : Density, default=None
            Of the task's inputs, as from
            :func:`~sklearn_ewc.training.densities.fitted_density`, to be drawn from
            while later tasks are trained, as often as `task.weight` says; of a task of
            weight 0 nothing is kept.

        Returns
        -------
        Memory

        Raises
        ------
        ValueError
            If a parameter has another shape than before, the curvature is of another
            kind, the sums overflow, or tasks count by their samples and this one does
            not tell how many it had.
        """
        if not isinstance(task, Task):
            raise TypeError(f"task must be a Task, got {type(task).__name__}")
        if not (inputs is None or isinstance(inputs, Density)):
            raise TypeError(f"inputs must be None or a Density, got {shown(inputs)}")
        self._check_fits(task)
        earlier = self.quadratic
        if self.mode == "online":
            earlier = earlier.moved(task.anchor).scaled(self.gamma)
        quadratic = earlier.added(task.anchor, task.stiffness() * self._n_counted(task))
        if not quadratic.is_finite():
            raise ValueError(
                f"the task's curvature with weight={task.weight!r} and damping={task.damping!r} is "
                "too large to be added up in float64"
            )
        n_samples, loss = self._record_with(task)
        return replace(
            self,
            tasks=(*self.tasks, task) if self.store_tasks else (),
            n_tasks=self.n_tasks + 1,
            n_samples=n_samples,
            loss=loss,
            quadratic=quadratic,
            inputs=self._inputs_with(inputs, self.weight_of(task)),
        )

    def weight_of(self, task: Task) -> float:
        """Return how much a task counts: w_k, or w_k n_k where tasks count by their samples.

        Raises
        ------
        ValueError
            If they do, and this one does not tell how many it had.
        """
        return task.weight * self._n_counted(task)

    def _n_counted(self, task: Task) -> int:
        if self.weigh_by == "task":
            return 1
        if task.n_samples is None:
            raise ValueError("the task needs n_samples, where weigh_by='sample'")
        return task.n_samples

    def _inputs_with(self, density: Density | None, weight: float) -> tuple[OldInputs, ...]:
        fading = self.gamma if self.mode == "online" else 1.0
        earlier = [one.scaled(fading) for one in self.inputs]
        added = [] if density is None else [OldInputs(density, weight)]
        return tuple(one for one in (*earlier, *added) if one.weight > 0)

    def _check_fits(self, task: Task) -> None:
        known = self.quadratic.centre
        if known and task.curvature.kind != self.quadratic.curvature.kind:
            raise ValueError(
                f"the task's curvature is {task.curvature.kind}, the memory's "
                f"{self.quadratic.curvature.kind}"
            )
        for name, anchor in task.anchor.items():
            if name in known and known[name].shape != anchor.shape:
                raise ValueError(
                    f"parameter {name!r} has shape {tuple(anchor.shape)} in this task "
                    f"and {tuple(known[name].shape)} in the memory"
                )

    def _record_with(self, task: Task) -> tuple[int | None, float | None]:
        """Return `n_samples` and `loss` of all tasks, this one included."""
        if self.n_samples is None or task.n_samples is None:
            return None, None
        n_samples = self.n_samples + task.n_samples
        if self.loss is None or task.loss is None:
            return n_samples, None
        share = task.n_samples / max(n_samples, 1)
        return n_samples, self.loss + share * (task.loss - self.loss)

    def penalty(self, params: Mapping[str, Tensor] | Iterable[tuple[str, Tensor]]) -> Tensor:
        """Return ½ Σ_k w_k Σ_i (F_k,i + floor_k) (θ_i − θ*_k,i)², or its online kin, without λ.

        That is by how much the old tasks' losses have grown, to second order: their
        mean losses or, with ``weigh_by="sample"``, the sums over their samples.

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
        return self._working(self._checked(params))

    def _checked(
        self, params: Mapping[str, Tensor] | Iterable[tuple[str, Tensor]]
    ) -> dict[str, Tensor]:
        with naming("params"):
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
        return params

    def to(self, device: str | torch.device) -> Memory:
        """Return the same memory with its tensors on another device."""
        tasks = tuple(task.to(device) for task in self.tasks)
        inputs = tuple(one.to(device) for one in self.inputs)
        return replace(self, tasks=tasks, quadratic=self.quadratic.to(device), inputs=inputs)

    def bound(
        self,
        params: Mapping[str, Tensor] | Iterable[tuple[str, Tensor]],
        ewc_lambda: float = 1.0,
        n_samples: int | None = None,
    ) -> Penalty:
        """Return the penalty tied to the parameters of one module, for many cheap steps.

        Parameters
        ----------
        params : dict of str to Tensor, or iterable of such pairs
            As for :meth:`penalty`; leaves of the graph.
        ewc_lambda : float, default=1.0
            λ, the factor of the penalty.
        n_samples : int, default=None
            Number of samples of the task that is trained under it, whose mean loss the
            penalty joins: it is divided by this where tasks count by their samples.
            None: it is that of :meth:`penalty` in any case.

        Returns
        -------
        Penalty

        Raises
        ------
        ValueError, TypeError
            As for :meth:`penalty`.
        """
        check_not_negative("ewc_lambda", ewc_lambda)
        if n_samples is not None:
            check_count("n_samples", n_samples)
            if n_samples == 0:
                raise ValueError("n_samples must be positive, got 0")
        params = self._checked(params)
        working = self._beside(n_samples)
        working.check_names(params)
        return Penalty(working, params, ewc_lambda)

    @property
    def n_bytes(self) -> dict[str, tuple[int, ...]]:
        """How many bytes each part takes.

        Under "sums" what training needs of all tasks together, which does not grow; under
        "tasks" each single task that is stored; under "inputs" each density that is
        replayed, of which an estimator of one's own counts as its pickle.
        """
        quadratic = self.quadratic
        sums = (quadratic.centre, quadratic.remainder, quadratic.curvature.state_dict())
        return {
            "sums": (sum(map(_n_bytes, sums)),),
            "tasks": tuple(
                _n_bytes(task.anchor) + _n_bytes(task.curvature.state_dict()) for task in self.tasks
            ),
            "inputs": tuple(one.density.n_bytes for one in self.inputs),
        }

    def weights_of_inputs(self, n_samples: int) -> list[float]:
        """Return how much those of each task count beside a new one of so many samples."""
        unit = 1 if self.weigh_by == "task" else n_samples
        return [one.weight / unit for one in self.inputs]

    def _beside(self, n_samples: int | None) -> Quadratic:
        """Return the quadratic to train under, in the units of the mean over so many samples."""
        if self.weigh_by == "task" or n_samples is None:
            return self._working
        return self.quadratic.scaled(1 / n_samples).for_training()

    @cached_property
    def _working(self) -> Quadratic:
        return self.quadratic.for_training()


def _n_bytes(tensors: Mapping[str, Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors.values())
