"""EWCRegressor: the estimator that users meet."""

from __future__ import annotations

from typing import Any

import numpy as np
import skorch.dataset
import torch
from numpy.typing import ArrayLike
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted
from skorch import NeuralNetRegressor
from skorch.utils import to_numpy
from torch import Tensor

from .batches import TensorBatches
from .memory import Memory
from .modules import MLP
from .net import EWCNet
from .seeding import base_seed
from .validation import (
    TaskData,
    check_not_negative,
    check_settings,
    checked_data,
    checked_inputs,
    features_and_dtype,
    rows_by_task,
)


class EWCRegressor(EWCNet, NeuralNetRegressor):
    """Neural network regressor that learns one task after another without forgetting.

    Every :meth:`partial_fit` is one new task. It is trained under the penalty of
    all earlier ones, elastic weight consolidation (EWC) [1]_:

        L_K(θ) + (λ/2) Σ_{k<K} w_k Σ_i (F_k,i + δ mean(F_k)) (θ_i − θ*_k,i)²

    where L_K is the criterion on task K, θ*_k the parameters at the end of task
    k, F_k its diagonal Fisher there, λ `ewc_lambda`, δ `damping` and w_k the
    task's own weight. The data of earlier tasks are not needed and not kept.

    It is a :class:`skorch.NeuralNetRegressor`: callbacks, ``history``,
    ``module__…``, ``optimizer__…``, devices and any further keyword of skorch
    work as there. Standardise the inputs, as for any neural network, with a
    scaler that does not move between tasks.

    Parameters
    ----------
    module : class or instance of torch.nn.Module, default=MLP
        The network. A class gets the sizes of the data where its ``__init__``
        has parameters named ``n_features`` or ``in_features``, ``n_outputs`` or
        ``out_features``, ``hidden_layer_sizes``, unless ``module__…`` sets them;
        an instance is copied. It must return one tensor, shaped like y:
        (n_samples, n_outputs).
    hidden_layer_sizes : tuple of int, default=(100,)
        Widths of the hidden layers of :class:`~sklearn_ewc.MLP`.
    ewc_lambda : float, default=3.0
        λ, how much the old tasks count. At 1 an old task's loss counts, to second
        order, as much as the new one's; more holds on to the old tasks, less
        gives way to the new; 0 is plain training. It has no effect on the first
        task, so none on ``fit(X, y)`` without `task`. Can be changed between
        tasks. The default did best, the same for all, over the scenarios of
        ``examples/benchmarks/defaults.py``.
    fisher : {"exact", "empirical", "batch"}, default="exact"
        Estimator of the Fisher, see :func:`~sklearn_ewc.diagonal_fisher`. The best
        `ewc_lambda` depends on it. "exact" needs a criterion with curvature
        (MSELoss, HuberLoss, …; not L1Loss).
    damping : float, default=0.01
        δ, a floor under the Fisher as a fraction of its mean. It protects units
        that were silent on an old task (whose Fisher is exactly 0) from being
        woken by a new one. 0 is textbook EWC.
    store_tasks : bool, default=True
        Keep the parameters and the Fisher of every task in ``memory_.tasks``
        (8 bytes per parameter and task in float32) and its rows in `history`, or
        only the sums that training needs and the rows of the last task: then the
        estimator does not grow. Training is the same.
    mode : {"offline", "online"}, default="offline"
        "offline" penalises the distance to every old task's parameters, "online"
        that to the last task's alone, under a running Fisher; see
        :class:`~sklearn_ewc.Memory`. Both cost the same.
    gamma : float, default=1.0
        γ in [0, 1], by how much the running Fisher of "online" shrinks with every
        task. Less than 1 lets old tasks fade.
    penalty_step : {"proximal", "gradient"}, default="proximal"
        How a step goes down the penalty. "proximal" lets the optimizer step down
        the criterion and then solves for the penalty exactly, so that no λ is too
        large; it applies to SGD, Adam and AdamW, where no callback listens to
        ``on_grad_computed``. "gradient" adds the penalty's gradient to the
        criterion's, as the literature does; every other optimizer, and callbacks
        that read or clip gradients, get this in any case. Both have the same
        minimum.
    criterion : class or instance of torch.nn.Module, default=torch.nn.MSELoss
        The loss; a mean over samples.
    optimizer : class of torch.optim.Optimizer, default=torch.optim.Adam
        A new one for every task, so that the momentum of one does not push the
        next. Adam runs in its fused variant, faster and the same up to rounding,
        unless ``optimizer__fused=False`` or another variant is asked for.
    lr : float, default=1e-3
        Learning rate.
    max_epochs : int, default=200
        Epochs per task.
    batch_size : int, default=32
        Samples per batch; -1 for all.
    iterator_train, iterator_valid : class, default=TensorBatches
        Iterators over batches, as in skorch. The default slices whole tensors
        and shuffles in training (``iterator_train__shuffle=False`` does not).
    dataset : class, default=skorch.dataset.Dataset
        Dataset that wraps X and y, as in skorch.
    train_split : callable, default=None
        Splits a task into training and validation, such as
        ``skorch.dataset.ValidSplit(5)``. None trains on everything.
    callbacks : list, default=None
        skorch callbacks. They are told of the beginning and the end of every
        task by ``on_train_begin`` and ``on_train_end``. A KeyboardInterrupt from
        :class:`skorch.callbacks.EarlyStopping` (or a subclass) ends the task; any
        other is Ctrl-C.
    predict_nonlinearity : callable, None or "auto", default="auto"
        As in skorch.
    warm_start : bool, default=False
        Let `fit` start from the present parameters in place of new ones. The
        memory is forgotten all the same.
    verbose : int, default=0
        1 prints skorch's table, a line per epoch.
    device : str or torch.device, default="cpu"
        Where to compute, "cuda" for example.
    compile : bool, default=False
        Whether to use ``torch.compile``.
    use_caching : bool or "auto", default="auto"
        As in skorch.
    torch_load_kwargs : dict, default=None
        As in skorch.
    random_state : int, RandomState instance or None, default=None
        Seeds the initial parameters, the order of batches and dropout. Torch's
        global random state is left alone.
    **kwargs
        Parameters of components, ``module__activation=torch.nn.Tanh`` or
        ``optimizer__weight_decay=1e-4`` for example.

    Attributes
    ----------
    memory_ : Memory
        What is kept of the tasks learned: ``memory_.tasks[k].anchor``,
        ``.fisher``, ``.weight``, ``.n_samples``.
    n_tasks_ : int
        Number of tasks learned.
    module_ : torch.nn.Module
        The network as it is now.
    history : skorch.history.History
        A row per epoch, over all tasks (the last one if ``store_tasks=False``):
        ``task`` (from 1), ``train_loss`` and ``valid_loss`` (the criterion, mean
        over batches), ``penalty`` (λ times the memory's, at the end of the epoch)
        and what callbacks add. The sum of criterion and penalty is what is
        minimised.
    n_features_in_ : int
        Number of columns of X.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the columns, if X had all-string names.
    n_outputs_ : int
        Number of columns of y.
    dtype_ : numpy.dtype
        Of the parameters and predictions: float32 if the first X was, else
        float64, as in :class:`sklearn.neural_network.MLPRegressor`.

    References
    ----------
    .. [1] Kirkpatrick et al., "Overcoming catastrophic forgetting in neural
       networks", PNAS 114 (2017), equation 3.

    Examples
    --------
    >>> import numpy as np
    >>> import torch
    >>> from sklearn_ewc import EWCRegressor
    >>> X = np.linspace(-2, 2, 200).reshape(-1, 1)
    >>> y = np.sin(2 * X.ravel())
    >>> left = X.ravel() < 0
    >>> net = EWCRegressor(module__activation=torch.nn.Tanh, random_state=0)
    >>> net.partial_fit(X[left], y[left]).partial_fit(X[~left], y[~left]).n_tasks_
    2
    """

    def __init__(
        self,
        module: Any = MLP,
        *,
        hidden_layer_sizes: tuple[int, ...] = (100,),
        ewc_lambda: float = 3.0,
        fisher: str = "exact",
        damping: float = 0.01,
        store_tasks: bool = True,
        mode: str = "offline",
        gamma: float = 1.0,
        penalty_step: str = "proximal",
        criterion: Any = torch.nn.MSELoss,
        optimizer: Any = torch.optim.Adam,
        lr: float = 1e-3,
        max_epochs: int = 200,
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
        self.fisher = fisher
        self.damping = damping
        self.store_tasks = store_tasks
        self.mode = mode
        self.gamma = gamma
        self.penalty_step = penalty_step
        self.random_state = random_state

    def fit(
        self,
        X: Any,
        y: ArrayLike | None = None,
        task: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> EWCRegressor:
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
            A label per sample. The tasks are learned in the sorted order of their
            labels (an ordered pandas Categorical: in its own), each under the
            penalty of those before, as by one `partial_fit` after another. This
            gives `ewc_lambda` a meaning within one ``fit``, and so lets
            :class:`~sklearn.model_selection.GridSearchCV` choose it. None: all
            samples are one task, and `ewc_lambda` changes nothing.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the samples, in the loss and in the Fisher alike; only their
            ratios within a task matter.

        Returns
        -------
        EWCRegressor
            The estimator itself.

        Raises
        ------
        ValueError, TypeError
            If the data or a parameter mean nothing.
        FloatingPointError
            If the loss becomes NaN or infinite. Whatever is raised, the
            estimator is then as it was before the call.
        """
        with self.all_or_nothing():
            continued = self.warm_start and self.__sklearn_is_fitted__()
            data = self._checked(X, y, sample_weight, first=not continued)
            tasks = [data] if task is None else self._split_by_task(data, task)
            if continued:
                self.memory_ = Memory(**self._memory_settings())
                self.initialize_history()
            else:
                self.initialize()
            for one in tasks:
                self.learn_task(one)
        return self

    def partial_fit(
        self,
        X: Any,
        y: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
        task_weight: float = 1.0,
    ) -> EWCRegressor:
        """Learn one new task under the penalty of all earlier ones.

        On an estimator that is not fitted, it is the first task.

        Parameters
        ----------
        X, y, sample_weight
            As in :meth:`fit`.
        task_weight : float, default=1.0
            w, how much this task will count beside the others once it is learned;
            λ_k = `ewc_lambda` · w_k. 0 forgets it.

        Returns
        -------
        EWCRegressor
            The estimator itself.

        Raises
        ------
        ValueError, TypeError, FloatingPointError
            As in :meth:`fit`; also if parameters of the module were changed since
            it was built, which only `fit` can put into effect.
        """
        with self.all_or_nothing():
            check_not_negative("task_weight", task_weight)
            built = self.__sklearn_is_fitted__()
            first = not built or self.n_tasks_ == 0
            data = self._checked(X, y, sample_weight, first=first)
            if not built:
                self.initialize()
            self.learn_task(data, task_weight)
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Predict the targets.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features), dict of arrays, or Dataset
            Inputs, as in :meth:`fit`.

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_outputs)
            One-dimensional if the y of the first task was.
        """
        check_is_fitted(self)
        X = checked_inputs(self, X, self.dtype_)
        nonlinearity = self._get_predict_nonlinearity()
        outputs = [nonlinearity(output) for output in self.forward_iter(X)]
        predicted = to_numpy(torch.cat(outputs))
        if self.y_is_flat_ and predicted.size != len(predicted):
            raise ValueError(
                f"X must have as many axes as in fit: predictions have shape {predicted.shape}"
            )
        return predicted.reshape(-1) if self.y_is_flat_ else predicted

    def _get_predict_nonlinearity(self) -> Any:
        """Return skorch's choice, but one column of probabilities and not two."""
        if self.predict_nonlinearity == "auto" and isinstance(
            self.criterion_, torch.nn.BCEWithLogitsLoss
        ):
            return torch.sigmoid
        return super()._get_predict_nonlinearity()

    def _target(self, y: Any) -> Tensor:
        y = super()._target(y)
        return y.unsqueeze(1) if y.ndim == 1 else y

    @property
    def predict_proba(self) -> Any:
        """Not there: skorch's nets have it, but a regressor has no classes."""
        raise AttributeError(f"{type(self).__name__} has no predict_proba")

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def initialize(self) -> EWCRegressor:
        """Build the module anew, with an empty memory.

        `fit` and the first `partial_fit` do this. By hand, before ``load_params``
        for example, sizes that only the data know have to be given:
        ``module__n_features``. The module is then float32.
        """
        self.memory_ = Memory(**self._memory_settings())
        self.seed_ = base_seed(self.random_state)
        if not hasattr(self, "dtype_"):
            self.dtype_, self.y_is_flat_ = np.dtype(np.float32), True
        return super().initialize()

    def _checked(self, X: Any, y: Any, sample_weight: Any, first: bool) -> TaskData:
        """Check parameters and data; the first task decides on sizes and dtype."""
        check_settings(self)
        built = self.__sklearn_is_fitted__() and (not first or self.n_tasks_ == 0)
        if built:
            self.check_module_settings()
        data = checked_data(
            self, X, y, sample_weight, dtype=self.dtype_ if built else None, first=first
        )
        n_outputs = 1 if data.target.ndim == 1 else data.target.shape[1]
        if not first:
            if n_outputs != self.n_outputs_:
                raise ValueError(
                    f"y has {n_outputs} outputs, but {type(self).__name__} was fitted with "
                    f"{self.n_outputs_}"
                )
            return data
        self.n_outputs_, self.y_is_flat_ = n_outputs, data.target.ndim == 1
        if data.y is None:
            n_features, dtype = features_and_dtype(data.X)
            self.__dict__.update({} if n_features is None else {"n_features_in_": n_features})
        else:
            dtype = data.y.dtype
        if not built:
            self.dtype_ = dtype
        return data

    def _split_by_task(self, data: TaskData, task: Any) -> list[TaskData]:
        if data.y is None:
            raise ValueError("a torch Dataset cannot be split by task: learn each by partial_fit")
        tasks = [data.rows(rows) for rows in rows_by_task(task, len(data.y))]
        for one in tasks:
            one.check_weights()
        return tasks
