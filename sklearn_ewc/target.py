"""ContinualTargetRegressor: a target that is transformed as it was on the first task."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, MetaEstimatorMixin, RegressorMixin, clone
from sklearn.preprocessing import StandardScaler
from sklearn.utils import Tags, check_array, get_tags
from sklearn.utils.metadata_routing import MetadataRouter, MethodMapping, process_routing
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted, has_fit_parameter

from .arguments import naming, shown
from .continual.base import Arrival, Continual
from .continual.learning import learn_task, tasks_of_fit
from .continual.metadata import is_routed, keyword, with_task
from .data.arrays import FLOATS, numbers_in
from .data.checks import checked_weights
from .rollback import all_or_nothing


class ContinualTargetRegressor(Continual, RegressorMixin, MetaEstimatorMixin, BaseEstimator):
    """Regressor of a transformed target that learns one task after another.

    :class:`sklearn.compose.TransformedTargetRegressor` with the ``partial_fit``
    it lacks. The transformer is fitted to the targets of the first task and then
    kept: a net that has learned in its units would be wrong in any others.
    Predictions are in the units of y.

    Parameters
    ----------
    regressor : estimator
        The regressor; cloned. It needs ``partial_fit`` to learn more than one task.
    transformer : estimator, default=None
        Transforms the targets, which it gets as (n_samples, n_outputs), and back
        by ``inverse_transform``; cloned. None is
        :class:`~sklearn.preprocessing.StandardScaler`, mean 0 and standard
        deviation 1 for each output. For a function and its inverse take
        :class:`~sklearn.preprocessing.FunctionTransformer`.

    Attributes
    ----------
    regressor_ : estimator
        The fitted regressor.
    transformer_ : estimator
        The transformer, as fitted to the first task.
    n_tasks_ : int
        Number of tasks that the net inside has learned, wherever it is nested.
    memory_ : Memory
        What it keeps of them, see :class:`~sklearn_ewc.EWCRegressor`.
    history : skorch.history.History
        Its rows per epoch.
    n_features_in_ : int
        Number of columns of X, if the regressor tells.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the columns of X, if the regressor tells.

    Notes
    -----
    A parameter of the regressor that is set between tasks, as by
    ``set_params(regressor__ewc_lambda=10.0)``, is set in ``regressor_`` too, and
    so holds from the next ``partial_fit`` on. A new `regressor` and what is set
    in `transformer` wait for the next ``fit``.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_ewc import EWCRegressor
    >>> from sklearn_ewc.target import ContinualTargetRegressor
    >>> X = np.linspace(-1, 1, 200).reshape(-1, 1)
    >>> y = 1e6 + 1e4 * X.ravel()
    >>> left = X.ravel() < 0
    >>> net = EWCRegressor(lr=0.01, max_epochs=20, random_state=0)
    >>> regressor = ContinualTargetRegressor(net)
    >>> regressor.partial_fit(X[left], y[left]).partial_fit(X[~left], y[~left])
    ContinualTargetRegressor(...)
    >>> regressor.transformer_.mean_
    array([994974.87])
    >>> regressor.n_tasks_
    2
    """

    regressor_: Any
    transformer_: Any
    y_is_flat_: bool

    def __init__(self, regressor: Any, *, transformer: Any = None) -> None:
        self.regressor = regressor
        self.transformer = transformer

    def fit(self, X: Any, y: ArrayLike, **params: Any) -> ContinualTargetRegressor:
        """Forget everything, then learn one task, or one after another.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Inputs, as the regressor takes them.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Targets.
        **params : dict
            For ``fit`` of the regressor, or with metadata routing what it has
            requested. A `sample_weight` of the net inside weights the fit of the
            transformer too, if that can be weighted, so that a sample of weight 0
            counts for nothing. And

            task : array-like of shape (n_samples,)
                A label per sample. The tasks are learned in the order of their
                labels, see :meth:`EWCRegressor.fit <sklearn_ewc.EWCRegressor.fit>`,
                by what one :meth:`partial_fit` after another would do: the
                transformer is fitted to the targets of the first task alone. What
                has a value per sample is cut with the rows. Any regressor that has
                ``partial_fit`` learns so. Without `task` transformer and regressor
                are fitted to all samples.

        Returns
        -------
        ContinualTargetRegressor
            The estimator itself.

        Raises
        ------
        ValueError, TypeError
            If y is not a table of finite numbers, the transformer has no
            ``inverse_transform``, there is a `task` and the regressor has no
            ``partial_fit``, or the regressor refuses. Whatever is raised, the
            estimator is then as it was before the call.
        """
        params = {key: value for key, value in params.items() if value is not None}
        self._check_inside()
        self._checked_target(y)  # all of it, before a part is learned
        with all_or_nothing(self):
            tasks = tasks_of_fit(self, X, y, params)
            if tasks is None:
                self._learn(X, y, params, "fit", starts_anew=True)
                return self
            for one in tasks:
                self._learn_task(*one)
        return self

    @available_if(lambda self: hasattr(self.regressor, "partial_fit"))
    def partial_fit(self, X: Any, y: ArrayLike, **params: Any) -> ContinualTargetRegressor:
        """Learn one new task, its targets transformed as those of the first one.

        On an estimator that is not fitted, it is the first task.

        Parameters
        ----------
        X, y
            As in :meth:`fit`.
        **params : dict
            As in :meth:`fit` but for `task`, for ``partial_fit`` of the regressor.

        Returns
        -------
        ContinualTargetRegressor
            The estimator itself.

        Raises
        ------
        ValueError, TypeError
            As in :meth:`fit`.
        """
        self._check_inside()
        with all_or_nothing(self):
            self._learn_task(X, y, params, self._next_task())
        return self

    def _learn_task(self, X: Any, y: Any, metadata: dict[str, Any], arrival: Arrival) -> None:
        starts_anew = arrival.starts_anew or not self.__sklearn_is_fitted__()
        self._learn(X, y, metadata, arrival.routed_by, starts_anew, arrival)

    def _learn(
        self,
        X: Any,
        y: Any,
        metadata: dict[str, Any],
        method: str,
        starts_anew: bool,
        arrival: Arrival | None = None,
    ) -> None:
        """Transform targets and pass them on, as a task that arrives or all at once to ``fit``."""
        y = self._checked_target(y)
        weight = metadata.get(keyword(self, "sample_weight", metadata, method) or "")
        metadata = self._routed(method, metadata)
        if starts_anew:
            transformer, flat = self._fitted_transformer(y, weight), y.ndim == 1
            with naming("regressor"):
                regressor = clone(self.regressor)
            learning = "fit" if arrival is None else "partial_fit"
            if not hasattr(regressor, learning):
                raise TypeError(f"regressor has no {learning}: {shown(regressor)}")
        else:
            transformer, regressor, flat = self.transformer_, self.regressor_, self.y_is_flat_
        # as an array, where set_config asks for a DataFrame
        with naming("y"):
            transformed = np.asarray(transformer.transform(_as_table(y)))
        target = _flattened(transformed) if flat else transformed
        if arrival is None:
            regressor.fit(X, target, **metadata)
        else:
            learn_task(regressor, X, target, metadata, arrival)
        self.__dict__.update(transformer_=transformer, regressor_=regressor, y_is_flat_=flat)

    @property
    def _learner(self) -> Any:
        return self.regressor

    def _checked_target(self, y: Any) -> np.ndarray:
        if y is None:
            raise ValueError(
                f"This {type(self).__name__} estimator requires y to be passed, but the target "
                "y is None."
            )
        with naming("y"):
            return check_array(numbers_in(y), input_name="y", ensure_2d=False, dtype=FLOATS)

    def _fitted_transformer(self, y: np.ndarray, sample_weight: Any) -> Any:
        with naming("transformer"):
            transformer = StandardScaler() if self.transformer is None else clone(self.transformer)
        if not hasattr(transformer, "inverse_transform"):
            raise TypeError(f"transformer {transformer} has no inverse_transform")
        if sample_weight is not None and has_fit_parameter(transformer, "sample_weight"):
            weight = checked_weights(sample_weight, y, y.dtype)
            return transformer.fit(_as_table(y), sample_weight=weight)
        return transformer.fit(_as_table(y))

    def predict(self, X: Any, **params: Any) -> np.ndarray:
        """Predict the targets, in the units of y.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Inputs.
        **params : dict
            For ``predict`` of the regressor.

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_outputs)
            One-dimensional if the y of the first task was.
        """
        check_is_fitted(self)
        predicted = self.regressor_.predict(X, **self._routed("predict", params))
        restored = self.transformer_.inverse_transform(_as_table(predicted))
        return _flattened(restored) if self.y_is_flat_ else restored

    def set_params(self, **params: Any) -> ContinualTargetRegressor:
        """Set parameters; those of the regressor hold for the next task.

        Parameters
        ----------
        **params : dict
            Parameters of this estimator, of ``regressor__…`` and ``transformer__…``.

        Returns
        -------
        ContinualTargetRegressor
            The estimator itself.
        """
        with all_or_nothing(self):
            super().set_params(**params)
            if self.__sklearn_is_fitted__() and type(self.regressor) is type(self.regressor_):
                prefix = "regressor__"
                of_regressor = {
                    name.removeprefix(prefix): clone(value, safe=False)
                    for name, value in params.items()
                    if name.startswith(prefix)
                }
                self.regressor_.set_params(**of_regressor)
        return self

    def get_metadata_routing(self) -> MetadataRouter:
        """Return the requests of the regressor, and its own for ``score``."""
        mapping = MethodMapping()
        for method in ("fit", "partial_fit", "predict"):
            mapping.add(caller=method, callee=method)
        router = MetadataRouter(owner=self).add(regressor=self.regressor, method_mapping=mapping)
        own = super().get_metadata_routing()
        return router.add_self_request(with_task(own, self.regressor))

    @property
    def n_features_in_(self) -> int:
        """Number of columns of X."""
        return self.regressor_.n_features_in_

    @property
    def feature_names_in_(self) -> np.ndarray:
        """Names of the columns of X."""
        return self.regressor_.feature_names_in_

    def _routed(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        return (
            process_routing(self, method, **params)["regressor"][method] if is_routed() else params
        )

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "regressor_")

    def __sklearn_tags__(self) -> Tags:
        tags, inner = super().__sklearn_tags__(), get_tags(self.regressor)
        tags.input_tags = inner.input_tags
        tags.target_tags.multi_output = inner.target_tags.multi_output
        return tags


def _as_table(values: np.ndarray) -> np.ndarray:
    return values.reshape(-1, 1) if values.ndim == 1 else values


def _flattened(values: np.ndarray) -> np.ndarray:
    """Return a single column as a vector, and more of them as they are."""
    return values[:, 0] if values.ndim == 2 and values.shape[1] == 1 else values
