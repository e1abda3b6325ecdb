"""Randomness that is reproducible, also in threads, and leaves torch's own alone."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from sklearn.utils import check_random_state
from torch import nn
from torch.func import functional_call

from ..tensors import as_arguments

_GLOBAL_GENERATOR = threading.RLock()

# A process is forked between two blocks, or its copy of the lock would be held for ever by a
# thread that it has no copy of, and the generator be in the middle of another's numbers.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_GLOBAL_GENERATOR.acquire,
        after_in_parent=_GLOBAL_GENERATOR.release,
        after_in_child=_GLOBAL_GENERATOR.release,
    )


@contextmanager
def seeded(seed: int, device: str | torch.device = "cpu") -> Iterator[None]:
    """Run a block under torch's global generator with this seed, then put it back.

    Initialisers and dropout draw from the global generator and from nothing
    else. It is shared by all threads, so the block is for one thread at a time;
    keep it short.
    """
    on_cuda = torch.device(device).type == "cuda"
    devices = list(range(torch.cuda.device_count())) if on_cuda else []
    with _GLOBAL_GENERATOR, torch.random.fork_rng(devices):
        torch.default_generator.manual_seed(seed)
        if on_cuda:
            torch.cuda.manual_seed_all(seed)
        yield


def base_seed(random_state: int | np.random.RandomState | None) -> int:
    """Draw the one number that all randomness of an estimator's life follows from."""
    check_random_state(random_state)
    if random_state is None:
        return int(np.random.SeedSequence().generate_state(1)[0])
    if isinstance(random_state, np.random.RandomState):
        return int(random_state.randint(2**31))
    return int(random_state)


def task_seed(base: int, task: int, stream: int = 0) -> int:
    """Return the seed of one task; task 0 is the initialisation.

    A function of its arguments only, so that a run that was saved and loaded
    between two tasks continues as it would have. What is drawn from one stream of a
    task does not move another.
    """
    words = np.random.SeedSequence([base, task, stream]).generate_state(2)
    return int(words[0]) << 31 | int(words[1]) >> 1


def task_generator(base: int, task: int, stream: int = 0) -> torch.Generator:
    """Return a new generator for one task, at the beginning of one of its streams."""
    return torch.Generator().manual_seed(task_seed(base, task, stream))


def draw_seed(generator: torch.Generator) -> int:
    """Draw a seed for :func:`seeded`."""
    return int(torch.randint(2**62, (), generator=generator))


def draws_random_numbers(module: nn.Module, X: Any, device: str | torch.device) -> bool:
    """Tell whether a forward pass, in the module's present mode, uses the global generator.

    The pass works on copies of the buffers, so that BatchNorm does not see it.
    """
    buffers = {name: value.clone() for name, value in module.named_buffers()}
    with seeded(0, device), torch.no_grad():
        before = _generator_states(device)
        functional_call(module, buffers, *as_arguments(X))
        after = _generator_states(device)
    return any(not torch.equal(*pair) for pair in zip(before, after, strict=True))


def _generator_states(device: str | torch.device) -> list[torch.Tensor]:
    states = [torch.get_rng_state()]
    if torch.device(device).type == "cuda":
        states += torch.cuda.get_rng_state_all()
    return states
