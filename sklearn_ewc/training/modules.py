"""The module that learns when the user brings none."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import nn


class MLP(nn.Sequential):
    """A multi-layer perceptron with a linear output.

    It maps inputs of shape (n_samples, n_features) to (n_samples, n_outputs).

    Parameters
    ----------
    n_features : int
        Number of input columns.
    n_outputs : int, default=1
        Number of output columns.
    hidden_layer_sizes : int or sequence of int, default=(100,)
        Width of each hidden layer, as in
        :class:`sklearn.neural_network.MLPRegressor`; empty for a linear model.
    activation : class of torch.nn.Module, default=torch.nn.ReLU
        The nonlinearity after every hidden layer.

    Examples
    --------
    >>> from sklearn_ewc import MLP
    >>> MLP(3, hidden_layer_sizes=(4,))
    MLP(
      (layers): Sequential(
        (0): Linear(in_features=3, out_features=4, bias=True)
        (1): ReLU()
        (2): Linear(in_features=4, out_features=1, bias=True)
      )
    )
    """

    def __init__(
        self,
        n_features: int,
        n_outputs: int = 1,
        hidden_layer_sizes: int | Sequence[int] = (100,),
        activation: type[nn.Module] = nn.ReLU,
    ) -> None:
        is_one = isinstance(hidden_layer_sizes, int | np.integer)
        widths: Any = (hidden_layer_sizes,) if is_one else hidden_layer_sizes
        layers: list[nn.Module] = []
        for width in map(int, widths):  # some are numpy's, as from a grid
            layers += [nn.Linear(n_features, width), activation()]
            n_features = width
        layers.append(nn.Linear(n_features, n_outputs))
        super().__init__(OrderedDict(layers=nn.Sequential(*layers)))
