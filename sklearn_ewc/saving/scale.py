"""The scale of y, noted beside the parameters that were learned in it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ..data.targets import Values
from .facts import targets_from_json, targets_to_json

_NAME = "y of sklearn_ewc"  # no module has this name


def noted(targets: Values) -> dict[str, str]:
    """Return the note as metadata, of safetensors or of a module's state in torch's format.

    Empty as long as no task has told.
    """
    if targets.n_outputs is None:
        return {}
    return {_NAME: json.dumps(targets_to_json(targets), allow_nan=False)}


def read_note(metadata: Any) -> Values | None:
    """Return the targets that metadata tell of, None where they do not."""
    if not isinstance(metadata, Mapping) or _NAME not in metadata:
        return None
    return targets_from_json(json.loads(metadata[_NAME]))


def take_scale(net: Any, targets: Values | None) -> None:
    """Let a net that has learned nothing predict in the scale of the parameters it loads.

    Raises
    ------
    ValueError
        If it has learned in another: its memory does not go with these parameters.
    """
    if targets is None:
        return
    if net.n_tasks_ == 0:
        net.targets_ = targets
        return
    own = net.targets_
    if (targets.centre, targets.scale) != (own.centre, own.scale):
        raise ValueError(
            f"its parameters go with targets of the scale {targets.scale}, centre "
            f"{targets.centre}, the estimator's with {own.scale}, {own.centre}: load f_memory too"
        )
