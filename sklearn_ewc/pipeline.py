"""ContinualPipeline: scikit-learn's Pipeline with the partial_fit it lacks."""

from __future__ import annotations

from typing import Any

from sklearn import get_config
from sklearn.base import BaseEstimator
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.utils.metadata_routing import (
    MetadataRouter,
    MethodMapping,
    get_routing_for_object,
    process_routing,
)
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from .rollback import all_or_nothing


class ContinualPipeline(Pipeline):
    """Pipeline that learns one task after another.

    The first :meth:`partial_fit` fits the transformers and lets the final step
    learn the first task. Later calls pass the data through the transformers as
    they are, and let the final step learn one task more. Everything else is as
    in :class:`sklearn.pipeline.Pipeline`.

    Parameters
    ----------
    steps : list of (str, estimator)
        Names and estimators, in order. All but the last have ``fit`` and
        ``transform``, or are "passthrough" or None; the last has ``partial_fit``,
        or the pipeline has none.
    transform_input : list of str, default=None
        Names of metadata that the pipeline transforms as it does X, as in
        :class:`~sklearn.pipeline.Pipeline`.
    memory : str or joblib.Memory, default=None
        Caches the transformers as fitted by :meth:`fit` and by the first
        :meth:`partial_fit`, on clones of them.
    verbose : bool, default=False
        Print the time that each step took.
    update_transformers : bool, default=False
        Let the transformers that have ``partial_fit`` learn from every later task
        before they transform it. By default they stay as the first task left
        them: what moves the inputs under a net makes it forget, whatever holds
        its parameters in place. On the first two tasks of the demonstration,
        updating a :class:`~sklearn.preprocessing.StandardScaler` took R² on the
        first from 0.83 to −0.05. Set it where the final step is meant to follow
        the data. A :class:`~sklearn.frozen.FrozenEstimator` is never updated.

    Notes
    -----
    A ``partial_fit`` is the first one if the final step has learned nothing:
    after ``clone``, for example, and not after ``fit``. It fits every
    transformer, as ``fit`` does; wrap one that is fitted already in
    :class:`~sklearn.frozen.FrozenEstimator` to keep it. A transformer that is put
    in place later is not fitted on the side: the next ``partial_fit`` raises
    NotFittedError.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.preprocessing import StandardScaler
    >>> from sklearn_ewc import EWCRegressor
    >>> from sklearn_ewc.pipeline import ContinualPipeline
    >>> X = np.linspace(0, 400, 200).reshape(-1, 1)
    >>> y = np.sin(X.ravel() / 50)
    >>> early = X.ravel() < 200
    >>> net = EWCRegressor(max_epochs=20, random_state=0)
    >>> pipeline = ContinualPipeline([("scale", StandardScaler()), ("net", net)])
    >>> pipeline.partial_fit(X[early], y[early]).partial_fit(X[~early], y[~early])
    ContinualPipeline(...)
    >>> pipeline["scale"].mean_
    array([99.5])
    >>> pipeline["net"].n_tasks_
    2
    """

    steps: list[tuple[str, Any]]
    # beside the signature, scikit-learn's validation wants this table
    _parameter_constraints = {
        **Pipeline._parameter_constraints,
        "update_transformers": ["boolean"],
    }

    def __init__(
        self,
        steps: list[tuple[str, Any]],
        *,
        transform_input: list[str] | None = None,
        memory: Any = None,
        verbose: bool = False,
        update_transformers: bool = False,
    ) -> None:
        super().__init__(steps, transform_input=transform_input, memory=memory, verbose=verbose)
        self.update_transformers = update_transformers

    def fit(self, X: Any, y: Any = None, **params: Any) -> ContinualPipeline:
        """Forget everything, then fit the transformers and the final step.

        Parameters
        ----------
        X, y, **params
            As in :meth:`sklearn.pipeline.Pipeline.fit`.

        Returns
        -------
        ContinualPipeline
            The pipeline itself. Whatever is raised, its steps are as they were
            before the call.
        """
        with all_or_nothing(self):
            super().fit(X, y, **params)
        return self

    @available_if(lambda self: hasattr(self.steps[-1][1], "partial_fit"))
    def partial_fit(self, X: Any, y: Any = None, **params: Any) -> ContinualPipeline:
        """Learn one new task.

        Parameters
        ----------
        X : array-like
            Inputs, as the first step takes them.
        y : array-like, default=None
            Targets, as all steps take them.
        **params : dict
            Without metadata routing: parameters of single steps, as in
            ``ewcregressor__sample_weight=weight``, for ``partial_fit`` of the final
            step, ``fit`` of the transformers on the first task, and
            ``partial_fit`` of those updated later. What is meant for a
            transformer that stays as it is has no effect. With metadata routing:
            what the steps have requested for those methods and ``transform``.

        Returns
        -------
        ContinualPipeline
            The pipeline itself. Whatever is raised, its steps are as they were
            before the call.

        Raises
        ------
        ValueError, TypeError
            If a step refuses the data or its parameters.
        sklearn.exceptions.NotFittedError
            If the final step has learned and a transformer has not.
        """
        self._validate_params()  # as Pipeline.fit does by a decorator, private too
        name, final = self.steps[-1]
        first = not _is_fitted(final)
        transformers = self.steps[:-1] if first else self._continued_transformers()
        learning = Pipeline(
            [*transformers, (name, _ContinuedStep(final, learns=True))],
            transform_input=self.transform_input,
            memory=self.memory if first else None,
            verbose=self.verbose,
        )
        if get_config()["enable_metadata_routing"]:
            process_routing(self, "partial_fit", **params)
            consumed = get_routing_for_object(learning).consumes("fit", params.keys())
            params = {key: value for key, value in params.items() if key in consumed}
        with all_or_nothing(self):
            learning.fit(X, y, **params)
            if first:
                self.steps = [*learning.steps[:-1], (name, final)]
        return self

    def _continued_transformers(self) -> list[tuple[str, Any]]:
        return [
            (name, step if _is_passthrough(step) else _ContinuedStep(step, self._updates(step)))
            for name, step in self.steps[:-1]
        ]

    def _updates(self, transformer: Any) -> bool:
        frozen = isinstance(transformer, FrozenEstimator)  # passes partial_fit through all the same
        return self.update_transformers and not frozen and hasattr(transformer, "partial_fit")

    def set_params(self, **params: Any) -> ContinualPipeline:
        """Set parameters of the pipeline and of its steps.

        Parameters
        ----------
        **params : dict
            As in :meth:`sklearn.pipeline.Pipeline.set_params`.

        Returns
        -------
        ContinualPipeline
            The pipeline itself. Whatever is raised, its steps are as they were
            before the call.
        """
        with all_or_nothing(self):
            super().set_params(**params)
        return self

    def get_metadata_routing(self) -> MetadataRouter:
        """Return the requests of the steps by method of the pipeline, ``partial_fit`` too."""
        router = super().get_metadata_routing()
        last = self.steps[-1][0]
        for name, route in router:
            called = set() if name == last else {"fit", "transform"}
            if name == last or self._updates(self.named_steps[name]):
                called.add("partial_fit")
            for method in sorted(called):
                route.mapping.add(caller="partial_fit", callee=method)
        return router

    def __getitem__(self, index: Any) -> Any:
        part = super().__getitem__(index)
        if isinstance(index, slice):
            part.update_transformers = self.update_transformers
        return part


def make_continual_pipeline(
    *steps: Any,
    memory: Any = None,
    transform_input: list[str] | None = None,
    verbose: bool = False,
    update_transformers: bool = False,
) -> ContinualPipeline:
    """Make a :class:`ContinualPipeline` whose steps are named after their types.

    Parameters
    ----------
    *steps : estimators
        The steps, in order.
    memory, transform_input, verbose, update_transformers
        As in :class:`ContinualPipeline`.

    Returns
    -------
    ContinualPipeline
        The pipeline.

    Examples
    --------
    >>> from sklearn.preprocessing import StandardScaler
    >>> from sklearn_ewc import EWCRegressor
    >>> from sklearn_ewc.pipeline import make_continual_pipeline
    >>> list(make_continual_pipeline(StandardScaler(), EWCRegressor()).named_steps)
    ['standardscaler', 'ewcregressor']
    """
    return ContinualPipeline(
        make_pipeline(*steps).steps,
        transform_input=transform_input,
        memory=memory,
        verbose=verbose,
        update_transformers=update_transformers,
    )


class _ContinuedStep(BaseEstimator):
    """A step for a Pipeline whose ``fit`` is a task more: ``partial_fit``, or nothing at all.

    So it is scikit-learn's own Pipeline that carries the data, the metadata and
    the clock from step to step, in ``partial_fit`` as in ``fit``.
    """

    def __init__(self, step: Any, learns: bool) -> None:
        self.step = step
        self.learns = learns

    def fit(self, X: Any, y: Any = None, **params: Any) -> _ContinuedStep:
        if self.learns:
            self.step.partial_fit(X, y, **self._routed("fit", "partial_fit", params))
        return self

    def transform(self, X: Any, **params: Any) -> Any:
        return self.step.transform(X, **self._routed("transform", "transform", params))

    def __sklearn_is_fitted__(self) -> bool:
        return _is_fitted(self.step)

    def get_metadata_routing(self) -> MetadataRouter:
        mapping = MethodMapping().add(caller="transform", callee="transform")
        if self.learns:
            mapping.add(caller="fit", callee="partial_fit")
        return MetadataRouter(owner=self).add(step=self.step, method_mapping=mapping)

    def _routed(self, caller: str, callee: str, params: dict[str, Any]) -> Any:
        if not get_config()["enable_metadata_routing"]:
            return params
        return process_routing(self, caller, **params)["step"][callee]


def _is_passthrough(step: Any) -> bool:
    return step is None or (isinstance(step, str) and step == "passthrough")


def _is_fitted(estimator: Any) -> bool:
    try:
        check_is_fitted(estimator)
    except NotFittedError:
        return False
    return True
