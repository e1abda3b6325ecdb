"""What the first task decided, beside the parameters: a small part of a memory's file."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..data.checks import TORCH_DTYPES
from ..data.targets import TARGETS, Values


@dataclass(frozen=True)
class Facts:
    """What the first task decided, under the names of the net's attributes.

    None where the net does not know: names of columns that had none, sizes of
    inputs that are no table.
    """

    seed_: int
    dtype_: str
    targets_: Values
    n_features_in_: int | None = None
    feature_names_in_: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.dtype_ not in map(str, TORCH_DTYPES):
            raise ValueError(f"dtype_ is {self.dtype_!r}")
        for name in ("seed_", "n_features_in_"):
            value = getattr(self, name)
            if not (type(value) is int and value >= 0) and (name == "seed_" or value is not None):
                raise ValueError(f"{name} is {value!r}")
        names = self.feature_names_in_
        if names is not None:
            if not all(type(name) is str for name in names) or len(names) != self.n_features_in_:
                raise ValueError(f"feature_names_in_ is {names!r}")
            object.__setattr__(self, "feature_names_in_", tuple(names))

    @classmethod
    def of(cls, net: Any) -> Facts:
        """Return those of a net that is initialised."""
        known = {name: vars(net)[name] for name in cls.__dataclass_fields__ if name in vars(net)}
        if "feature_names_in_" in known:
            known["feature_names_in_"] = tuple(map(str, known["feature_names_in_"]))
        return cls(**{**known, "dtype_": str(net.dtype_)})

    def attributes(self) -> dict[str, Any]:
        """Return them as a net has them, but for those that it does not know."""
        attributes = {**vars(self), "dtype_": np.dtype(self.dtype_)}
        if self.feature_names_in_ is not None:
            attributes["feature_names_in_"] = np.array(self.feature_names_in_, dtype=object)
        return {name: value for name, value in attributes.items() if value is not None}

    def to_json(self) -> dict[str, Any]:
        """Return them as JSON knows them."""
        return {**asdict(self), "targets_": targets_to_json(self.targets_)}

    @classmethod
    def from_json(cls, facts: dict[str, Any]) -> Facts:
        """Return what :meth:`to_json` was taken of."""
        return cls(**{**facts, "targets_": targets_from_json(facts["targets_"])})

    def check(self, known: Facts) -> None:
        """Raise ValueError where a net that is already built differs."""
        pairs = [
            (name, getattr(self, name), getattr(known, name))
            for name in ("dtype_", "n_features_in_", "feature_names_in_")
        ]
        pairs.append(("n_outputs_", self.targets_.n_outputs, known.targets_.n_outputs))
        for name, ours, theirs in pairs:
            if None not in (ours, theirs) and ours != theirs:
                raise ValueError(f"{name} is {ours!r}, the estimator's is {theirs!r}")


def targets_to_json(targets: Values) -> dict[str, Any]:
    """Return what is known of y as JSON knows it."""
    return {"kind": targets.kind, **asdict(targets)}


def targets_from_json(targets: dict[str, Any]) -> Values:
    """Return what :func:`targets_to_json` was taken of."""
    options = dict(targets)
    return TARGETS[options.pop("kind")](**options)
