"""Seeds, threads and torch's global generator."""

import itertools
import os
import signal
import sys
import threading
import time

import numpy as np
import pytest
import torch
from torch import nn

from sklearn_ewc.training import rehearsal
from sklearn_ewc.training.seeding import (
    base_seed,
    draw_seed,
    draws_random_numbers,
    seeded,
    task_generator,
    task_seed,
)

from ..helpers import parameters, quick


def test_a_seeded_block_is_reproducible_and_leaves_no_trace():
    before = torch.get_rng_state()
    draws = []
    for _ in range(2):
        with seeded(3):
            draws.append(torch.rand(4))
    assert torch.equal(*draws)
    assert torch.equal(torch.get_rng_state(), before)


def test_seeded_blocks_in_threads_do_not_mix():
    with seeded(0):
        expected = torch.rand(1000)
    found = {}

    def draw(name):
        for _ in range(20):
            with seeded(0):
                found.setdefault(name, []).append(torch.cat([torch.rand(1) for _ in range(1000)]))

    threads = [threading.Thread(target=draw, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(draw, expected) for draws in found.values() for draw in draws)


def test_nets_with_dropout_that_threads_train_at_once_are_those_trained_alone(tasks):
    def train(seed):
        net = quick(module=dropout, max_epochs=10, random_state=seed)
        found[seed] = parameters(net.partial_fit(*tasks[0]))

    dropout = nn.Sequential(nn.Linear(1, 8), nn.Dropout(0.5), nn.Linear(8, 1))
    found = {}
    for seed in range(3):
        train(seed)
    alone, found = found, {}
    threads = [threading.Thread(target=train, args=(seed,)) for seed in range(3)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sys.setswitchinterval(interval)
    assert all(torch.equal(found[seed], alone[seed]) for seed in range(3))


def test_seeds_of_tasks_differ_and_depend_on_nothing_else():
    every = itertools.product(range(20), range(20), range(2))
    assert len({task_seed(*one) for one in every}) == 800
    assert task_seed(5, 3) == task_seed(5, 3)
    assert draw_seed(task_generator(5, 3)) == draw_seed(task_generator(5, 3))


def test_a_base_seed_comes_from_any_random_state():
    assert base_seed(7) == base_seed(np.int64(7)) == 7
    assert base_seed(np.random.RandomState(1)) == base_seed(np.random.RandomState(1))
    assert base_seed(None) != base_seed(None)


def test_a_net_without_dropout_trains_as_ever_if_another_thread_draws_while_it_is_tried(
    tasks, monkeypatch
):
    alone = quick(max_epochs=3, batch_size=8).partial_fit(*tasks[0])
    monkeypatch.setattr(rehearsal, "draws_random_numbers", lambda *args: True)
    disturbed = quick(max_epochs=3, batch_size=8).partial_fit(*tasks[0])
    assert torch.equal(parameters(alone), parameters(disturbed))


def test_randomness_in_a_forward_pass_is_noticed_without_leaving_a_trace():
    X = torch.ones(4, 3)
    norm = nn.BatchNorm1d(3)
    before = norm.running_mean.clone()
    assert not draws_random_numbers(nn.Sequential(nn.Linear(3, 3), norm), X, "cpu")
    assert draws_random_numbers(nn.Dropout(0.5), X, "cpu")
    assert not draws_random_numbers(nn.Dropout(0.5).eval(), X, "cpu")
    assert torch.equal(norm.running_mean, before)
    assert norm.num_batches_tracked == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are not forked here")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_process_forked_while_another_thread_draws_can_draw():
    def draw():
        with seeded(0):
            is_drawing.set()
            time.sleep(0.1)

    is_drawing = threading.Event()
    before = torch.get_rng_state()
    thread = threading.Thread(target=draw)
    thread.start()
    is_drawing.wait()
    child = os.fork()
    if child == 0:
        signal.alarm(60)  # ends a process that waits for a lock
        with seeded(1):
            torch.rand(1)
        os._exit(0 if torch.equal(torch.get_rng_state(), before) else 1)
    assert os.waitpid(child, 0)[1] == 0
    thread.join()
    with seeded(0):
        pass


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are not forked here")
def test_a_process_forked_in_a_seeded_block_leaves_it_as_its_parent_does():
    with seeded(0):
        child = os.fork()
    if child == 0:
        signal.alarm(60)
        thread = threading.Thread(target=lambda: seeded(1).__enter__())
        thread.start()
        thread.join()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
