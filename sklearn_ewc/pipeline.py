"""ContinualPipeline: scikit-learn's Pipeline with the partial_fit it lacks."""

from __future__ import annotations

from typing import Any

from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.utils.metadata_routing import (
    MetadataRequest,
    MetadataRouter,
    get_routing_for_object,
    process_routing,
)
from sklearn.utils.metaestimators import available_if

from .arguments import naming, shown
from .continual.base import Arrival, Continual
from .continual.learning import tasks_of_fit
from .continual.metadata import is_routed, with_task
from .continual.steps import FinalStep, LaterTransformer, are_pairs, can_learn_tasks, is_fitted
from .data.arrays import check_not_masked
from .rollback import all_or_nothing


class ContinualPipeline(Continual, Pipeline):
    """Pipeline that learns one task after another.

    The first :meth:`partial_fit` fits the transformers and lets the final step
    learn the first task. Later calls pass the data through the transformers as
    they are, and let the final step learn one task more; :meth:`fit` with a `task`
    column does the same with a table that holds them all. Everything else is as in
    :class:`sklearn.pipeline.Pipeline`.

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

    Attributes
    ----------
    n_tasks_ : int
        Number of tasks that the net inside has learned, wherever it is nested.
    memory_ : Memory
        What it keeps of them, see :class:`~sklearn_ewc.EWCRegressor`.
    history : skorch.history.History
        Its rows per epoch.

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
    >>> pipeline.n_tasks_
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
        """Forget everything, then learn one task, or one after another.

        Parameters
        ----------
        X : array-like
            Inputs, as the first step takes them.
        y : array-like, default=None
            Targets, as all steps take them.
        **params : dict
            As in :meth:`partial_fit`, for ``fit`` of all steps; and

            task : array-like of shape (n_samples,)
                A label per sample. The tasks are learned in the order of their
                labels, see :meth:`EWCRegressor.fit <sklearn_ewc.EWCRegressor.fit>`,
                by what one :meth:`partial_fit` after another would do: the
                transformers are fitted to the first task alone. What has a value
                per sample, such as `sample_weight`, is cut with the rows. Any final
                step that has ``partial_fit`` learns so. Without `task` every step
                is fitted to all samples, as in :class:`~sklearn.pipeline.Pipeline`.

        Returns
        -------
        ContinualPipeline
            The pipeline itself. Whatever is raised, its steps are as they were
            before the call.

        Raises
        ------
        ValueError, TypeError
            If a step refuses the data or its parameters, labels mean nothing,
            there is a `task` and the final step has no ``partial_fit``, or some
            values in X are masked: most transformers would read what is under the mask.

        Warns
        -----
        UserWarning
            If a transformer meets categories in a later task that it never saw; if
            labels in text are learned in another order than the rows have them.
        """
        params = {key: value for key, value in params.items() if value is not None}
        self._check(X)
        with all_or_nothing(self):
            tasks = tasks_of_fit(self, X, y, params)
            if tasks is None:
                super().fit(X, y, **self._by_step(params))
                return self
            for one in tasks:
                self._learn_task(*one)
        return self

    @available_if(lambda self: can_learn_tasks(self.steps))
    def partial_fit(self, X: Any, y: Any = None, **params: Any) -> ContinualPipeline:
        """Learn one new task.

        Parameters
        ----------
        X : array-like
            Inputs, as the first step takes them.
        y : array-like, default=None
            Targets, as all steps take them.
        **params : dict
            Without metadata routing: parameters of the final step by their names,
            as in ``sample_weight=weight``, and of any step by its name, as in
            ``standardscaler__sample_weight=weight``; for ``partial_fit`` of the
            final step, ``fit`` of the transformers on the first task, and
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
            If a step refuses the data or its parameters, or some values in X are masked.
        sklearn.exceptions.NotFittedError
            If the final step has learned and a transformer has not.

        Warns
        -----
        UserWarning
            If a transformer that stays as it is meets categories that it never saw.
        """
        self._check(X)
        with all_or_nothing(self):
            self._learn_task(X, y, params, self._next_task())
        return self

    def _check(self, X: Any) -> None:
        """Refuse what is no pipeline, and inputs of which steps would read too much."""
        self._validate_params()  # as Pipeline.fit does by a decorator, private too
        self._check_inside()
        with naming("X"):
            check_not_masked(X)

    def _check_inside(self) -> None:
        if not (are_pairs(self.steps) and self.steps):
            raise ValueError(
                f"steps must be a list of pairs of a name and an estimator, got {shown(self.steps)}"
            )
        super()._check_inside()

    def _learn_task(self, X: Any, y: Any, metadata: dict[str, Any], arrival: Arrival) -> None:
        self._check(X)
        name, final = self.steps[-1]
        first = arrival.starts_anew or not is_fitted(final)
        transformers = self.steps[:-1] if first else self._continued_transformers(arrival)
        learning = Pipeline(
            [*transformers, (name, FinalStep(final, arrival))],
            transform_input=self.transform_input,
            memory=self.memory if first else None,
            verbose=self.verbose,
        )
        if is_routed():
            process_routing(self, arrival.routed_by, **metadata)
            consumed = get_routing_for_object(learning).consumes("fit", metadata.keys())
            metadata = {key: value for key, value in metadata.items() if key in consumed}
        learning.fit(X, y, **self._by_step(metadata))
        if first:
            self.steps = [*learning.steps[:-1], (name, final)]

    @property
    def _learner(self) -> Any:
        return self.steps[-1][1]

    def _by_step(self, metadata: dict[str, Any]) -> dict[str, Any]:
        """Return metadata under the names that Pipeline knows: a bare one is the final step's."""
        if is_routed() or not metadata:
            return metadata
        final = self.steps[-1][0]
        by_step = {key if "__" in key else f"{final}__{key}": key for key in metadata}
        for key in metadata.keys() - by_step.values():
            raise TypeError(f"{key} is given twice, once without the name of the step")
        return {full: metadata[key] for full, key in by_step.items()}

    def _continued_transformers(self, arrival: Arrival) -> list[tuple[str, Any]]:
        return [
            (name, step)
            if _is_passthrough(step)
            else (name, LaterTransformer(step, name, self._updates(step), arrival))
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
        return router.add_self_request(with_task(MetadataRequest(owner=self), self._learner))

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


def _is_passthrough(step: Any) -> bool:
    return step is None or (isinstance(step, str) and step == "passthrough")
