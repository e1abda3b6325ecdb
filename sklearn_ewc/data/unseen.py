"""Categories that the encoders in a fitted transformer have never seen, and so pass over."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
from scipy.sparse import issparse
from sklearn.utils import _safe_indexing

from .tasks import is_missing

SHOWN = 5  # categories of a column, in a message


def warn_of_unseen(transformer: Any, X: Any, step: str, task: str) -> None:
    """Warn of what :func:`unseen_categories` finds, by the names of step, column and task."""
    found = unseen_categories(transformer, X)
    if found:
        columns = "; ".join(f"{name}: {_listed(values)}" for name, values in found.items())
        warnings.warn(
            f"{task} has categories that step {step!r}, which stays as the first task left it, has "
            f"never seen, in the columns {columns}. They are encoded as unknown, so nothing can be "
            "learned of them. Declare all that will come by the encoder's categories=[…]",
            UserWarning,
            stacklevel=2,
        )


def unseen_categories(transformer: Any, X: Any) -> dict[str, list[Any]]:
    """Return the categories in X that a fitted transformer encodes as unknown, by column.

    Parameters
    ----------
    transformer : transformer
        An encoder: OneHotEncoder, OrdinalEncoder, TargetEncoder or another with
        ``categories_``; or a ColumnTransformer, FeatureUnion or Pipeline with any in
        it. One with ``handle_unknown="error"`` raises by itself.
    X : array-like of shape (n_samples, n_features)
        What it transforms.

    Returns
    -------
    dict of str to list
        Columns that have no names are x0, x1, …, as elsewhere in scikit-learn.

    Examples
    --------
    >>> from sklearn.preprocessing import OneHotEncoder
    >>> from sklearn_ewc.data.unseen import unseen_categories
    >>> encoder = OneHotEncoder(handle_unknown="ignore").fit([["red"], ["blue"]])
    >>> unseen_categories(encoder, [["red"], ["green"]])
    {'x0': ['green']}
    """
    if not _encodes(transformer):
        return {}
    X = X if hasattr(X, "shape") else np.asarray(X, dtype=object)
    found: dict[str, set[Any]] = {}
    for name, values in _unseen(transformer, X, _names(X)):
        found.setdefault(name, set()).update(values)
    return {name: sorted(values, key=str) for name, values in found.items()}


def _unseen(transformer: Any, X: Any, names: np.ndarray) -> Iterator[tuple[str, set[Any]]]:
    """Yield column and categories, encoder by encoder."""
    if not _encodes(transformer) or len(getattr(X, "shape", ())) != 2 or issparse(X):
        return
    if hasattr(transformer, "categories_"):
        for position, known in enumerate(transformer.categories_):
            unseen = _beyond(_safe_indexing(X, position, axis=1), known)
            if unseen:
                yield names[position], unseen
    elif hasattr(transformer, "transformers_"):
        for _, part, columns in transformer.transformers_:
            if _encodes(part):
                chosen = _safe_indexing(X, columns, axis=1)
                yield from _unseen(part, chosen, _names(chosen, names, columns))
    elif hasattr(transformer, "transformer_list"):
        for _, part in transformer.transformer_list:
            yield from _unseen(part, X, names)
    else:
        yield from _unseen_in_steps([step for _, step in transformer.steps], X, names)


def _unseen_in_steps(steps: list[Any], X: Any, names: np.ndarray) -> Iterator[tuple[str, set[Any]]]:
    for position, step in enumerate(steps):
        yield from _unseen(step, X, names)
        if not any(map(_encodes, steps[position + 1 :])):
            return
        if hasattr(step, "transform"):  # "passthrough" and None have not
            X, names = step.transform(X), _names_out(step, names)
            names = _names(X, names)


def _encodes(transformer: Any) -> bool:
    """Whether there is an encoder in it that says nothing of what it has never seen."""
    if hasattr(transformer, "categories_"):
        return getattr(transformer, "handle_unknown", None) != "error"
    parts = getattr(transformer, "transformers_", getattr(transformer, "transformer_list", ()))
    steps = getattr(transformer, "steps", ())
    return any(_encodes(part) for _, part, *_ in [*parts, *steps])


def _beyond(column: Any, known: np.ndarray) -> set[Any]:
    """Return the values of a column that are not among those known."""
    known_values = set(known.tolist())
    unseen = set(np.asarray(column).tolist()) - known_values
    missing = {value for value in unseen if value is not None and is_missing(value)}
    is_known = any(value is not None and is_missing(value) for value in known_values)
    # NaN is no other NaN's equal
    return unseen - missing | (set() if is_known or not missing else {np.nan})


def _names(X: Any, names: Any = None, columns: Any = None) -> np.ndarray:
    """Return the names of the columns of a table, or those of an array as they are known."""
    if hasattr(X, "columns"):
        return np.array([str(name) for name in X.columns], dtype=object)
    width = X.shape[1] if len(X.shape) == 2 else 0
    if columns is not None:
        names = _safe_indexing(names, columns)
    is_known = names is not None and len(names) == width
    return names if is_known else np.array([f"x{i}" for i in range(width)], dtype=object)


def _names_out(step: Any, names: np.ndarray) -> Any:
    try:
        return step.get_feature_names_out(names)
    except (AttributeError, ValueError):  # it cannot tell, or was fitted without names
        return None


def _listed(values: list[Any]) -> str:
    more = len(values) - SHOWN
    return ", ".join(map(repr, values[:SHOWN])) + (f" and {more} more" if more > 0 else "")
