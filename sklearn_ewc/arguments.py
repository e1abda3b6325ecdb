"""Checks of arguments, and errors that name the argument they are about."""

from __future__ import annotations

import re
import reprlib
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from numbers import Integral, Real
from typing import Any

_SHORT = reprlib.Repr()
_SHORT.maxother = _SHORT.maxstring = _SHORT.maxlong = 80


@contextmanager
def naming(argument: str) -> Iterator[None]:
    """Let errors name the argument they are about: those of numpy and torch do not."""
    try:
        yield
    except (ValueError, TypeError, OverflowError) as error:
        if re.search(rf"(?<!\w){re.escape(argument)}(?!\w)", str(error)):
            raise
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"{argument}: {error}") from error


def shown(value: Any) -> str:
    """Return a value as an error message tells it, however long it is."""
    return _SHORT.repr(value)


def is_integer(value: Any) -> bool:
    """Tell whether a value is a whole number, which True is not."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def is_count(value: Any) -> bool:
    """Tell whether a value is a whole number that something can be counted to."""
    return is_integer(value) and 0 <= value <= sys.maxsize


def check_not_negative(name: str, value: Any) -> None:
    """Raise ValueError unless `value` is a finite number that is not negative."""
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    if not (is_number and 0 <= value <= sys.float_info.max):  # NaN is neither
        raise ValueError(f"{name} must be a finite number >= 0, got {shown(value)}")


def check_finite(name: str, value: Any) -> None:
    """Raise ValueError unless `value` is a finite number."""
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    if not (is_number and abs(value) <= sys.float_info.max):
        raise ValueError(f"{name} must be a finite number, got {shown(value)}")


def check_count(name: str, value: Any) -> None:
    """Raise ValueError unless `value` is a whole number that is not negative."""
    if not is_count(value):
        raise ValueError(f"{name} must be an integer >= 0, got {shown(value)}")


def check_verbose(name: str, value: Any) -> None:
    """Raise ValueError unless `value` is a switch, or says how much is to be told."""
    if type(value).__name__ not in ("bool", "bool_"):
        check_count(name, value)


def check_switch(name: str, value: Any) -> None:
    """Raise TypeError unless `value` is True or False, numpy's too."""
    if not (isinstance(value, bool) or type(value).__name__ in ("bool", "bool_")):
        raise TypeError(f"{name} must be True or False, got {shown(value)}")


def check_choice(name: str, value: Any, known: Iterable[str]) -> None:
    """Raise ValueError unless `value` is one of the words that are known."""
    if not (isinstance(value, str) and value in known):
        listed = ", ".join(map(repr, known))
        raise ValueError(f"{name} must be one of {listed}, got {shown(value)}")


def check_callable(name: str, value: Any, *others: Any) -> None:
    """Raise TypeError unless `value` can be called, or is one of the others: None, or words."""
    is_other = value is None or isinstance(value, str)
    if not (callable(value) or (is_other and value in others)):
        listed = "".join(f"{other!r}, " for other in others)
        raise TypeError(f"{name} must be {listed}or callable, got {shown(value)}")
