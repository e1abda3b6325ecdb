"""The rules for sums of squared per-sample gradients; their values are tested with the Fisher."""

import pytest
import torch

from sklearn_ewc.curvature.per_sample import (
    fastest_rule,
    layerwise,
    one_by_one,
    summed_gradient,
    vectorised,
)
from sklearn_ewc.tensors import call

from .test_fisher import module_and_inputs


def summed(rule, module, params, X, cotangents):
    sums = {name: torch.zeros_like(p, requires_grad=False) for name, p in params.items()}
    rule(module, params, sums)(X, cotangents)
    return sums


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("mlp", layerwise),
        ("in-place", vectorised),
        ("reused layer", vectorised),
        ("reused weight", vectorised),
        ("three axes", layerwise),
        ("layer norm", vectorised),
        ("lstm", one_by_one),
    ],
)
def test_the_fast_identity_is_used_only_where_it_holds(name, rule):
    module, X = module_and_inputs(name)
    params = dict(module.named_parameters())
    assert fastest_rule(module, params, X) is rule


@pytest.mark.parametrize("rule", [layerwise, vectorised, one_by_one])
def test_all_rules_agree_with_the_squares_of_single_gradients(rule):
    module, X = module_and_inputs("mlp")
    params = dict(module.named_parameters())

    def cotangents(output):
        return [torch.ones_like(output), torch.sin(output)]

    found = summed(rule, module, params, X, cotangents)
    for name in params:
        expected = sum(
            summed(
                summed_gradient, module, params, X[n : n + 1], lambda f, r=r: [cotangents(f)[r]]
            )[name]
            ** 2
            for n in range(len(X))
            for r in range(2)
        )
        torch.testing.assert_close(found[name], expected)


def test_a_module_gets_a_dict_by_keyword():
    module, X = module_and_inputs("dict")
    assert torch.equal(call(module, X), module(**X))
