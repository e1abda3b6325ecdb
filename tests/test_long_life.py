"""A long life: a thousand tasks, ten thousand predictions, many threads."""

import pickle
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from joblib import Parallel, delayed

from sklearn_ewc import Memory

from . import reference
from .helpers import learn, parameters, quick


def resident_memory():
    """Return the resident memory of this process in bytes."""
    status = Path("/proc/self/status")
    if not status.exists():
        pytest.skip("needs /proc")
    (line,) = [line for line in status.read_text().splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1]) * 1024


def test_a_thousand_tasks_leave_nothing_behind_but_their_sums(tasks):
    net = quick(store_tasks=False, max_epochs=2, ewc_lambda=1.0)
    sizes, memory, seconds = {}, {}, []
    for k in range(1, 1001):
        start = time.process_time()
        net.partial_fit(*tasks[k % 4])
        seconds.append(time.process_time() - start)
        if k in (100, 1000):
            sizes[k], memory[k] = len(pickle.dumps(net)), resident_memory()
    assert net.n_tasks_ == 1000
    assert net.memory_.tasks == ()
    assert abs(sizes[1000] - sizes[100]) < 200
    assert memory[1000] - memory[100] < 4e6
    assert np.median(seconds[-200:]) < 1.3 * np.median(seconds[100:300])


def test_the_sums_of_a_thousand_tasks_equal_the_sum_term_by_term(tasks):
    net = quick(max_epochs=2, ewc_lambda=1.0)
    for k in range(1000):
        net.partial_fit(*tasks[k % 4])
    params = {name: p.detach() + 0.01 for name, p in net.module_.named_parameters()}
    collapsed = Memory(store_tasks=False)
    for task in net.memory_.tasks:
        collapsed = collapsed.consolidate(task)
    expected = reference.penalty(net.memory_.tasks, params)
    assert float(collapsed.penalty(params)) == pytest.approx(float(expected), rel=1e-6)
    assert float(net.memory_.penalty(params)) == pytest.approx(float(expected), rel=1e-6)


def test_without_stored_tasks_the_history_is_that_of_the_last_task(tasks):
    kept, last = (learn(quick(store_tasks=stored), tasks[:3]) for stored in (True, False))
    assert [row["task"] for row in last.history] == [3] * 5
    assert last.history[:, "train_loss"] == kept.history[-5:, "train_loss"]


def test_ten_thousand_predictions_leave_nothing_behind(tasks):
    net = quick().partial_fit(*tasks[0])
    X = tasks[0][0]
    for _ in range(1000):
        net.predict(X)
    before = resident_memory()
    for _ in range(9000):
        net.predict(X)
    assert resident_memory() - before < 4e6


def test_threads_that_predict_at_once_agree_with_one_alone(tasks):
    net = learn(quick(hidden_layer_sizes=(50, 50), batch_size=3), tasks[:2])
    inputs = [np.repeat(X, n, axis=0) for n, (X, _) in enumerate(tasks * 5, start=1)]
    alone = [net.predict(X) for X in inputs]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(net.predict, inputs))
    assert all(map(np.array_equal, alone, together))


@pytest.mark.parametrize("backend", ["loky", "threading"])
def test_nets_that_learn_in_parallel_learn_what_they_learn_alone(tasks, backend):
    nets = [quick(random_state=seed, ewc_lambda=3.0) for seed in range(4)]
    alone = [parameters(learn(net, tasks[:2])) for net in nets]
    for _ in range(2):
        copies = [quick(random_state=seed, ewc_lambda=3.0) for seed in range(4)]
        learned = Parallel(n_jobs=2, backend=backend)(
            delayed(learn)(net, tasks[:2]) for net in copies
        )
        assert all(map(torch.equal, alone, map(parameters, learned)))
