"""MLP."""

import pytest
import torch
from torch import nn

from sklearn_ewc import MLP


@pytest.mark.parametrize("sizes", [(), (5,), [4, 3]])
def test_an_mlp_has_the_layers_it_is_told(sizes):
    module = MLP(2, 3, sizes, activation=nn.Tanh)
    linear = [layer for layer in module.layers if isinstance(layer, nn.Linear)]
    assert [layer.in_features for layer in linear] == [2, *sizes]
    assert [layer.out_features for layer in linear] == [*sizes, 3]
    assert sum(isinstance(layer, nn.Tanh) for layer in module.layers) == len(sizes)
    assert module(torch.zeros(7, 2)).shape == (7, 3)


def test_its_output_is_linear():
    assert isinstance(MLP(1).layers[-1], nn.Linear)
