"""Measures of what is remembered, on the matrix of scores that tasks leave behind."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike


@dataclass(frozen=True, eq=False)
class TaskScores:
    """Scores on every task after each one was learned; see :func:`task_scores`.

    Attributes
    ----------
    scores : ndarray of shape (n_tasks, n_tasks)
        R: ``scores[i, j]`` is the score on task j after learning task i.
    untrained : ndarray of shape (n_tasks,)
        b: the score on each task before any was learned.
    names : tuple of str
        Names of the tasks.
    times : ndarray of shape (n_tasks,)
        Seconds that learning each task took.
    estimator : estimator
        The clone, as it is after the last task.
    scoring : str
        What the scores are.
    """

    scores: np.ndarray
    untrained: np.ndarray
    names: tuple[str, ...]
    times: np.ndarray
    estimator: Any = field(repr=False)
    scoring: str

    def to_frame(self) -> Any:
        """Return a data frame: a row "untrained", a row per task learned, a column per task."""
        import pandas as pd

        return pd.DataFrame(
            np.vstack([self.untrained, self.scores]),
            index=pd.Index(["untrained", *self.names], name="learned"),
            columns=pd.Index(self.names, name="score on"),
        )


def average_score(scores: TaskScores | ArrayLike) -> float:
    """Return the mean score on all T tasks after the last: (1/T) Σ_j R[T, j].

    Parameters
    ----------
    scores : TaskScores, or array-like of shape (n_tasks, n_tasks)
        R: R[i, j] is the score on task j after learning task i. More is better.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        If `scores` is not a square matrix.

    References
    ----------
    Lopez-Paz & Ranzato, "Gradient episodic memory for continual learning", NeurIPS
    2017: ACC, BWT and FWT.

    Examples
    --------
    >>> from sklearn_ewc.evaluate import average_score
    >>> average_score([[0.9, 0.2], [0.4, 0.8]])
    0.6
    """
    return float(_matrix(scores)[-1].mean())


def backward_transfer(scores: TaskScores | ArrayLike) -> float:
    """Return what later tasks did to earlier ones: the mean of R[T, j] − R[j, j] over j < T.

    Negative where tasks were forgotten, positive where they became better. `scores`
    and the source are those of :func:`average_score`.

    Raises
    ------
    ValueError
        If `scores` is not a square matrix, or there is only one task.

    Examples
    --------
    >>> from sklearn_ewc.evaluate import backward_transfer
    >>> backward_transfer([[0.9, 0.2], [0.4, 0.8]])
    -0.5
    """
    matrix = _matrix(scores, undefined_for_one="backward transfer")
    return float((matrix[-1] - matrix.diagonal())[:-1].mean())


def forward_transfer(scores: TaskScores | ArrayLike, untrained: ArrayLike | None = None) -> float:
    """Return what earlier tasks did for later ones: the mean of R[j−1, j] − b[j] over j > 1.

    How much better than untrained a task is just before it is learned. `scores` and
    the source are those of :func:`average_score`.

    Parameters
    ----------
    scores : TaskScores, or array-like of shape (n_tasks, n_tasks)
        R.
    untrained : array-like of shape (n_tasks,), default=None
        b, the scores before any task was learned. None: those of the TaskScores; a
        bare matrix has none.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        If `scores` is not a square matrix, there is only one task, or `untrained` is
        missing or of another length.

    Examples
    --------
    >>> from sklearn_ewc.evaluate import forward_transfer
    >>> forward_transfer([[0.9, 0.2], [0.4, 0.8]], untrained=[0.0, 0.1])
    0.1
    """
    matrix = _matrix(scores, undefined_for_one="forward transfer")
    if untrained is None:
        if not isinstance(scores, TaskScores):
            raise ValueError("a bare matrix of scores needs untrained, the scores before any task")
        untrained = scores.untrained
    baseline = np.asarray(untrained, dtype=float)
    if baseline.shape != matrix[0].shape:
        raise ValueError(f"untrained has shape {baseline.shape}, scores {matrix.shape}")
    return float((matrix.diagonal(1) - baseline[1:]).mean())


def forgetting(scores: TaskScores | ArrayLike) -> float:
    """Return the mean fall from a task's best score: max_{l<T} R[l, j] − R[T, j] over j < T.

    Less is better; negative where the last task improved the earlier ones. The
    forgetting measure of Chaudhry et al., "Riemannian walk for incremental
    learning", ECCV 2018. `scores` are those of :func:`average_score`.

    Raises
    ------
    ValueError
        If `scores` is not a square matrix, or there is only one task.

    Examples
    --------
    >>> from sklearn_ewc.evaluate import forgetting
    >>> forgetting([[0.9, 0.2], [0.4, 0.8]])
    0.5
    """
    matrix = _matrix(scores, undefined_for_one="forgetting")
    return float((matrix[:-1].max(axis=0) - matrix[-1])[:-1].mean())


def gap_closed(
    score: TaskScores | float, sequential: TaskScores | float, joint: TaskScores | float
) -> float:
    """Return where a score stands between forgetting (0) and learning all at once (1).

    Parameters
    ----------
    score : float or TaskScores
        The average score to place; of a TaskScores, its :func:`average_score`.
    sequential : float or TaskScores
        That of the tasks learned one after another without a penalty.
    joint : float or TaskScores
        That of all tasks learned at once.

    Returns
    -------
    float
        (score − sequential) / (joint − sequential). Below 0 and above 1 are possible.
        NaN, with a UserWarning, unless joint > sequential: there is no gap then.

    Examples
    --------
    >>> from sklearn_ewc.evaluate import gap_closed
    >>> gap_closed(0.6, sequential=0.2, joint=0.7)
    0.8
    """
    value, low, high = (
        average_score(one) if isinstance(one, TaskScores) else float(one)
        for one in (score, sequential, joint)
    )
    if not high > low:
        warnings.warn(
            f"learning all tasks at once scores {high:.3g}, not more than the {low:.3g} of "
            "learning them one after another without a penalty: there is no gap to close",
            UserWarning,
            stacklevel=2,
        )
        return float("nan")
    return (value - low) / (high - low)


def _matrix(scores: TaskScores | ArrayLike, undefined_for_one: str = "") -> np.ndarray:
    """Return R, checked; name a measure that one task does not define."""
    matrix = np.asarray(scores.scores if isinstance(scores, TaskScores) else scores, dtype=float)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not matrix.size:
        raise ValueError(f"scores must be a square matrix, got shape {matrix.shape}")
    if undefined_for_one and len(matrix) == 1:
        raise ValueError(f"{undefined_for_one} is undefined for one task")
    return matrix
