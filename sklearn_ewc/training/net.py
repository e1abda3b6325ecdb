"""EWCNet: what every estimator of the library is."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar, Literal

import numpy as np
import skorch.dataset
import torch
from sklearn.base import BaseEstimator
from skorch import NeuralNet
from torch import Tensor, nn

from .. import saving
from ..arguments import check_not_negative, naming
from ..curvature import Fisher, Kind
from ..data.batches import TensorBatches
from ..data.checks import TaskData
from ..data.targets import Values
from ..data.tasks import split_by_task
from ..memory import Memory, Mode, PenaltyStep, WeighBy
from ..rollback import all_or_nothing
from . import loop, steps
from .arrival import begin_task, check_weighing, checked_task, split_task
from .buffers import at_rest, set_training
from .building import (
    built_module,
    check_made,
    is_of_optimizer,
    outlined_module,
    put_into_effect,
)
from .densities import density_of
from .ending import end_task
from .epochs import AUTO
from .estimate import Trained, finished_task
from .history import TaskHistory
from .lambda_choice import lambda_for
from .modules import MLP, FunctionCriterion, is_of_output_and_target
from .processes import Processes, bare
from .refusals import check_sparse_layers
from .rehearsal import check_still_bound, rehearse
from .seeding import base_seed
from .settings import MODE_OF, check_settings, name_here
from .skorch_parts import (
    DeclaresClasses,
    PrivatelyStored,
    default_callbacks,
    notify,
    with_fused_adam,
)
from .teaching import teaching_of
from .units import with_scale


class EWCNet(NeuralNet, DeclaresClasses):
    """A skorch net that learns tasks, each under the penalty of those before.

    What a regressor needs and a classifier would need alike: the parameters, which
    :class:`~sklearn_ewc.EWCRegressor` documents, ``fit``, ``partial_fit``, saving.
    It passes scikit-learn's checks and loses nothing when it fails. A subclass says
    by `targets_kind` what y is, and has ``predict``.
    """

    targets_kind: ClassVar[type[Values]]
    cuda_dependent_attributes_ = ["memory_"]
    memory_: Memory
    ewc_lambda_: float
    targets_: Values
    seed_: int
    dtype_: Any
    superseded_: dict[str, Any]

    history_ = PrivatelyStored()
    initialized_ = PrivatelyStored()
    virtual_params_ = PrivatelyStored()

    # in place of skorch's: what differs is said where they are defined
    notify = notify
    get_iterator = steps.get_iterator
    run_single_epoch = loop.run_single_epoch
    train_step = steps.train_step
    train_step_single = steps.train_step_single
    _set_training = set_training
    _zero_grad_optimizer = steps._zero_grad_optimizer
    validation_step = steps.validation_step
    forward_iter = steps.forward_iter
    get_loss = steps.get_loss
    save_params = saving.save_params
    load_params = saving.load_params
    _outlined_module = outlined_module
    # skorch's would let a train_split have metadata, which fit has no parameter for
    get_metadata_routing = BaseEstimator.get_metadata_routing
    __repr__ = BaseEstimator.__repr__

    def __init__(
        self,
        module: Any = MLP,
        *,
        hidden_layer_sizes: int | Sequence[int] = (100,),
        ewc_lambda: float | Literal["auto"] = "auto",
        replay: Any = None,
        weigh_by: WeighBy = "task",
        curvature: Kind = "diagonal",
        fisher: Fisher | Literal["auto"] = "auto",
        damping: float | str = "auto",
        store_tasks: bool = True,
        mode: Mode | Literal["auto"] = "auto",
        gamma: float = 1.0,
        penalty_step: PenaltyStep = "proximal",
        remember_buffers: bool = True,
        criterion: Any = torch.nn.MSELoss,
        normalize_y: bool | str = "auto",
        optimizer: Any = torch.optim.Adam,
        lr: float = 1e-3,
        max_epochs: int | str = AUTO,
        batch_size: int = 32,
        iterator_train: Any = TensorBatches,
        iterator_valid: Any = TensorBatches,
        dataset: Any = skorch.dataset.Dataset,
        train_split: Any = None,
        callbacks: Any = None,
        predict_nonlinearity: Any = "auto",
        warm_start: bool = False,
        verbose: int = 0,
        device: Any = "cpu",
        compile: bool = False,
        use_caching: bool | str = "auto",
        torch_load_kwargs: dict[str, Any] | None = None,
        accelerator: Any = None,
        random_state: int | np.random.RandomState | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            module,
            criterion=criterion,
            optimizer=optimizer,
            lr=lr,
            max_epochs=max_epochs,
            batch_size=batch_size,
            iterator_train=iterator_train,
            iterator_valid=iterator_valid,
            dataset=dataset,
            train_split=train_split,
            callbacks=callbacks,
            predict_nonlinearity=predict_nonlinearity,
            warm_start=warm_start,
            verbose=verbose,
            device=device,
            compile=compile,
            use_caching=use_caching,
            torch_load_kwargs=torch_load_kwargs,
            **kwargs,
        )
        self.hidden_layer_sizes = hidden_layer_sizes
        self.ewc_lambda = ewc_lambda
        self.replay = replay
        self.weigh_by = weigh_by
        self.curvature = curvature
        self.fisher = fisher
        self.damping = damping
        self.store_tasks = store_tasks
        self.mode = mode
        self.gamma = gamma
        self.penalty_step = penalty_step
        self.normalize_y = normalize_y
        self.remember_buffers = remember_buffers
        self.accelerator = accelerator
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None, task: Any = None, sample_weight: Any = None) -> EWCNet:
        """Forget everything, then learn one task, or one after another.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features), dict of arrays, or Dataset
            Inputs. Arrays may have more dimensions, for convolutions; whole numbers
            become floating, but in a dict, where an embedding may want them. A
            torch Dataset yields pairs (x, y), or (x, y, weight).
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Targets; None with a Dataset.
        task : array-like of shape (n_samples,), default=None
            A label per sample. The tasks are learned in the order of their labels,
            each under the penalty of those before, as by one `partial_fit` after
            another. This gives `ewc_lambda` a meaning within one ``fit``, and so
            lets :class:`~sklearn.model_selection.GridSearchCV` choose it. Numbers
            and dates have their order; an ordered pandas Categorical and a polars
            Enum that of their categories; other text that of the alphabet, in
            which "task 2" comes before "task 10", and Feb before Jan. It never
            depends on the order of the rows, which a shuffled split changes. None:
            all samples are one task, and `ewc_lambda` changes nothing, of which a
            search is warned.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the samples, in the loss and in the Fisher alike; only their
            ratios within a task matter.

        Returns
        -------
        EWCNet
            The estimator itself.

        Raises
        ------
        ValueError, TypeError
            If the data or a parameter mean nothing.
        FloatingPointError
            If the loss becomes NaN, infinite or absurd. Whatever is raised, the
            estimator is then as it was before the call.

        Warns
        -----
        UserWarning
            If text labels have another order than the rows, task after task.
        """
        if task is None and self.__dict__.pop("_is_searched", False):
            warnings.warn(
                "fit without task learns one task, on which ewc_lambda has no effect: a search "
                "over it cannot tell its values apart. Pass fit the task of every sample, or use "
                "sklearn_ewc.search_lambda",
                UserWarning,
                stacklevel=2,
            )
        with all_or_nothing(self):
            check_settings(self)
            continued = self.warm_start and self.__sklearn_is_fitted__()
            data = checked_task(self, X, y, sample_weight, first=not continued)
            tasks = [data] if task is None else split_by_task(data, task)
            if continued:
                self.memory_ = Memory(**self._memory_settings())
                self.initialize_history()
            else:
                self.initialize()
                self.targets_ = with_scale(self, tasks[0])
            for one in tasks:
                self._learn_task(one)
        return self

    def partial_fit(
        self, X: Any, y: Any = None, sample_weight: Any = None, task_weight: float = 1.0
    ) -> EWCNet:
        """Learn one new task under the penalty of all earlier ones.

        On an estimator that is not fitted, it is the first task.

        Parameters
        ----------
        X, y, sample_weight
            As in :meth:`fit`.
        task_weight : float, default=1.0
            w, how much this task will count beside the others once it is learned;
            λ_k = `ewc_lambda` · w_k, and so in a replay. 0 forgets it.

        Returns
        -------
        EWCNet
            The estimator itself.

        Raises
        ------
        ValueError, TypeError, FloatingPointError
            As in :meth:`fit`; also if parameters of the module were changed since
            it was built, which only `fit` can put into effect.
        """
        with all_or_nothing(self):
            check_settings(self)
            check_not_negative("task_weight", task_weight)
            built = self.__sklearn_is_fitted__()
            first = not built or self.n_tasks_ == 0
            data = checked_task(self, X, y, sample_weight, first=first)
            if not built:
                self.initialize()
            if first:
                self.targets_ = with_scale(self, data)
            self._learn_task(data, task_weight)
        return self

    def fit_loop(self, *args: Any, **kwargs: Any) -> None:
        """Not there: it would train past the memory."""
        raise TypeError(f"{type(self).__name__} has no fit_loop: learn a task by partial_fit")

    def evaluation_step(self, batch: Any, training: bool = False) -> Tensor:
        """Compute the output on a batch, whose weights do not matter for it."""
        return super().evaluation_step(batch[:2], training=training)

    def infer(self, x: Any, **fit_params: Any) -> Tensor:
        """Run the module on a batch, in the module's dtype."""
        return super().infer(steps.inputs(self, x), **fit_params)

    def _learn_task(self, data: TaskData, task_weight: float = 1.0) -> None:
        """Train one task under the penalty of the earlier ones, then consolidate it.

        The data are checked already, and what fails is rolled back by the caller.
        """
        self.__dict__.pop("_is_searched", None)
        train, valid = split_task(self, data)
        inputs = density_of(self, train)
        trained = self._train_task(data, train, valid)
        memory = replace(self.memory_, **self._memory_settings())
        finished = partial(finished_task, self, trained, task_weight)
        end_task(self, memory, finished, inputs, X=data.X, y=data.y)

    def _train_task(self, data: TaskData, train: Any, valid: Any, share: float = 1.0) -> Trained:
        """Train one task under the penalty of the earlier ones, for a share of its epochs."""
        check_weighing(self)
        rehearsal = rehearse(self, train, valid)
        self.ewc_lambda_ = lambda_for(self, data, train)
        teaching = teaching_of(self, train, rehearsal)
        self.initialize_optimizer()
        check_sparse_layers(self)
        begin_task(self, data)
        bound = dict(self.bare_module_.named_parameters())
        penalty = self.memory_.bound(bound, self.lambda_in_force_, len(train))
        with self.processes_.training(self), at_rest(self, rehearsal.at_rest):
            loop.train(self, train, valid, penalty, rehearsal.is_random, teaching, share)
        check_still_bound(self.bare_module_, bound)
        self.ewc_lambda_ = self.lambda_in_force_  # which a callback may have changed
        return Trained(train, rehearsal, penalty, teaching)

    def _memory_settings(self) -> dict[str, Any]:
        names = ("store_tasks", "gamma", "weigh_by")
        mode = MODE_OF[self.curvature] if self.mode == AUTO else self.mode
        return {"mode": mode, **{name: getattr(self, name) for name in names}}

    @property
    def n_tasks_(self) -> int:
        """Number of tasks learned since the last ``fit``."""
        return self.memory_.n_tasks

    @property
    def lambda_in_force_(self) -> float:
        """The λ that steps are taken under now: as set, or as chosen for the task."""
        return self.ewc_lambda_ if self.ewc_lambda == AUTO else float(self.ewc_lambda)

    @property
    def n_outputs_(self) -> int:
        """Number of columns of y."""
        if self.targets_.n_outputs is None:
            raise AttributeError("n_outputs_ is not known before the first task")
        return self.targets_.n_outputs

    @property
    def bare_module_(self) -> nn.Module:
        """The module itself, where ``compile=True`` or several processes have wrapped it."""
        return bare(self.module_)

    @property
    def criterion_name_(self) -> str:
        """What messages call the criterion."""
        return getattr(self.criterion_, "__name__", type(self.criterion_).__name__)

    @property
    def processes_(self) -> Processes:
        """The processes that train a task together."""
        return Processes(self.accelerator)

    def __getstate__(self) -> dict[str, Any]:
        """Return skorch's state; a copy made in mid-task is in no task."""
        state = super().__getstate__()
        state.pop("_at_rest", None)
        return state

    # building

    def initialize(self) -> EWCNet:
        """Build the module anew, with an empty memory.

        `fit` and the first `partial_fit` do this. By hand, before ``load_params``
        for example, sizes that only the data know have to be given:
        ``module__n_features``. The module is then float32.
        """
        self.memory_ = Memory(**self._memory_settings())
        if not hasattr(self, "dtype_"):
            self.dtype_, self.targets_ = np.dtype(np.float32), self.targets_kind()
        self.seed_ = self.processes_.agreed(base_seed(self.random_state), self.device)
        return super().initialize()

    def initialize_module(self) -> EWCNet:
        """Build the module, seeded, in the sizes and the dtype of the data."""
        self.module_ = built_module(self)
        self.superseded_ = {}
        return self

    def get_dataset(self, X: Any, y: Any = None) -> Any:
        """Wrap the data in a dataset as skorch does."""
        with naming("dataset"):
            dataset = super().get_dataset(X, y)
            check_made(self, "dataset", dataset, "__len__", "__getitem__")
        return dataset

    def initialize_criterion(self) -> EWCNet:
        """Build the criterion as skorch does."""
        with naming("criterion"):
            super().initialize_criterion()
            check_made(self, "criterion", self.criterion_, "__call__")
        return self

    def initialize_optimizer(self, *args: Any, **kwargs: Any) -> EWCNet:
        """Build a new optimizer as skorch does."""
        with naming("optimizer"):
            super().initialize_optimizer(*args, **kwargs)
            check_made(self, "optimizer", self.optimizer_, "step", "param_groups")
        return self

    def initialize_callbacks(self) -> EWCNet:
        """Build the callbacks as skorch does."""
        with naming("callbacks"):
            super().initialize_callbacks()
        return self

    def initialized_instance(self, instance_or_cls: Any, kwargs: dict[str, Any]) -> Any:
        """Build a component as skorch does, but copy an instance that the user passed.

        A criterion may be a function of output and target too, taken as it is.
        """
        if instance_or_cls is self.criterion and is_of_output_and_target(instance_or_cls):
            return FunctionCriterion(copy.deepcopy(instance_or_cls), **kwargs)
        instance = super().initialized_instance(instance_or_cls, kwargs)
        return copy.deepcopy(instance) if instance is instance_or_cls else instance

    def initialize_history(self) -> EWCNet:
        """Begin an empty history."""
        self.history_ = TaskHistory()
        return self

    @property
    def _default_callbacks(self) -> list[tuple[str, Any]]:
        return default_callbacks()

    def get_params_for_optimizer(self, prefix: str, named_parameters: Any) -> tuple[Any, Any]:
        """Return skorch's arguments; for Adam the fused variant, unless set otherwise."""
        args, kwargs = super().get_params_for_optimizer(prefix, named_parameters)
        return args, with_fused_adam(self.optimizer, kwargs)

    def set_params(self, **params: Any) -> EWCNet:
        """Set parameters, also nested ones such as ``optimizer__weight_decay``.

        What would rebuild the module (``module``, ``module__…``,
        ``hidden_layer_sizes``, ``compile``) waits for the next ``fit``. Everything
        else takes effect with the next task; ``lr`` and ``optimizer__…`` at once,
        where a callback sets them during training.
        """
        known = self.get_params(deep=False)
        for name in params.keys() - known.keys():
            if "__" not in name:
                hint = name_here(name)
                raise ValueError(f"Invalid parameter {name!r} for estimator {self}{hint}")
        with all_or_nothing(self, modules=not all(map(is_of_optimizer, params))):
            put_into_effect(self, params)
            if "ewc_lambda" in params and not self.__sklearn_is_fitted__():
                self.__dict__["_is_searched"] = True  # as a search does with each of its clones
        return self

    def _get_param_names(self) -> list[str]:
        return [name for name in super()._get_param_names() if not name.startswith("_")]
