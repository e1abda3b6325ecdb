"""Picture of the scores over λ: what is kept of the old tasks, what is learned of the new."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import clone, is_regressor
from sklearn.utils.validation import check_is_fitted

from ..evaluate import Tasks, task_scores
from ..wrapped import name_of_lambda
from ._style import axes_or_new, check_matplotlib, colours, label_ticks, score_label


class LambdaDisplay:
    """Scores over λ, the strength of the penalty.

    Made by :meth:`from_estimator`, which draws the old tasks against the new one
    (stability against plasticity), or :meth:`from_search`.

    Parameters
    ----------
    lambdas : array-like of shape (n_lambdas,)
        λ, increasing.
    scores : dict of str to array-like of shape (n_lambdas,)
        A curve for every name.
    deviations : dict of str to array-like of shape (n_lambdas,), default=None
        Standard deviations of the curves that have any.
    scoring : str, default="score"
        What the scores are.

    Attributes
    ----------
    ax_ : matplotlib Axes
        What was drawn in.
    figure_ : matplotlib Figure
        The figure of `ax_`.
    lines_ : list of matplotlib Line2D
        A line per curve.
    bands_ : list of matplotlib PolyCollection
        Plus and minus one standard deviation, of the curves that have any.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_ewc import EWCRegressor
    >>> from sklearn_ewc.display import LambdaDisplay
    >>> X = np.linspace(-2, 2, 60).reshape(-1, 1)
    >>> y = np.sin(2 * X.ravel())
    >>> net = EWCRegressor(lr=0.01, max_epochs=20, random_state=0)
    >>> tasks = [(X[:30], y[:30]), (X[30:], y[30:])]
    >>> display = LambdaDisplay.from_estimator(net, tasks, lambdas=[0, 100])
    >>> without, strong = display.scores["old tasks"]
    >>> bool(without < strong)
    True
    """

    def __init__(
        self,
        lambdas: ArrayLike,
        scores: Mapping[str, ArrayLike],
        *,
        deviations: Mapping[str, ArrayLike] | None = None,
        scoring: str = "score",
    ) -> None:
        self.lambdas = np.asarray(lambdas, dtype=float)
        self.scores = {name: np.asarray(curve, dtype=float) for name, curve in scores.items()}
        spreads = deviations or {}
        self.deviations = {name: np.asarray(spread, float) for name, spread in spreads.items()}
        self.scoring = scoring

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        tasks: Tasks,
        *,
        lambdas: Sequence[float],
        test_tasks: Tasks | None = None,
        scoring: Any = None,
        ax: Any = None,
    ) -> LambdaDisplay:
        """Learn the tasks one after another with every λ, and draw what became of them.

        After the last task: the mean score on all earlier tasks, and the score on
        the last.

        Parameters
        ----------
        estimator : EWCRegressor, or a pipeline that has ``partial_fit`` and ends in one
            Not changed. Set ``random_state``, so that every λ starts from the same
            network.
        tasks, test_tasks, scoring
            As in :func:`~sklearn_ewc.evaluate.task_scores`; at least two tasks.
        lambdas : sequence of float
            The λ to try, in any order.
        ax : matplotlib Axes, default=None
            As in :meth:`plot`.

        Returns
        -------
        LambdaDisplay

        Raises
        ------
        ValueError
            If there are fewer than two tasks, or the estimator has no parameter
            ``ewc_lambda``, or more than one.
        """
        check_matplotlib(f"{cls.__name__}.from_estimator")
        if len(tasks) < 2:
            raise ValueError("one task is old, one is new: at least two tasks are needed")
        name = name_of_lambda(estimator.get_params(), "estimator")
        ordered = sorted(lambdas)
        results = [
            task_scores(
                clone(estimator).set_params(**{name: value}),
                tasks,
                test_tasks=test_tasks,
                scoring=scoring,
            )
            for value in ordered
        ]
        last = np.array([result.scores[-1] for result in results])
        scores = {"old tasks": last[:, :-1].mean(axis=1), "newest task": last[:, -1]}
        return cls(ordered, scores, scoring=results[0].scoring).plot(ax=ax)

    @classmethod
    def from_search(cls, search: Any, *, ax: Any = None) -> LambdaDisplay:
        """Draw the test scores of a fitted search, mean and standard deviation over its folds.

        Parameters
        ----------
        search : GridSearchCV, or another search with ``cv_results_``
            Fitted, over ``ewc_lambda``, that of a step inside a pipeline for example.
            Where it went over other parameters too, every λ shows its best candidate;
            "auto", which is no one λ, has no place on the axis.
            With several scores, the one that `refit` names.
        ax : matplotlib Axes, default=None
            As in :meth:`plot`.

        Returns
        -------
        LambdaDisplay

        Raises
        ------
        NotFittedError
            If the search is not fitted.
        ValueError
            If it did not go over ``ewc_lambda``, or has several scores of which
            `refit` names none.
        """
        check_matplotlib(f"{cls.__name__}.from_search")
        check_is_fitted(search, "cv_results_")
        results = search.cv_results_
        searched = [key.removeprefix("param_") for key in results if key.startswith("param_")]
        values = results[f"param_{name_of_lambda(searched, 'search')}"]
        metric = search.refit if search.multimetric_ else "score"
        if f"mean_test_{metric}" not in results:
            raise ValueError("of several scores, refit must name the one to draw")
        means, deviations = results[f"mean_test_{metric}"], results[f"std_test_{metric}"]
        best = _best_of_each(values, means)
        rows = list(best.values())
        return cls(
            list(best),
            {"test score": means[rows]},
            deviations={"test score": deviations[rows]},
            scoring=_scoring_of(search, metric),
        ).plot(ax=ax)

    def plot(self, *, ax: Any = None) -> LambdaDisplay:
        """Draw.

        λ is on a logarithmic axis, broken where it goes on to 0.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.

        Returns
        -------
        LambdaDisplay
            The display itself.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        """
        self.ax_ = ax = axes_or_new(f"{type(self).__name__}.plot", ax, (6.4, 4.8))
        self.figure_ = ax.figure
        self.lines_, self.bands_ = [], []
        looks = zip(colours(len(self.scores)), cycle("os"), strict=False)
        for (name, curve), (colour, marker) in zip(self.scores.items(), looks, strict=True):
            (line,) = ax.plot(self.lambdas, curve, color=colour, marker=marker, label=name)
            self.lines_.append(line)
            if name in self.deviations:
                low, high = curve - self.deviations[name], curve + self.deviations[name]
                look = {"color": colour, "alpha": 0.2, "linewidth": 0}
                band = ax.fill_between(
                    self.lambdas, low, high, label="± standard deviation over folds", **look
                )
                self.bands_.append(band)
        _scale_lambda(ax, self.lambdas)
        ax.set(xlabel="λ (ewc_lambda)", ylabel=score_label(self.scoring))
        ax.legend()
        return self


def _best_of_each(values: Any, means: np.ndarray) -> dict[float, int]:
    """Return the row of the best candidate of each λ, λ increasing."""
    best: dict[float, int] = {}
    for row in np.argsort(means):  # NaN, a fit that failed, comes last
        value = values[row]
        is_number = value is not np.ma.masked and not isinstance(value, str)
        if is_number and not (value in best and np.isnan(means[row])):
            best[value] = int(row)
    return dict(sorted(best.items()))


def _scoring_of(search: Any, metric: str) -> str:
    if search.scoring is None and is_regressor(search):
        return "R²"
    return search.scoring if isinstance(search.scoring, str) else metric


def _scale_lambda(ax: Any, lambdas: np.ndarray) -> None:
    from matplotlib.ticker import NullLocator

    positive = lambdas[lambdas > 0]
    if len(positive) == len(lambdas):
        ax.set_xscale("log")
    elif len(positive):
        least = positive.min()
        ax.set_xscale("symlog", linthresh=least, linscale=0.5)
        slash = {"marker": [(-1, -2), (1, 2)], "markersize": 10, "color": "black", "clip_on": False}
        places = np.array([0.45, 0.55]) * least
        ax.plot(places, [0, 0], linestyle="none", transform=ax.get_xaxis_transform(), **slash)
    ax.xaxis.set_minor_locator(NullLocator())
    label_ticks(ax.xaxis, lambdas, [f"{value:g}" for value in lambdas])
