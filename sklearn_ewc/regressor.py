"""EWCRegressor: the estimator that users meet."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sklearn.metrics import r2_score
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted
from skorch import NeuralNetRegressor
from skorch.utils import to_numpy

from .arguments import naming
from .data.checks import checked_inputs, checked_to_score
from .data.targets import Values
from .training import EWCNet
from .training.units import check_scale_is_known


class EWCRegressor(EWCNet, NeuralNetRegressor):
    """Neural network regressor that learns one task after another without forgetting.

    Every :meth:`partial_fit` is one new task. It is trained under the penalty of
    all earlier ones, elastic weight consolidation (EWC) [1]_:

        L_K(θ) + (λ/2) Σ_{k<K} w_k Σ_i (F_k,i + δ mean(F_k)) (θ_i − θ*_k,i)²

    where L_K is the criterion on task K, θ*_k the parameters at the end of task
    k, F_k its diagonal Fisher there, λ `ewc_lambda`, δ `damping` and w_k the
    task's own weight, times n_k / n_K, the ratio of their samples, if `weigh_by`
    is "sample". The data of earlier tasks are not needed and not kept. With
    `curvature` "kronecker" the penalty is ½ λ (θ − θ*)ᵀ A (θ − θ*), around the last
    task's parameters alone, where A knows which weights of a layer act together.

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
    hidden_layer_sizes : int or sequence of int, default=(100,)
        Widths of the hidden layers of :class:`~sklearn_ewc.MLP`. One layer suits small
        and noisy tables; a curve such as that of ``examples/four_tasks.py`` wants two,
        (100, 100).
    ewc_lambda : float or "auto", default="auto"
        λ, how much the old tasks count. At 1 an old task's loss counts, to second
        order, as much as the new one's; more holds on to the old tasks, less
        gives way to the new; 0 is plain training. It has no effect on the first
        task, so none on ``fit(X, y)`` without `task`. Can be changed between
        tasks. "auto" chooses λ for each task from the
        second on, before it is trained, from the new task and the memory alone, which
        :func:`~sklearn_ewc.estimate_lambda` does at a greater cost: a copy of the net
        trains on three quarters of the task down a path of λ from 300 to 0.3, and the
        largest is taken whose error on the rest plus the memory's penalty, which is
        what the old tasks lose by its estimate, is at most a tenth above the least. A
        task then takes up to twice as long, and more is remembered than with any λ that
        is the same for all (``examples/benchmarks/README.md``). The copy learns in
        silence, and of the callbacks those run that shape training, as in
        `estimate_lambda`. Where the inputs of all old tasks are replayed, λ is 0: they
        count already. A task of fewer than 8 samples, of which none are held out, or of
        fewer than 6 epochs gets λ = 3. What was chosen is in `ewc_lambda_`.
    replay : None, "auto" or estimator with fit and sample, default=None
        Generative replay [3]_: with every batch of a new task as many inputs like those
        of the old tasks are learned too, with the net as it was when the task began
        for a teacher [4]_. To L_K it adds Σ_{k<K} w_k E_{x~p_k} ℓ(f(x), f_{K−1}(x)),
        which for the squared error is the old tasks' own loss but for a constant,
        beside the penalty; with ``ewc_lambda=0`` alone. For criteria of a distribution
        the target is the teacher's distribution (CrossEntropyLoss, BCEWithLogitsLoss,
        PoissonNLLLoss, …). p_k is a density that is fitted to the task's inputs as it
        is learned, and kept in ``memory_.inputs``, whatever `store_tasks`: no row is.
        "auto": a mixture of 1, 2, 3, 5 or 8 normal distributions with full
        covariances, by BIC, for up to 256 numbers per sample, which takes 8 d² bytes
        per component. An estimator, such as
        :class:`~sklearn.mixture.GaussianMixture`,
        :class:`~sklearn.neighbors.KernelDensity` or one's own, is copied and fitted to
        a table of the inputs, as the module gets them, a row per sample. Columns of few
        values (one-hot, integers, constants) are drawn as combinations of values that
        there were. Tasks learned with None are not replayed later, and with None
        nothing is replayed, but what is known stays. None is the default because a
        density is a statistic of the inputs: means and covariances of small components,
        and rare values of discrete columns, all of which are kept as they are, can tell
        of single persons, and KernelDensity keeps the rows themselves. Loaded from
        `f_memory` it runs no code: what is no mixture (all of scikit-learn's are) can be
        pickled only. For several processes it is the same in each. With dropout, the
        replayed rows have masks of their own.
    weigh_by : {"task", "sample"}, default="task"
        How an old task counts beside the new one at λ = 1. "task": as much, whatever
        their sizes, by its mean loss. "sample": by the ratio of their numbers of
        samples, as in the loss over the rows of all tasks together. Only ``fit`` can
        put another value into effect.
    curvature : {"diagonal", "kronecker"}, default="diagonal"
        What is kept of the curvature of the tasks. "diagonal": one number per parameter,
        as in the formula above [1]_. "kronecker": for every linear layer and convolution
        with m outputs and n inputs a matrix over all its weights that is diagonal in a
        basis of the layer's own (:class:`~sklearn_ewc.curvature.Kronecker`, [2]_), a
        running sum over the tasks around the last one's parameters, in m² + n² + mn
        numbers however many tasks there are; other layers keep their diagonal. Adam
        steps in that basis too. It remembers much more where a layer is narrow enough
        for n² numbers (``examples/benchmarks/README.md``), and a step costs up to twice
        as much. It is kept in the memory, so it cannot be changed between tasks.
    fisher : {"auto", "exact", "sampled", "empirical", "batch"}, default="auto"
        Estimator of the Fisher, see :func:`~sklearn_ewc.curvature.curvature_of`.
        "auto" is "exact" where the module returns up to ten numbers per sample, else
        "sampled", which estimates the same and whose cost does not grow with them.
        For the others the best `ewc_lambda` differs by orders of magnitude, so none
        of them is chosen unasked: a criterion without curvature (L1Loss) is refused
        but with "empirical" or "batch".
    damping : float or "auto", default="auto"
        δ, a floor under the Fisher as a fraction of its mean. It protects units
        that were silent on an old task (whose Fisher is exactly 0) from being
        woken by a new one. 0 is textbook EWC. "auto" is 0.01 for the diagonal and
        0.1 for "kronecker", which tells more directions that no sample was seen in.
    store_tasks : bool, default=True
        Keep the parameters and the Fisher of every task in ``memory_.tasks``
        (8 bytes per parameter and task in float32) and its rows in `history`, or
        only the sums that training needs and the rows of the last task: then the
        estimator does not grow. Training is the same.
    mode : {"auto", "offline", "online"}, default="auto"
        "offline" penalises the distance to every old task's parameters, "online"
        that to the last task's alone, under a running Fisher; see
        :class:`~sklearn_ewc.Memory`. Both cost the same. "auto" is "offline" for the
        diagonal and "online" for "kronecker", of which sums around several places are
        none of its kind: "offline" is refused there.
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
    remember_buffers : bool, default=True
        Whether buffers that training moves, such as the running statistics of
        BatchNorm, stay as they are from the second task on, where λ > 0 or inputs are
        replayed. Old tasks rely on them as on the parameters, and no penalty holds
        them: the layers that own them (found by a trial pass, whatever their class) are
        trained as in evaluation; their children, and dropout, are not. Over two tasks
        under a λ of 10¹², which moves no parameter, R² on the old task stays 0.91 so,
        and falls to −0.09 if the statistics follow the new one; at λ = 3 it ends at
        0.30 and at −0.72 (``examples/benchmarks/batch_norm.py``). False lets them
        follow, which serves the new task better. Decided as a task begins.
    criterion : class or instance of torch.nn.Module, default=torch.nn.MSELoss
        The loss, a mean or a sum over samples; also a function of output and target.
    normalize_y : bool or "auto", default="auto"
        Train on targets that are centred and scaled, per output, to the mean and the
        standard deviation of the first task's, so that a y of any scale is learned
        with the same `lr`. What it is trained on is not seen: predictions, scores and
        `history` are in the units of y, and `ewc_lambda` has no units. "auto": for
        MSELoss, L1Loss, SmoothL1Loss and HuberLoss, whose thresholds are then in units
        of the scale; not where `beta` or `delta` is set, which is meant in units of y,
        and not for other criteria. True: for one's own criterion of the residual, whose
        values in `history` are then those of scaled targets. Where the first task
        tells little of the targets to come, scale y by what is known of all, and set
        False: targets many standard deviations away are learned at a greater cost to
        the old ones.
    optimizer : class of torch.optim.Optimizer, default=torch.optim.Adam
        A new one for every task, so that the momentum of one does not push the
        next. Adam runs in its fused variant, faster and the same up to rounding,
        unless ``optimizer__fused=False`` or another variant is asked for.
    lr : float, default=1e-3
        Learning rate.
    max_epochs : int or "auto", default="auto"
        Epochs per task. "auto" trains until it is done: 200 epochs, but at least
        500 steps of the optimizer and at most 50,000 (10 epochs, if those are
        more); over the last quarter of them the rate falls from `lr` to zero,
        unless an :class:`~skorch.callbacks.LRScheduler` is among the callbacks.
        Large tasks so take no more steps than they need, and small ones enough;
        ``examples/benchmarks/epochs.py`` compares it with 200 epochs. LBFGS takes
        200 at its own rate. An integer is as in skorch: so many epochs, at `lr`.
        Whoever knows a better moment to stop passes skorch's
        :class:`~skorch.callbacks.EarlyStopping`.
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
        task by ``on_train_begin`` and ``on_train_end``. A KeyboardInterrupt that one
        raises ends the task, which counts as learned; Ctrl-C rolls it back.
    predict_nonlinearity : callable, None or "auto", default="auto"
        As in skorch.
    warm_start : bool, default=False
        Let `fit` start from the present parameters in place of new ones. The
        memory is forgotten all the same.
    verbose : int, default=0
        1 prints skorch's table, a line per epoch: how many of how many it is, and
        the time that the rest of the task will take; also how far a Fisher is that
        takes more than a few seconds.
    device : str or torch.device, default="cpu"
        Where to compute, "cuda" for example.
    compile : bool, default=False
        Whether to use ``torch.compile``.
    use_caching : bool or "auto", default="auto"
        As in skorch.
    torch_load_kwargs : dict, default=None
        As in skorch.
    accelerator : accelerate.Accelerator, default=None
        Whose processes train each task together, see Notes; of this net alone, with
        ``device_placement=False``, without gradient accumulation, and with
        `mixed_precision` "no" or "bf16". None: this process alone.
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
        ``.curvature``, ``.weight``, ``.n_samples``, ``.loss``; and of their inputs,
        with `replay`: ``memory_.inputs[k].density.draw(n, generator)``.
    n_tasks_ : int
        Number of tasks learned.
    ewc_lambda_ : float
        The λ at the end of the last task trained, which has no effect on the first:
        there it is `ewc_lambda` where that is a number, and 0 where it is "auto".
        Not saved in files of the memory.
    module_ : torch.nn.Module
        The network as it is now.
    history : skorch.history.History
        A row per epoch, over all tasks (the last one if ``store_tasks=False``):
        ``task`` (from 1), ``train_loss`` and ``valid_loss`` (the criterion, mean
        over batches), ``penalty`` (λ times the memory's, at the end of the epoch),
        ``replay_loss`` where inputs are replayed (the mean over batches of what they
        add), ``ewc_lambda`` (the λ of `penalty`) and what callbacks add. The sum of
        criterion, penalty and replayed loss is what is minimised.
    n_features_in_ : int
        Number of columns of X.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the columns, if X had all-string names.
    n_outputs_ : int
        Number of columns of y.
    dtype_ : numpy.dtype
        Of the parameters and predictions: float32 if the first X was, else
        float64, as in :class:`sklearn.neural_network.MLPRegressor`.

    Notes
    -----
    With an `accelerator`, every process runs the same program on the same data, and
    computes every n-th row of each batch, n being the number of processes: the
    parameters, history and memory are the same in every process, and those of one
    process alone, but for rounding. `batch_size` is that of all processes together,
    `device` where this one computes. Validation and ``predict`` are not shared out;
    the first process alone prints and writes files. A program to be started by
    ``accelerate launch`` or ``torchrun``::

        from accelerate import Accelerator
        from sklearn_ewc import EWCRegressor

        accelerator = Accelerator(device_placement=False)
        net = EWCRegressor(accelerator=accelerator, device=accelerator.device)
        net.partial_fit(X, y)
        accelerator.end_training()

    Import the library before the accelerator is made, and end the program as here:
    threads of the process group that run on while the interpreter ends can abort
    it. Where one process alone raises an error, the others wait for it until the
    group's timeout. Dropout draws another mask in every process. A BatchNorm layer
    sees the rows of its own process only; convert it to
    :class:`torch.nn.SyncBatchNorm`.

    References
    ----------
    .. [1] Kirkpatrick et al., "Overcoming catastrophic forgetting in neural
       networks", PNAS 114 (2017), equation 3.
    .. [2] Ritter, Botev & Barber, "Online structured Laplace approximations for
       overcoming catastrophic forgetting", NeurIPS (2018), section 3; in the basis of
       George et al., "Fast approximate natural gradient descent in a
       Kronecker-factored eigenbasis", NeurIPS (2018), section 3.
    .. [3] Shin et al., "Continual learning with deep generative replay", NeurIPS
       (2017).
    .. [4] Li & Hoiem, "Learning without forgetting", ECCV (2016).

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

    targets_kind = Values

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

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If nothing was learned or loaded; also if what was loaded are parameters
            alone that ``save_params`` has not written, in an unknown scale of y.
        """
        check_is_fitted(self)
        check_scale_is_known(self)
        X = checked_inputs(self, X, self.dtype_)
        outputs = [self.targets_.restored(output) for output in self.forward_iter(X)]
        with naming("predict_nonlinearity"):
            nonlinearity = self._get_predict_nonlinearity()
            predicted = torch.cat([nonlinearity(output) for output in outputs])
        return self.targets_.to_show(to_numpy(predicted))

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return R², the coefficient of determination of the predictions.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features), dict of arrays, or Dataset
            Inputs, as in :meth:`fit`.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Targets. Of several outputs, R² is the mean of theirs.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the samples.

        Returns
        -------
        float

        Raises
        ------
        ValueError, TypeError
            If the data mean nothing.
        """
        predicted = self.predict(X)
        y, sample_weight = checked_to_score(y, sample_weight, predicted)
        with naming("y"):
            return float(r2_score(y, predicted, sample_weight=sample_weight))

    def _get_predict_nonlinearity(self) -> Any:
        """Return skorch's choice, but one column of probabilities and not two."""
        if self.predict_nonlinearity == "auto" and isinstance(
            self.criterion_, torch.nn.BCEWithLogitsLoss
        ):
            return torch.sigmoid
        return super()._get_predict_nonlinearity()

    @property
    def predict_proba(self) -> Any:
        """Not there: skorch's nets have it, but a regressor has no classes."""
        raise AttributeError(f"{type(self).__name__} has no predict_proba")

    def __sklearn_tags__(self) -> Tags:
        return self.targets_kind.tag(super().__sklearn_tags__())
