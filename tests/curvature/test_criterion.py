"""Losses per sample, weighted means and curvature."""

import itertools

import pytest
import torch
from torch import nn

from sklearn_ewc.curvature.criterion import (
    check_shapes,
    curvature_cotangents,
    curvature_root,
    has_curvature,
    is_mean_over_samples,
    loss_cotangent,
    per_sample_loss,
    weighted_loss,
)

OUTPUT = torch.tensor([[0.5, -1.0], [2.0, 0.1], [0.0, 3.0]], dtype=torch.float64)
TARGET = torch.tensor([[1.0, 0.0], [2.5, 1.0], [0.0, 1.0]], dtype=torch.float64)


def coupled(output, target):
    return (torch.logsumexp(output - target, 1) + (output - target).square().sum(1)).mean()


def branching(output, target):
    return torch.stack([e.square().sum() if e.sum() > 0 else e.exp().sum() for e in output]).mean()


def root_mean_square(output, target):
    return (output - target).square().mean().sqrt()


CRITERIA = [
    nn.MSELoss(),
    nn.MSELoss(reduction="sum"),
    nn.HuberLoss(),
    nn.BCEWithLogitsLoss(),
    nn.PoissonNLLLoss(),
    coupled,
    branching,
]


@pytest.mark.parametrize("criterion", CRITERIA, ids=str)
def test_per_sample_losses_are_those_of_single_samples(criterion):
    singles = [criterion(OUTPUT[n : n + 1], TARGET[n : n + 1]) for n in range(3)]
    torch.testing.assert_close(per_sample_loss(criterion, OUTPUT, TARGET), torch.stack(singles))


@pytest.mark.parametrize("criterion", CRITERIA, ids=str)
def test_equal_weights_leave_the_loss_alone_and_zero_weights_remove_a_sample(criterion):
    whole = criterion(OUTPUT, TARGET)
    torch.testing.assert_close(weighted_loss(criterion, OUTPUT, TARGET, torch.ones(3)), whole)
    weights = torch.tensor([1.5, 0.0, 1.5], dtype=torch.float64)
    singles = per_sample_loss(criterion, OUTPUT, TARGET)
    total = 1.5 * (singles[0] + singles[2])
    expected = total if getattr(criterion, "reduction", "mean") == "sum" else total / 3
    torch.testing.assert_close(weighted_loss(criterion, OUTPUT, TARGET, weights), expected)


@pytest.mark.parametrize("criterion", CRITERIA, ids=str)
def test_cotangents_are_the_first_and_second_derivatives_of_every_sample(criterion):
    slopes = loss_cotangent(criterion, OUTPUT, TARGET)
    roots = torch.stack(list(curvature_cotangents(criterion, OUTPUT, TARGET)))
    for n in range(3):

        def loss(output, n=n):
            return criterion(output.unsqueeze(0), TARGET[n : n + 1])

        slope = torch.autograd.functional.jacobian(loss, OUTPUT[n])
        torch.testing.assert_close(slopes[n], slope)
        hessian = torch.autograd.functional.hessian(loss, OUTPUT[n])
        torch.testing.assert_close(roots[:, n].T @ roots[:, n], hessian)


GENERATOR = torch.Generator().manual_seed(0)
CLASS_WEIGHTS = torch.tensor([0.2, 3.0, 1.0], dtype=torch.float64)
CROSS_ENTROPIES = {
    "classes": ({}, ()),
    "one ignored": ({"ignore_index": 1}, ()),
    "weighted classes": ({"weight": CLASS_WEIGHTS}, ()),
    "smoothed": ({"label_smoothing": 0.2}, ()),
    "weighted, smoothed, one ignored": (
        {"weight": CLASS_WEIGHTS, "label_smoothing": 0.2, "ignore_index": 2},
        (),
    ),
    "weighted, in a row": ({"weight": CLASS_WEIGHTS}, (4,)),
    "a sum, in a picture": ({"reduction": "sum", "ignore_index": 0}, (2, 3)),
    "a mean, in a picture": ({"ignore_index": 0}, (2, 3)),
}


def logits_and_target(axes, of_target):
    shape = (4, 3, *axes)
    logits = 3 * torch.randn(shape, generator=GENERATOR, dtype=torch.float64)
    logits[0, 0] += 50  # all but certain
    if of_target == "probabilities":
        noise = torch.randn(shape, generator=GENERATOR, dtype=torch.float64)
        return logits, noise.softmax(1)
    return logits, torch.randint(3, (4, *axes), generator=GENERATOR)


@pytest.mark.parametrize("of_target", ["classes", "probabilities"])
@pytest.mark.parametrize("name", CROSS_ENTROPIES)
def test_cross_entropy_has_its_curvature_without_an_eigendecomposition(
    name, of_target, monkeypatch
):
    options, axes = CROSS_ENTROPIES[name]
    if of_target == "probabilities":
        options = {key: value for key, value in options.items() if key != "ignore_index"}
    criterion = nn.CrossEntropyLoss(**options)
    logits, target = logits_and_target(axes, of_target)
    monkeypatch.delattr(torch.linalg, "eigh")
    found = torch.stack([u.reshape(4, -1) for u in curvature_cotangents(criterion, logits, target)])
    signs = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=3))).double()
    root = curvature_root(criterion, logits, target)
    for n in range(4):
        one = target[n : n + 1]

        def loss(output, one=one):
            return per_sample_loss(criterion, output.unsqueeze(0), one).sum()

        hessian = torch.autograd.functional.hessian(loss, logits[n])
        hessian = hessian.reshape(logits[n].numel(), -1)
        torch.testing.assert_close(found[:, n].T @ found[:, n], hessian, atol=1e-14, rtol=1e-9)
    if not axes:  # over all signs, the square of their sum is the same on average
        sums = torch.stack([root(one.expand(4, 3)) for one in signs])
        mean = torch.einsum("rni,rnj->nij", sums, sums) / len(signs)
        expected = torch.einsum("rni,rnj->nij", found, found)
        torch.testing.assert_close(mean, expected, atol=1e-14, rtol=1e-9)


def test_cross_entropy_over_one_class_has_no_curvature():
    output, target = torch.randn(4, 1, generator=GENERATOR), torch.zeros(4, dtype=torch.int64)
    assert not has_curvature(nn.CrossEntropyLoss(), output, target)
    assert not any(u.any() for u in curvature_cotangents(nn.CrossEntropyLoss(), output, target))


def test_cross_entropy_is_curved_where_all_classes_are_equally_likely():
    assert has_curvature(nn.CrossEntropyLoss(), torch.zeros(1, 2), torch.tensor([1]))


def test_only_a_mean_or_a_sum_over_samples_has_losses_of_samples():
    assert all(is_mean_over_samples(criterion, OUTPUT, TARGET) for criterion in CRITERIA)
    assert not is_mean_over_samples(root_mean_square, OUTPUT, TARGET)


def test_curvature_is_looked_for_at_the_output_and_at_a_perfect_one():
    assert has_curvature(nn.MSELoss(), OUTPUT, TARGET)
    assert has_curvature(nn.HuberLoss(delta=1e-6), OUTPUT, TARGET)
    assert not has_curvature(nn.L1Loss(), OUTPUT, TARGET)


def test_shapes_that_would_broadcast_are_refused():
    flat, column = torch.zeros(3), torch.zeros(3, 1)
    for criterion in (nn.MSELoss(), root_mean_square):
        with pytest.raises(ValueError, match=r"shape \(3,\) for targets of shape \(3, 1\)"):
            check_shapes(criterion, flat, column)
    with pytest.raises(ValueError, match="must be equal"):
        check_shapes(nn.MSELoss(), torch.zeros(3, 2), column)
    check_shapes(root_mean_square, torch.zeros(3, 2), column)


@pytest.mark.parametrize("criterion", [nn.MSELoss(), nn.CrossEntropyLoss()], ids=str)
def test_a_compiled_criterion_keeps_its_reduction(criterion):
    compiled = torch.compile(criterion, backend="eager")
    target = TARGET.softmax(1)
    expected = per_sample_loss(criterion, OUTPUT, target)
    torch.testing.assert_close(per_sample_loss(compiled, OUTPUT, target), expected)
    assert compiled.reduction == criterion.reduction == "mean"
