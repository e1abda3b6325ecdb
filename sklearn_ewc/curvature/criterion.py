"""What EWC asks of a criterion: per-sample losses, weighted means, curvature.

Pure functions of a torch criterion (a module or any callable
``criterion(output, target)`` that returns the mean over samples), the module's
output and the target. Output and target have samples along their first axis.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import hessian, vmap

from ..tensors import uncompiled

Criterion = Callable[[Tensor, Tensor], Tensor]
Root = Callable[[Tensor], Tensor]

ELEMENTWISE = (
    nn.MSELoss,
    nn.L1Loss,
    nn.SmoothL1Loss,
    nn.HuberLoss,
    nn.BCELoss,
    nn.BCEWithLogitsLoss,
    nn.PoissonNLLLoss,
)


def check_shapes(criterion: Criterion, output: Tensor, target: Tensor) -> None:
    """Raise ValueError where a criterion would broadcast in silence.

    torch's elementwise losses turn (n,) against (n, 1) into (n, n). What shapes
    another criterion wants is for it to say, but not this difference either.
    """
    same_numbers = output.shape == target.shape or output.numel() != target.numel()
    if isinstance(criterion, ELEMENTWISE):
        same_numbers = output.shape == target.shape
    if not same_numbers:
        raise ValueError(
            f"module returned shape {tuple(output.shape)} for targets of shape "
            f"{tuple(target.shape)}; they must be equal"
        )


def per_sample_loss(criterion: Criterion, output: Tensor, target: Tensor) -> Tensor:
    """Return the loss of each sample alone, shape (n_samples,)."""
    losses = unreduced_loss(criterion, output, target)
    if losses is None:
        return _each_alone(criterion, output, target)
    losses = losses.reshape(len(output), -1)
    return losses.mean(1) if criterion.reduction == "mean" else losses.sum(1)  # type: ignore[attr-defined]


def total_loss(
    criterion: Criterion, output: Tensor, target: Tensor, sample_weight: Tensor | None = None
) -> Tensor:
    """Return Σ_n w_n ℓ_n, the weights being 1 if not given."""
    if sample_weight is not None:
        return (sample_weight * per_sample_loss(criterion, output, target)).sum()
    if isinstance(criterion, ELEMENTWISE):
        loss = criterion(output, target)
        return len(output) * loss if criterion.reduction == "mean" else loss
    return per_sample_loss(criterion, output, target).sum()


def weighted_loss(
    criterion: Criterion, output: Tensor, target: Tensor, sample_weight: Tensor | None
) -> Tensor:
    """Return the criterion, its mean over samples weighted by `sample_weight`.

    The weights are those of one batch out of a task whose weights average 1, so
    the batch is divided by its number of samples, not by its own sum of weights:
    every batch is an unbiased estimate, and one of zero weights is no division by
    zero.
    """
    if sample_weight is None:
        return criterion(output, target)
    losses = sample_weight * per_sample_loss(criterion, output, target)
    return losses.sum() if is_sum(criterion) else losses.mean()


def is_sum(criterion: Criterion) -> bool:
    """Tell whether the criterion on a batch is the sum over its samples, and not their mean."""
    return getattr(criterion, "reduction", None) == "sum"


def is_mean_over_samples(criterion: Criterion, output: Tensor, target: Tensor) -> bool:
    """Tell whether the criterion on a batch is the mean of it on every sample alone.

    A root mean squared error is not: it has no per-sample losses that a Fisher
    could be made of. A sum over samples passes.
    """
    ones = torch.ones(len(output), dtype=output.dtype, device=output.device)
    return torch.allclose(
        criterion(output, target),
        weighted_loss(criterion, output, target, ones),
        rtol=1e-3,
        equal_nan=True,
    )


@torch.enable_grad()
def loss_cotangent(criterion: Criterion, output: Tensor, target: Tensor) -> Tensor:
    """Return ∂ℓ_n/∂f_n for every sample, shaped like `output`."""
    output = output.detach().requires_grad_()
    loss = total_loss(criterion, output, target)
    (cotangent,) = torch.autograd.grad(loss, output)
    return cotangent


def curvature_root(criterion: Criterion, output: Tensor, target: Tensor) -> Root:
    """Return, for every sample, a root B of its curvature H = ∂²ℓ_n/∂f_n² = B Bᵀ, as z ↦ B z.

    z and B z are shaped like `output`. Where the criterion works element by element B
    is diagonal and two backward passes find it; for cross-entropy it has a closed
    form. Otherwise it is a C × C matrix per sample; a negative eigenvalue (a
    criterion not convex in the output) counts as zero, so that the Fisher is never
    negative.
    """
    if _is_elementwise(criterion, output, target):
        root = _diagonal_curvature(criterion, output, target).clamp(min=0).sqrt()
        return lambda z: root * z
    if type(uncompiled(criterion)) is nn.CrossEntropyLoss and output.ndim > 1:
        losses = unreduced_loss(criterion, torch.zeros_like(output), target)
        if losses is not None:
            return _cross_entropy_root(criterion, output, losses)
    return _dense_root(criterion, output, target)


def curvature_cotangents(criterion: Criterion, output: Tensor, target: Tensor) -> Iterator[Tensor]:
    """Yield u_1 … u_C, shaped like `output`, with Σ_r u_r u_rᵀ = ∂²ℓ_n/∂f_n² for every sample."""
    root = curvature_root(criterion, output, target)
    for column in range(output[0].numel()):
        unit = output.new_zeros(len(output), output[0].numel())
        unit[:, column] = 1
        yield root(unit.reshape(output.shape))


def has_curvature(criterion: Criterion, output: Tensor, target: Tensor) -> bool:
    """Tell whether the second derivative of the criterion is anything but zero.

    Asked at the given output and, where shapes allow, at a perfect one, since a
    loss such as Huber's is curved near its minimum only.
    """
    outputs = [output]
    if target.shape == output.shape:
        outputs.append(target.to(output.dtype))
    # some vector that no root but zero sends to zero, almost surely
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(output.shape, generator=generator).to(output)
    return any(bool(curvature_root(criterion, one, target)(z).any()) for one in outputs)


def _is_elementwise(criterion: Criterion, output: Tensor, target: Tensor) -> bool:
    if isinstance(criterion, ELEMENTWISE):
        return True
    losses = unreduced_loss(criterion, output, target)
    return losses is not None and losses.shape == output.shape


def _each_alone(criterion: Criterion, output: Tensor, target: Tensor) -> Tensor:
    def alone(one_output: Tensor, one_target: Tensor) -> Tensor:
        return criterion(one_output.unsqueeze(0), one_target.unsqueeze(0)).reshape(())

    try:
        return vmap(alone)(output, target)
    except RuntimeError:  # control flow that depends on the data
        return torch.stack([alone(*pair) for pair in zip(output, target, strict=True)])


def unreduced_loss(criterion: Criterion, output: Tensor, target: Tensor) -> Tensor | None:
    """Return the loss before its reduction, None if the criterion cannot tell."""
    if getattr(criterion, "reduction", None) not in ("mean", "sum"):
        return None
    # a copy of what torch.compile returns would share the criterion inside
    unreduced: Any = copy.copy(uncompiled(criterion))
    unreduced.reduction = "none"
    losses = unreduced(output, target)
    return losses if losses.shape[:1] == output.shape[:1] else None


@torch.enable_grad()
def _diagonal_curvature(criterion: Criterion, output: Tensor, target: Tensor) -> Tensor:
    if type(criterion) is nn.MSELoss:
        n_outputs = output[0].numel() if criterion.reduction == "mean" else 1
        return torch.full_like(output, 2.0 / n_outputs)
    output = output.detach().requires_grad_()
    loss = total_loss(criterion, output, target)
    (slope,) = torch.autograd.grad(loss, output, create_graph=True)
    if not slope.requires_grad:  # piecewise linear
        return torch.zeros_like(output)
    (curvature,) = torch.autograd.grad(slope.sum(), output)
    return curvature


def _cross_entropy_root(criterion: Any, output: Tensor, losses: Tensor) -> Root:
    """Return z ↦ √s (√p z − p Σ_c √p_c z_c), the root of s (diag p − p pᵀ).

    p are the probabilities of the classes, along the second axis, and s the weights of
    the classes times what the target gives them, summed: the `losses` that equal
    probabilities have are s log C.
    """
    weight = losses.clamp(min=0) / math.log(max(2, output.shape[1]))  # one class has no loss
    if criterion.reduction == "mean":
        weight = weight / weight[0].numel()
    p = output.detach().softmax(1)
    scale = (weight.unsqueeze(1) * p).sqrt()

    def root(z: Tensor) -> Tensor:
        scaled = scale * z
        return scaled - p * scaled.sum(1, keepdim=True)

    return root


def _dense_root(criterion: Criterion, output: Tensor, target: Tensor) -> Root:
    def loss(one_output: Tensor, one_target: Tensor) -> Tensor:
        return per_sample_loss(criterion, one_output.unsqueeze(0), one_target.unsqueeze(0)).sum()

    output = output.detach()
    try:
        curvature = vmap(hessian(loss))(output, target)
    except RuntimeError:  # control flow that depends on the data
        curvature = torch.stack(
            [_hessian(loss, *pair) for pair in zip(output, target, strict=True)]
        )
    n_samples, n_outputs = len(output), output[0].numel()
    values, vectors = torch.linalg.eigh(curvature.reshape(n_samples, n_outputs, n_outputs))
    matrix = vectors * values.clamp(min=0).sqrt().unsqueeze(1)
    return lambda z: (matrix @ z.reshape(n_samples, n_outputs, 1)).reshape(output.shape)


def _hessian(loss: Criterion, one_output: Tensor, one_target: Tensor) -> Tensor:
    return torch.autograd.functional.hessian(lambda o: loss(o, one_target), one_output)
