"""ContinualTargetRegressor: a target that is transformed as it was on the first task."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn import get_config
from sklearn.base import BaseEstimator, MetaEstimatorMixin, RegressorMixin, clone
from sklearn.preprocessing import StandardScaler
from sklearn.utils import Tags, check_array, get_tags
from sklearn.utils.metadata_routing import MetadataRouter, MethodMapping, process_routing
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted, has_fit_parameter

from .rollback import all_or_nothing


class ContinualTargetRegressor(RegressorMixin, MetaEstimatorMixin, BaseEstimator):
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
        The fitted regressor; ``regressor_.memory_`` holds the tasks if it is an
        :class:`~sklearn_ewc.EWCRegressor`.
    transformer_ : estimator
        The transformer, as fitted to the first task.
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
    >>> regressor.regressor_.memory_.n_tasks
    2
    """

    regressor_: Any
    transformer_: Any
    y_is_flat_: bool

    def __init__(self, regressor: Any, *, transformer: Any = None) -> None:
        self.regressor = regressor
        self.transformer = transformer

    def fit(self, X: Any, y: ArrayLike, **params: Any) -> ContinualTargetRegressor:
        """Forget everything, then fit transformer and regressor.

        The transformer is fitted to all of y, even where the regressor is told by
        `task` to learn it in parts.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Inputs, as the regressor takes them.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Targets.
        **params : dict
            For ``fit`` of the regressor, or with metadata routing what it has
            requested. What goes by the name of `sample_weight` weights the fit of
            the transformer too, if that can be weighted, so that a sample of
            weight 0 counts for nothing.

        Returns
        -------
        ContinualTargetRegressor
            The estimator itself.

        Raises
        ------
        ValueError, TypeError
            If y is not a table of finite numbers, the transformer has no
            ``inverse_transform``, or the regressor refuses. Whatever is raised,
            the estimator is then as it was before the call.
        """
        return self._learn("fit", X, y, params, first=True)

    @available_if(lambda self: hasattr(self.regressor, "partial_fit"))
    def partial_fit(self, X: Any, y: ArrayLike, **params: Any) -> ContinualTargetRegressor:
        """Learn one new task, its targets transformed as those of the first one.

        On an estimator that is not fitted, it is the first task.

        Parameters
        ----------
        X, y
            As in :meth:`fit`.
        **params : dict
            As in :meth:`fit`, for ``partial_fit`` of the regressor.

        Returns
        -------
        ContinualTargetRegressor
            The estimator itself.

        Raises
        ------
        ValueError, TypeError
            As in :meth:`fit`.
        """
        return self._learn("partial_fit", X, y, params, first=not self.__sklearn_is_fitted__())

    def _learn(
        self, method: str, X: Any, y: Any, params: dict[str, Any], first: bool
    ) -> ContinualTargetRegressor:
        y = self._checked_target(y)
        params = self._routed(method, params)
        with all_or_nothing(self):
            if first:
                transformer, regressor = self._fitted_transformer(y, params), clone(self.regressor)
                flat = y.ndim == 1
            else:
                transformer, regressor, flat = self.transformer_, self.regressor_, self.y_is_flat_
            # as an array, where set_config asks for a DataFrame
            transformed = np.asarray(transformer.transform(_as_table(y)))
            getattr(regressor, method)(
                X, _flattened(transformed) if flat else transformed, **params
            )
            self.__dict__.update(transformer_=transformer, regressor_=regressor, y_is_flat_=flat)
        return self

    def _checked_target(self, y: Any) -> np.ndarray:
        if y is None:
            raise ValueError(
                f"This {type(self).__name__} estimator requires y to be passed, but the target "
                "y is None."
            )
        if np.asarray(y).dtype.kind in "mM":
            raise TypeError("y holds dates or durations, which are no numbers; divide by a unit")
        return check_array(y, input_name="y", ensure_2d=False)

    def _fitted_transformer(self, y: np.ndarray, params: dict[str, Any]) -> Any:
        transformer = StandardScaler() if self.transformer is None else clone(self.transformer)
        if not hasattr(transformer, "inverse_transform"):
            raise TypeError(f"transformer {transformer} has no inverse_transform")
        if "sample_weight" in params and has_fit_parameter(transformer, "sample_weight"):
            return transformer.fit(_as_table(y), sample_weight=params["sample_weight"])
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
        """Return the requests of the regressor, method by method."""
        mapping = MethodMapping()
        for method in ("fit", "partial_fit", "predict"):
            mapping.add(caller=method, callee=method)
        return MetadataRouter(owner=self).add(regressor=self.regressor, method_mapping=mapping)

    @property
    def n_features_in_(self) -> int:
        """Number of columns of X."""
        return self.regressor_.n_features_in_

    @property
    def feature_names_in_(self) -> np.ndarray:
        """Names of the columns of X."""
        return self.regressor_.feature_names_in_

    def _routed(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        if not get_config()["enable_metadata_routing"]:
            return params
        return process_routing(self, method, **params)["regressor"][method]

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
