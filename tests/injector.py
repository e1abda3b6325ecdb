"""Errors raised at any line of the library, and what they leave behind.

``python -m tests.injector --positions 10000`` tries that many lines and prints what came of them.
"""

from __future__ import annotations

import argparse
import io
import os
import pickle
import random
import signal
import sys
import types
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from sklearn.preprocessing import StandardScaler
from skorch.callbacks import Callback, EarlyStopping, LRScheduler
from torch import nn
from torch.nn.parameter import is_lazy

import sklearn_ewc
from sklearn_ewc import MLP, EWCRegressor
from sklearn_ewc.pipeline import ContinualPipeline
from sklearn_ewc.rollback import all_or_nothing
from sklearn_ewc.target import ContinualTargetRegressor
from sklearn_ewc.tensors import cached_property

LIBRARY = os.path.dirname(sklearn_ewc.__file__)
UNDOING = [os.path.join(LIBRARY, name) for name in ("rollback.py", "snapshot.py")]
ERRORS = (RuntimeError, KeyboardInterrupt)


# what is compared


def state(*objects: Any, identities: bool = True) -> dict[str, Any]:
    """Return all that is reached from some objects, and torch's modes, by path.

    Without identities, and without what the clock tells, it can be compared with
    that of other objects.
    """
    found: dict[str, Any] = {
        "grad mode": torch.is_grad_enabled(),
        "cudnn": torch.backends.cudnn.enabled,
        "interrupts": signal.getsignal(signal.SIGINT),
    }
    seen: dict[int, str] = {}
    pending: list[tuple[str, Any]] = [("generator", torch.default_generator)]
    pending += [(f"{index}", one) for index, one in enumerate(objects)]
    while pending:
        path, one = pending.pop()
        if isinstance(one, _PRIMITIVE):
            found[path] = getattr(one, "__qualname__", None) or repr(one)
            continue
        if id(one) in seen:
            found[path] = seen[id(one)]
            continue
        seen[id(one)] = path
        found[path] = (type(one).__name__, id(one) if identities else None, _value(one))
        parts = _parts(one)
        if not identities:
            parts = ((name, part) for name, part in parts if name not in _TIMES)
        pending += [(f"{path}.{name}", part) for name, part in parts]
    return found


_PRIMITIVE = (int, float, str, bytes, type(None), type, types.FunctionType, np.generic, torch.dtype)
_TIMES = ("dur", "epoch_start_time_", "since_")


def _value(one: Any) -> Any:
    if isinstance(one, torch.Tensor):
        if is_lazy(one):
            return "lazy"
        values = one.detach().cpu().to_dense().numpy().tobytes()
        return values, one.dtype, one.shape, one.stride(), one.requires_grad
    if isinstance(one, np.ndarray):
        return one.tobytes(), one.dtype, one.shape
    if isinstance(one, torch.Generator):
        return one.get_state().numpy().tobytes()
    if isinstance(one, np.random.RandomState):
        return repr(one.get_state())
    if isinstance(one, np.random.Generator):
        return repr(one.bit_generator.state)
    if isinstance(one, dict):
        return [key if isinstance(key, str) else type(key) for key in one]
    return sorted(map(str, one)) if isinstance(one, set) else None


def _parts(one: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(one, torch.Tensor) and one.is_leaf:
        yield from {"grad": one.grad, "hooks": one._backward_hooks}.items()
    if isinstance(one, dict):
        yield from (
            (f"[{index}]" if isinstance(key, torch.Tensor) else str(key), value)
            for index, (key, value) in enumerate(one.items())
        )
    elif isinstance(one, list | tuple | deque) or _holds_objects(one):
        yield from ((f"[{index}]", part) for index, part in enumerate(one))
    if not isinstance(one, types.ModuleType | types.MethodType):
        for name, part in getattr(one, "__dict__", {}).items():
            if not isinstance(getattr(type(one), name, None), cached_property):
                yield name, part


def _holds_objects(one: Any) -> bool:
    return isinstance(one, np.ndarray) and one.dtype == object


def differences(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Return the paths at which two states differ."""
    return sorted(path for path in one.keys() | other.keys() if one.get(path) != other.get(path))


# what raises


class Injector:
    """Raises an error at one of the lines that a call executes in the library, or counts them.

    `within` tells which frames count; the lines are numbered in the order of
    their execution.
    """

    def __init__(
        self,
        position: int | None = None,
        error: type[BaseException] = RuntimeError,
        within: Callable[[types.FrameType], bool] | None = None,
    ) -> None:
        self.position = position
        self.error = error
        self.within = within or _in_library
        self.n_lines = 0
        self.place: tuple[str, int] | None = None

    def __enter__(self) -> Injector:
        self.tracing = sys.gettrace()
        sys.settrace(self._calls)
        return self

    def __exit__(self, *_: Any) -> None:
        sys.settrace(self.tracing)

    def _calls(self, frame: types.FrameType, event: str, argument: Any) -> Any:
        return self._lines if self.within(frame) else None

    def _lines(self, frame: types.FrameType, event: str, argument: Any) -> Any:
        if event == "line":
            self.n_lines += 1
            if self.n_lines - 1 == self.position:
                self.place = (frame.f_code.co_name, frame.f_lineno)
                raise self.error("injected")
        return self._lines


def _in_library(frame: types.FrameType) -> bool:
    return frame.f_code.co_filename.startswith(LIBRARY)


def in_undoing(frame: types.FrameType) -> bool:
    """Tell the frames that undo what has failed."""
    if frame.f_code.co_filename not in UNDOING:
        return False
    names = set()
    while frame is not None:
        names.add(frame.f_code.co_name)
        frame = frame.f_back
    return "_undo_all" in names


# what is called


class Net(nn.Module):
    """Has what a module may have: dropout, buffers of two kinds, an attribute that counts."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(1, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 1))
        self.dropout = nn.Dropout(0.1)
        self.register_buffer("mean", torch.zeros(1))
        self.n_calls, self.sizes = 0, []

    def forward(self, X: torch.Tensor) -> torch.Tensor:
        self.n_calls += 1
        self.sizes.append(len(X))
        if self.training:
            self.mean = 0.9 * self.mean + 0.1 * X.mean(0).detach()
        return self.layers(self.dropout(X - self.mean))


class Losses(Callback):
    """Keeps a list, as callbacks of users do."""

    def __init__(self) -> None:
        self.losses_: list[float] = []

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        self.losses_.append(net.history[-1, "train_loss"])


def data(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return one small task."""
    rng = np.random.RandomState(seed)
    X = rng.randn(20, 1).astype(np.float32)
    return X, np.sin(X + seed)


def net(**kwargs: Any) -> EWCRegressor:
    """Return a net with much that may be lost."""
    callbacks = [Losses(), LRScheduler("StepLR", step_size=1), EarlyStopping("train_loss")]
    options = {"max_epochs": 2, "batch_size": 10, "callbacks": callbacks, **kwargs}
    options.setdefault("module", Net)
    return EWCRegressor(ewc_lambda=10.0, random_state=np.random.RandomState(0), **options)


def _learned(estimator: Any) -> Any:
    return estimator.partial_fit(*data(0)).partial_fit(*data(1))


def _partial_fit(estimator: Any) -> None:
    estimator.partial_fit(*data(2))


def _fit(estimator: Any) -> None:
    estimator.fit(*data(2))


def _fit_by_task(estimator: Any) -> None:
    estimator.fit(*data(2), task=np.arange(20) % 2)


def _set_params(estimator: Any) -> None:
    callbacks = [Losses()]
    estimator.set_params(lr=0.5, criterion=nn.L1Loss, callbacks=callbacks, device="cpu", gamma=0.9)


def _set_nested_params(estimator: Any) -> None:
    estimator.set_params(net__lr=0.5, net__optimizer__weight_decay=0.1, scale__with_mean=False)


def _load_params(estimator: Any) -> None:
    estimator.load_params(**{name: io.BytesIO(file) for name, file in _files().items()})


@lru_cache
def _files() -> dict[str, bytes]:
    files = {f"f_{part}": io.BytesIO() for part in ("params", "memory", "criterion")}
    _learned(net()).partial_fit(*data(3)).save_params(**files)
    return {name: file.getvalue() for name, file in files.items()}


def pipeline() -> ContinualPipeline:
    """Return a pipeline whose steps all learn from every task."""
    steps = [("scale", StandardScaler()), ("net", net())]
    return ContinualPipeline(steps, update_transformers=True)


def target() -> ContinualTargetRegressor:
    """Return a regressor of a transformed target, of a net whose Fisher goes layer by layer."""
    return ContinualTargetRegressor(net(module=MLP, hidden_layer_sizes=(4,)))


@dataclass
class Kind:
    """A kind of call, on a new estimator or on one that has learned."""

    make: Callable[[], Any]
    call: Callable[[Any], None]

    @cached_property
    def _pickled(self) -> bytes:
        return pickle.dumps(self.make())

    def estimator(self) -> Any:
        """Return an estimator, always the same, and wind up torch's generator."""
        torch.manual_seed(0)
        return pickle.loads(self._pickled)

    @cached_property
    def n_lines(self) -> int:
        """Number of lines that the call executes in the library."""
        assert self.done  # what a first call caches is not counted
        estimator = self.estimator()
        with Injector() as lines:
            self.call(estimator)
        return lines.n_lines

    @cached_property
    def done(self) -> dict[str, Any]:
        """The state after an undisturbed call, without identities."""
        estimator = self.estimator()
        self.call(estimator)
        return state(estimator, identities=False)


KINDS = {
    "partial_fit, first": Kind(net, _partial_fit),
    "partial_fit, later": Kind(lambda: _learned(net()), _partial_fit),
    "partial_fit, sums": Kind(lambda: _learned(net(store_tasks=False)), _partial_fit),
    "fit": Kind(lambda: _learned(net()), _fit),
    "fit by task": Kind(net, _fit_by_task),
    "set_params": Kind(lambda: _learned(net()), _set_params),
    "load_params": Kind(lambda: _learned(net()), _load_params),
    "load_params, new": Kind(net, _load_params),
    "pipeline, first": Kind(pipeline, _partial_fit),
    "pipeline, later": Kind(lambda: _learned(pipeline()), _partial_fit),
    "pipeline.fit": Kind(lambda: _learned(pipeline()), _fit),
    "pipeline.set_params": Kind(lambda: _learned(pipeline()), _set_nested_params),
    "target, first": Kind(target, _partial_fit),
    "target, later": Kind(lambda: _learned(target()), _partial_fit),
}


# what comes of it


@dataclass(frozen=True)
class Outcome:
    """What came of an error: "undone", "done", "handled" by the library, or what was lost."""

    verdict: str
    place: tuple[str, int] | None
    lost: tuple[str, ...] = ()


def interrupted(kind: Kind, error: type[BaseException], position: int) -> Outcome:
    """Raise an error at one line of a call, and compare: with before, and with a twin.

    "undone": all is as it was before, and the next call does what it would have
    done. "done": the error came when all was done.
    """
    estimator = kind.estimator()
    before = state(estimator)
    with Injector(position, error) as injector:
        try:
            kind.call(estimator)
        except BaseException:
            pass
        else:
            return Outcome("handled", injector.place)
    lost = differences(before, state(estimator))
    if lost and not differences(kind.done, state(estimator, identities=False)):
        return Outcome("done", injector.place)
    if not lost:
        kind.call(estimator)
        lost = differences(kind.done, state(estimator, identities=False))
    return Outcome("lost" if lost else "undone", injector.place, tuple(lost))


def interrupted_twice(kind: Kind, position: int) -> Outcome:
    """Raise an error after a call, and an interrupt at one line of what undoes it."""
    estimator = kind.estimator()
    before = state(estimator)
    injector = Injector(position, KeyboardInterrupt, within=in_undoing)
    try:
        with injector, all_or_nothing(estimator):
            kind.call(estimator)
            raise RuntimeError
    except RuntimeError:
        lost = differences(before, state(estimator))
    return Outcome("lost" if lost else "undone", injector.place, tuple(lost))


def sampled(n_lines: int, n_positions: int, seed: int) -> list[int]:
    """Return positions, always the same, among them the last, where calls are committed."""
    drawn = random.Random(seed).sample(range(n_lines), min(n_positions, n_lines))
    return sorted({*drawn, *range(max(0, n_lines - 4), n_lines)})


def main() -> None:
    """Print what came of errors, by kind of call."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--positions", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    share = -(-options.positions // (len(KINDS) * len(ERRORS)))
    verdicts = ("undone", "done", "handled", "lost")
    print(f"{'call':22}{'error':20}{'lines':>7}" + "".join(f"{name:>9}" for name in verdicts))
    losses = []
    for name, kind in KINDS.items():
        for error in ERRORS:
            outcomes = [
                interrupted(kind, error, position)
                for position in sampled(kind.n_lines, share, options.seed)
            ]
            count = Counter(outcome.verdict for outcome in outcomes)
            figures = "".join(f"{count[verdict]:>9}" for verdict in verdicts)
            print(f"{name:22}{error.__name__:20}{kind.n_lines:>7}{figures}", flush=True)
            losses += [(name, error.__name__, one) for one in outcomes if one.verdict == "lost"]
    for name, error_name, outcome in losses:
        print(name, error_name, outcome.place, *outcome.lost[:5])


if __name__ == "__main__":
    main()
