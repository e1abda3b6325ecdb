"""The record of training: rows of epochs, their means, and the table of them."""

from __future__ import annotations

from typing import Any

import numpy as np
from skorch import NeuralNet
from skorch.callbacks import PassthroughScoring, PrintLog
from skorch.history import History


class TaskHistory(History):
    """skorch's history, where a row costs the same after many tasks as after one.

    skorch copies the whole list at every access.
    """

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, int):
            return list.__getitem__(self, index)
        if isinstance(index, tuple) and isinstance(index[0], int):
            return History([list.__getitem__(self, index[0])])[(0, *index[1:])]
        return super().__getitem__(index)


class EpochMean(PassthroughScoring):
    """skorch's average of a batch value over an epoch, read off the rows directly."""

    def on_epoch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """Record the average and whether it is the best of the task."""
        size = "train_batch_size" if self.on_train else "valid_batch_size"
        epoch = net.history[-1]
        batches = [row for row in epoch["batches"] if self.name in row]
        if not batches:
            return
        values = [row[self.name] for row in batches]
        one = len(values) == 1
        mean = values[0] if one else np.average(values, weights=[row[size] for row in batches])
        is_best = self._is_best_score(mean)
        if is_best:
            self.best_score_ = mean
        epoch[self.name] = mean
        epoch[f"{self.name}_best"] = bool(is_best)


class QuietPrintLog(PrintLog):
    """skorch's table, not even made up where nobody reads it."""

    def on_epoch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """Print the epoch's row."""
        if net.verbose or self.sink is not print:
            super().on_epoch_end(net, **kwargs)
