"""Copies of objects that hold what cannot be copied."""

from __future__ import annotations

import copy
from typing import Any


def twin(one: Any, memo: dict[int, Any] | None = None) -> Any:
    """Return a deep copy of an object, but for attributes that refuse to be copied.

    An open file, a lock, a database connection refuse: the copy shares them.

    Parameters
    ----------
    one : object
        What has no attributes is returned as it is.
    memo : dict, default=None
        What stands for objects by their id, as in :func:`copy.deepcopy`; not changed.

    Returns
    -------
    object
        Of the same type.
    """
    if not hasattr(one, "__dict__"):
        return one
    kind: Any = type(one)
    other = kind.__new__(kind)
    memo = {**(memo or {}), id(one): other}
    for name, value in vars(one).items():
        attempt = dict(memo)  # one that fails leaves copies behind that are half made
        try:
            vars(other)[name] = copy.deepcopy(value, attempt)
        except Exception:
            vars(other)[name] = value
        else:
            memo = attempt
    return other
