"""The λ to choose from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..arguments import check_not_negative, naming, shown

LAMBDAS = (0.0, 0.1, 1.0, 3.0, 10.0, 30.0, 100.0, 1000.0)


def checked_lambdas(lambdas: Sequence[float]) -> tuple[float, ...]:
    """Return the candidates, or raise TypeError or ValueError."""
    if not isinstance(lambdas, Iterable) or isinstance(lambdas, str | bytes):
        raise TypeError(f"lambdas must be a sequence of numbers, got {shown(lambdas)}")
    with naming("lambdas"):
        checked = tuple(lambdas)
    if not checked:
        raise ValueError("lambdas is empty")
    for position, ewc_lambda in enumerate(checked):
        check_not_negative(f"lambdas[{position}]", ewc_lambda)
    return checked
