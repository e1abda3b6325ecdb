"""Parameters of estimators, found by name at any depth of pipelines and wrappers."""

from __future__ import annotations

from collections.abc import Iterable


def names_ending_in(name: str, parameters: Iterable[str]) -> list[str]:
    """Return the full names, such as ``ewcregressor__ewc_lambda``, of those of this name."""
    return [full for full in parameters if full.split("__")[-1] == name]


def name_of_lambda(parameters: Iterable[str], owner: str) -> str:
    """Return the full name of the one ``ewc_lambda``; raise ValueError unless there is one."""
    names = names_ending_in("ewc_lambda", parameters)
    if len(names) != 1:
        raise ValueError(f"{owner} must have one parameter ewc_lambda, found {names or 'none'}")
    return names[0]
