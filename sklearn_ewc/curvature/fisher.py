"""The Fisher of a task: (module, criterion, batches) -> a curvature."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any, Literal, TypeAlias, get_args

import torch
from torch import Tensor, nn

from ..arguments import check_callable, check_choice, naming
from ..tensors import Tensors, are_finite, joined
from .base import Curvature, Sums
from .criterion import (
    Criterion,
    check_shapes,
    curvature_cotangents,
    curvature_root,
    loss_cotangent,
    total_loss,
)
from .diagonal import Diagonal
from .kronecker import Kronecker
from .restored import restored

Fisher: TypeAlias = Literal["exact", "empirical", "batch", "sampled"]
FISHERS: tuple[str, ...] = get_args(Fisher)
Kind: TypeAlias = Literal["diagonal", "kronecker"]
KINDS: dict[str, type[Curvature]] = {kind.kind: kind for kind in (Diagonal, Kronecker)}

Batches = Iterable[tuple[Any, ...]]
Reduce = Callable[[Tensors], Tensors]
Signs = Callable[[torch.Size], Tensor]


def curvature_of(
    module: nn.Module,
    criterion: Criterion,
    batches: Batches,
    *,
    fisher: Fisher = "exact",
    kind: Kind = "diagonal",
    reduce: Reduce | None = None,
    generator: torch.Generator | None = None,
) -> Curvature:
    """Return how the mean criterion bends around a module's parameters.

    It is mean_n Σ_r J_nᵀ v_rn v_rnᵀ J_n with J_n = ∂f(x_n)/∂θ. `fisher` says which
    vectors v at the output are squared, `kind` what of the matrix is kept.

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
        first axis. Seen once but for "kronecker"; small ones are joined, up to 512 rows and 1 MB:
        memory is bounded by that or by one batch.
        `sample_weight` has shape (n_samples,).
    fisher : {"exact", "empirical", "batch", "sampled"}, default="exact"
        Which vectors, with ℓ_n the loss of a sample, H_n = ∂²ℓ_n/∂f², and the means
        weighted by `sample_weight`:

        - ``"exact"``: the columns of a root of H_n, which gives mean_n J_nᵀ H_n J_n,
          the generalised Gauss–Newton matrix [1]_. For a criterion that is a
          negative log-likelihood this is the Fisher information; for MSELoss with
          C outputs its diagonal is (2/C) mean_n Σ_c (∂f_c/∂θ_i)². It needs the
          targets for their shape only and does not vanish where the fit is perfect.
          A criterion that neither works output by output nor is
          ``torch.nn.CrossEntropyLoss`` takes C × C numbers per sample of a batch.
        - ``"empirical"``: ∂ℓ_n/∂f, with the targets as they are: the squared
          gradients of single samples.
        - ``"batch"``: the same, summed over all samples before it is squared:
          (∂ mean_n ℓ_n/∂θ)². Almost zero at an optimum, hence in need of a huge λ;
          there to reproduce earlier work.
        - ``"sampled"``: a sum of the columns of "exact" with random signs, whose
          square has the same expectation [1]_: one backward pass however many
          outputs there are, and the same as "exact" where there is one.

        The best λ differs by orders of magnitude between them [2]_.
    kind : {"diagonal", "kronecker"}, default="diagonal"
        What is kept: the diagonal, one number per parameter; or a diagonal in a basis
        for each layer, see :class:`~sklearn_ewc.curvature.Kronecker`. That takes two
        passes over the batches, three where not all layers have a basis, so that they
        must be a list or the like, and leaves out ``fisher="batch"``.
    reduce : callable, default=None
        Adds up a dict of tensors over several processes, each of which has seen
        other samples: the means are then over the samples of all.
    generator : torch.Generator, default=None
        Source of the signs of "sampled", on the CPU. None: a new one, of the same
        seed every time.

    Returns
    -------
    Curvature
        Over the parameters with ``requires_grad=True``, named as in
        ``module.named_parameters()``, in their dtype.

    Raises
    ------
    ValueError
        If `fisher` or `kind` is unknown, there are no samples, a weight is negative or
        all are zero, the result is not finite, or outputs and targets differ in shape
        where the criterion would broadcast.
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
    >>> from sklearn_ewc.curvature import curvature_of
    >>> line = torch.nn.Linear(1, 1)
    >>> X, y = torch.tensor([[1.0], [3.0]]), torch.zeros(2, 1)
    >>> curvature_of(line, torch.nn.MSELoss(), [(X, y)]).trace()  # 2 mean(x²) + 2
    12.0
    """
    if not isinstance(generator, torch.Generator | None):
        raise TypeError(f"generator must be a torch.Generator, got {type(generator).__name__}")
    signs = random_signs(generator or torch.Generator().manual_seed(0))
    options: Any = {"fisher": fisher, "kind": kind, "reduce": reduce, "signs": signs}
    return curvature_and_loss(module, criterion, batches, **options, wants_loss=False)[0]


def diagonal_fisher(
    module: nn.Module,
    criterion: Criterion,
    batches: Batches,
    kind: Fisher = "exact",
    reduce: Reduce | None = None,
) -> Tensors:
    """Return one importance per parameter: a diagonal Fisher of the mean criterion.

    Parameters
    ----------
    module, criterion, batches, reduce
        As in :func:`~sklearn_ewc.curvature.curvature_of`, whose diagonal it is.
    kind : {"exact", "empirical", "batch", "sampled"}, default="exact"
        Which estimator; `fisher` there.

    Returns
    -------
    dict of str to Tensor
        For each parameter with ``requires_grad=True``, by its name in
        ``module.named_parameters()``: a tensor of its shape and dtype, ≥ 0.

    Raises
    ------
    ValueError, TypeError
        As there.

    Examples
    --------
    >>> import torch
    >>> from sklearn_ewc import diagonal_fisher
    >>> line = torch.nn.Linear(1, 1)
    >>> X, y = torch.tensor([[1.0], [3.0]]), torch.zeros(2, 1)
    >>> diagonal_fisher(line, torch.nn.MSELoss(), [(X, y)])  # 2 mean(x²) and 2
    {'weight': tensor([[10.]]), 'bias': tensor([2.])}
    """
    check_choice("kind", kind, FISHERS)
    return curvature_of(module, criterion, batches, fisher=kind, reduce=reduce).diagonal()


def curvature_and_loss(
    module: nn.Module,
    criterion: Criterion,
    batches: Batches,
    *,
    fisher: Fisher,
    signs: Signs,
    kind: Kind = "diagonal",
    reduce: Reduce | None = None,
    wants_loss: bool = True,
) -> tuple[Curvature, float]:
    """Return what :func:`curvature_of` does, and the mean criterion itself, in one pass.

    `signs` returns those of "sampled", in the shape of the outputs that it is told.
    The criterion is 0 unless `wants_loss`.
    """
    check_choice("fisher", fisher, FISHERS)
    check_choice("kind", kind, KINDS)
    check_callable("criterion", criterion)
    check_callable("reduce", reduce, None)
    if not isinstance(module, nn.Module):
        raise TypeError(f"module must be a torch.nn.Module, got {type(module).__name__}")
    with _evaluating(module):
        found: Any = KINDS[kind].sums(module, fisher)
        if kind != Diagonal.kind and isinstance(batches, Iterator):
            raise TypeError(f"batches must be what can be gone through again for kind={kind!r}")
        loss = None
        while not isinstance(found, Curvature):
            added, loss_sum, total = _gone_through(
                found, batches, partial(_Batch, fisher, criterion, signs, wants_loss), reduce
            )
            loss = loss_sum / total if loss is None else loss
            found = found.result(added, total)
    return found, loss or 0.0


def _gone_through(
    sums: Sums, batches: Batches, batch_of: Callable[..., _Batch], reduce: Reduce | None
) -> tuple[Tensors, float, float]:
    """Return what one pass over all batches adds up, over all processes, loss and weight too."""
    loss, total = torch.zeros((), dtype=torch.float64), 0.0
    for X, y, *weight in joined(_checked_batches(batches)):
        batch = batch_of(y, weight[0] if weight else None)
        sums.add(X, batch.vectors, batch.sample_weight)
        loss = loss.to(y.device) + batch.loss
        total += batch.weight
    added, loss_sum = sums.tensors(), float(loss)
    if reduce is not None:
        with naming("reduce"):
            added, loss_sum, total = _reduced(reduce, added, loss_sum, total)
    if not total > 0:
        raise ValueError("the Fisher needs at least one sample with a positive weight in batches")
    if not are_finite(added.values()):
        raise ValueError("the Fisher is not finite: batches or parameters hold NaN or infinity")
    return added, loss_sum, total


def _checked_batches(batches: Any) -> Iterator[Any]:
    with naming("batches"):
        iterator = iter(batches)
    return map(_checked_batch, iterator)


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


class _Batch:
    """The targets of one batch, and the vectors and the loss that follow from an output."""

    loss: Tensor | float = 0.0

    def __init__(
        self,
        fisher: str,
        criterion: Criterion,
        signs: Signs,
        wants_loss: bool,
        y: Tensor,
        sample_weight: Tensor | None,
    ) -> None:
        self.fisher, self.criterion, self.signs = fisher, criterion, signs
        self.wants_loss = wants_loss
        self.y = y
        self.sample_weight = sample_weight
        self.weight = len(y) if sample_weight is None else float(sample_weight.sum())

    def vectors(self, output: Tensor) -> Iterator[Tensor]:
        """Yield the v_r, shaped like `output`, that `fisher` stands for.

        What will be squared has the root of the weights in it, "batch" the weights.
        """
        fisher, criterion = self.fisher, self.criterion
        check_shapes(criterion, output, self.y)
        if self.wants_loss:
            self.loss = total_loss(criterion, output, self.y, self.sample_weight).double()
        if fisher == "exact":
            vectors = curvature_cotangents(criterion, output, self.y)
        elif fisher == "sampled":
            root = curvature_root(criterion, output, self.y)
            vectors = iter([root(self.signs(output.shape).to(output))])
        else:
            vectors = iter([loss_cotangent(criterion, output, self.y)])
        if self.sample_weight is None:
            yield from vectors
            return
        factor = self.sample_weight if fisher == "batch" else self.sample_weight.sqrt()
        factor = factor.to(output).reshape(-1, *[1] * (output.ndim - 1))
        yield from (factor * vector for vector in vectors)


def random_signs(generator: torch.Generator) -> Signs:
    """Return a source of signs, the same in rows of a batch and in batches of single rows."""
    return lambda shape: torch.randint(2, shape, generator=generator) * 2 - 1


def _reduced(
    reduce: Reduce, sums: Tensors, loss: float, total: float
) -> tuple[Tensors, float, float]:
    like = next(iter(sums.values()))
    numbers = like.new_tensor([loss, total], dtype=torch.float64)
    loss, total = reduce({"": numbers})[""].tolist()
    return reduce(sums), loss, total


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Put every part of the module into evaluation mode, and all of it back as it was."""
    grad_enabled = torch.is_grad_enabled()
    # cuDNN has no backward pass for recurrent layers in evaluation mode
    recurrent = any(isinstance(part, nn.RNNBase) for part in module.modules())
    cudnn = torch.backends.cudnn.flags(enabled=False) if recurrent else nullcontext()
    try:
        with restored(module), cudnn:
            torch.set_grad_enabled(True)
            module.eval()
            for part in module.modules():
                if isinstance(part, nn.Embedding | nn.EmbeddingBag):
                    part.sparse = False  # no sparse gradient can be squared and added up
            yield
    finally:
        torch.set_grad_enabled(grad_enabled)
