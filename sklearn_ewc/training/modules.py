"""The modules that a net makes itself: the one that learns by default, and a criterion."""

from __future__ import annotations

import inspect
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from torch import Tensor, nn

from .settings import check_widths


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
        check_widths("hidden_layer_sizes", hidden_layer_sizes)
        is_one = isinstance(hidden_layer_sizes, int | np.integer)
        widths: Any = (hidden_layer_sizes,) if is_one else hidden_layer_sizes
        layers: list[nn.Module] = []
        for width in map(int, widths):  # some are numpy's, as from a grid
            layers += [nn.Linear(n_features, width), activation()]
            n_features = width
        layers.append(nn.Linear(n_features, n_outputs))
        super().__init__(OrderedDict(layers=nn.Sequential(*layers)))


def is_of_output_and_target(criterion: Any) -> bool:
    """Tell a function to be called with output and target from what builds a criterion."""
    if isinstance(criterion, type | nn.Module):
        return False
    try:
        parameters = list(inspect.signature(criterion).parameters.values())
    except ValueError:  # written in C, as some of torch's are
        return True
    return len(parameters) > 1 and all(p.default is p.empty for p in parameters[:2])


class FunctionCriterion(nn.Module):
    """A function of output and target as a criterion, which skorch wants to be a module.

    Parameters
    ----------
    function : callable
        ``function(output, target, **options)``, which returns a number. If it has a
        parameter `reduction`, its losses can be had one by one.
    **options
        Further arguments.
    """

    def __init__(self, function: Callable[..., Tensor], **options: Any) -> None:
        super().__init__()
        self.function = function
        self.options = options
        self.reduction = options.pop("reduction", _default_of("reduction", function))
        named = function.func if isinstance(function, partial) else function
        self.__name__ = getattr(named, "__name__", type(named).__name__)

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """Return the function's value."""
        options = {} if self.reduction is None else {"reduction": self.reduction}
        return self.function(output, target, **self.options, **options)


def _default_of(name: str, function: Callable[..., Any]) -> Any:
    try:
        parameter = inspect.signature(function).parameters.get(name)
    except ValueError:
        return None
    return None if parameter is None else parameter.default
