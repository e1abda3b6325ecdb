"""What a net's output says as a target: of the criteria that expect y, or a distribution of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from ..tensors import uncompiled

# of these the expected loss is least where the net says again what it said
_TARGETS: tuple[tuple[type[nn.Module], Callable[[Any, Tensor], Tensor]], ...] = (
    (nn.CrossEntropyLoss, lambda criterion, output: output.softmax(1 if output.ndim > 1 else 0)),
    (nn.BCEWithLogitsLoss, lambda criterion, output: output.sigmoid()),
    (nn.MultiLabelSoftMarginLoss, lambda criterion, output: output.sigmoid()),
    (nn.PoissonNLLLoss, lambda criterion, output: output.exp() if criterion.log_input else output),
    (nn.KLDivLoss, lambda criterion, output: output if criterion.log_target else output.exp()),
)


def taught(criterion: Any, output: Tensor) -> Tensor:
    """Return a teacher's output as the target of a pupil.

    The mean of y for criteria of the residual, which is the output itself; for those of
    a distribution its probabilities, or its mean.

    Examples
    --------
    >>> import torch
    >>> from sklearn_ewc.training.targeting import taught
    >>> taught(torch.nn.BCEWithLogitsLoss(), torch.zeros(2))
    tensor([0.5000, 0.5000])
    >>> taught(torch.nn.MSELoss(), torch.zeros(2))
    tensor([0., 0.])
    """
    for kind, target_of in _TARGETS:
        if isinstance(criterion, kind):
            return target_of(criterion, output)
    return output


def check_can_teach(net: Any, output: Tensor, y: Tensor) -> None:
    """Raise ValueError where a criterion takes targets that a net's output cannot be."""
    criterion = uncompiled(net.criterion_)
    if any(isinstance(criterion, kind) for kind, _ in _TARGETS):
        return
    if output.shape != y.shape or not y.is_floating_point():
        raise ValueError(
            f"replay teaches by the net's earlier output, of shape {tuple(output.shape)}, and "
            f"{net.criterion_name_} takes targets of shape {tuple(y.shape)} in {y.dtype}: it is "
            "none of the criteria of which a target can be made of it"
        )
