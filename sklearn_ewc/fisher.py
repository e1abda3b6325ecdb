"""Fisher diagonals: pure functions, (module, criterion, batches) -> dict of tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from .criterion import Criterion, check_shapes, curvature_cotangents, loss_cotangent
from .nested import joined
from .per_sample import Add, Tensors, fastest_rule, summed_gradient

FISHER_KINDS = ("exact", "empirical", "batch")


def diagonal_fisher(
    module: nn.Module,
    criterion: Criterion,
    batches: Iterable[tuple[Any, ...]],
    kind: str = "exact",
    reduce: Callable[[Tensors], Tensors] | None = None,
) -> Tensors:
    """Return one importance per parameter: a diagonal Fisher of the mean criterion.

    Parameters
    ----------
    module : torch.nn.Module
        Called with one batch of inputs (by keyword if they are a dict); returns
        one tensor with samples along its first axis. Run in evaluation mode:
        dropout is off and BatchNorm statistics neither follow nor move.
    criterion : callable
        ``criterion(output, target)``, the mean over samples of a loss, such as
        ``torch.nn.MSELoss()``.
    batches : iterable of (X, y) or (X, y, sample_weight)
        Tensors (X: or a dict of them) on the module's device, samples along the
        first axis. Seen once; small ones are joined, up to 512 rows and 1 MB:
        memory is bounded by that or by one batch.
        `sample_weight` has shape (n_samples,).
    kind : {"exact", "empirical", "batch"}, default="exact"
        Which estimator, with J_n = ∂f(x_n)/∂θ, H_n = ∂²ℓ_n/∂f² and the means
        weighted by `sample_weight`:

        - ``"exact"``: mean_n diag(J_nᵀ H_n J_n), the generalised Gauss–Newton
          diagonal [1]_. For a criterion that is a negative log-likelihood this
          is the Fisher information; for MSELoss with C outputs it is
          (2/C) mean_n Σ_c (∂f_c/∂θ_i)². It needs the targets for their shape
          only and does not vanish where the fit is perfect.
        - ``"empirical"``: mean_n (∂ℓ_n/∂θ_i)², with the targets as they are.
        - ``"batch"``: (∂ mean_n ℓ_n/∂θ_i)², one squared full-batch gradient.
          Almost zero at an optimum, hence in need of a huge λ; there to
          reproduce earlier work.

        The best λ differs by orders of magnitude between them [2]_.
    reduce : callable, default=None
        Adds up a dict of tensors over several processes, each of which has seen
        other samples: the means are then over the samples of all.

    Returns
    -------
    dict of str to Tensor
        For each parameter with ``requires_grad=True``, by its name in
        ``module.named_parameters()``: a tensor of its shape and dtype, ≥ 0.

    Raises
    ------
    ValueError
        If `kind` is unknown, there are no samples, a weight is negative or all are
        zero, the Fisher is not finite, or outputs and targets differ in shape where
        the criterion would broadcast.
    TypeError
        If `module` or `batches` are of another kind, or the module returns anything
        but one tensor.

    References
    ----------
    .. [1] Martens, "New insights and perspectives on the natural gradient
       method", JMLR 21 (2020), sections 8 and 9.
    .. [2] van de Ven, "On the computation of the Fisher Information in
       continual learning", arXiv 2502.11756 (2025).

    Examples
    --------
    >>> import torch
    >>> from sklearn_ewc import diagonal_fisher
    >>> line = torch.nn.Linear(1, 1)
    >>> X, y = torch.tensor([[1.0], [3.0]]), torch.zeros(2, 1)
    >>> diagonal_fisher(line, torch.nn.MSELoss(), [(X, y)])  # 2 mean(x²) and 2
    {'weight': tensor([[10.]]), 'bias': tensor([2.])}
    """
    if kind not in FISHER_KINDS:
        raise ValueError(f"unknown fisher {kind!r}; known are {', '.join(map(repr, FISHER_KINDS))}")
    if not isinstance(module, nn.Module):
        raise TypeError(f"module must be a torch.nn.Module, got {type(module).__name__}")
    params: Tensors = {name: p for name, p in module.named_parameters() if p.requires_grad}
    sums = {name: torch.zeros_like(p, requires_grad=False) for name, p in params.items()}
    total = 0.0
    add: Add | None = summed_gradient(module, params, sums) if kind == "batch" else None
    with _evaluating(module):
        for X, y, *weight in joined(map(_checked_batch, batches)):
            sample_weight = weight[0] if weight else None
            add = add or fastest_rule(module, params, X)(module, params, sums)
            add(X, partial(_cotangents, kind, criterion, y, sample_weight))
            total += len(y) if sample_weight is None else float(sample_weight.sum())
    if reduce is not None:
        weight_sum = next(iter(params.values())).new_tensor(total, dtype=torch.float64)
        sums, total = reduce(sums), float(reduce({"": weight_sum})[""])
    if not total > 0:
        raise ValueError("the Fisher needs at least one sample with a positive weight")
    if not all(bool(value.isfinite().all()) for value in sums.values()):
        raise ValueError("the Fisher is not finite: batches or parameters hold NaN or infinity")
    if kind == "batch":
        return {name: (value / total).square() for name, value in sums.items()}
    return {name: value / total for name, value in sums.items()}


def _checked_batch(batch: Any) -> Any:
    if not (isinstance(batch, tuple | list) and len(batch) in (2, 3)):
        raise TypeError("batches must hold pairs (X, y) or triples (X, y, sample_weight)")
    _, y, *weight = batch
    if not all(isinstance(part, Tensor) and part.ndim for part in (y, *weight)):
        raise TypeError("batches must hold tensors with samples along their first axis")
    if len(y) == 0:
        raise ValueError("batches must hold at least one sample each")
    if weight and (weight[0].shape != y.shape[:1] or not _are_weights(weight[0])):
        raise ValueError("sample_weight must be one finite number >= 0 per sample of a batch")
    return batch


def _are_weights(weight: Tensor) -> bool:
    return bool(weight.isfinite().all() and (weight >= 0).all())


def _cotangents(
    kind: str, criterion: Criterion, y: Tensor, sample_weight: Tensor | None, output: Tensor
) -> list[Tensor]:
    """Return the v_r, shaped like `output`, whose Jᵀv_r make up the Fisher.

    All but ``"batch"`` square them, so that a weight enters by its root.
    """
    check_shapes(criterion, output, y)
    if kind == "exact":
        cotangents = list(curvature_cotangents(criterion, output, y))
    else:
        cotangents = [loss_cotangent(criterion, output, y)]
    if sample_weight is None:
        return cotangents
    factor = sample_weight if kind == "batch" else sample_weight.sqrt()
    factor = factor.to(output.dtype).reshape(-1, *[1] * (output.ndim - 1))
    return [factor * cotangent for cotangent in cotangents]


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Put every part of the module into evaluation mode, and back as it was."""
    modes = [(part, part.training) for part in module.modules()]
    with ExitStack() as stack:
        stack.enter_context(torch.enable_grad())
        if any(isinstance(part, nn.RNNBase) for part in module.modules()):
            # cuDNN has no backward pass for recurrent layers in evaluation mode
            stack.enter_context(torch.backends.cudnn.flags(enabled=False))
        module.eval()
        try:
            yield
        finally:
            for part, training in modes:
                part.training = training
