"""One task trained by two processes."""

import os
import pickle
import subprocess
import sys
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch

from sklearn_ewc import EWCRegressor

accelerate = pytest.importorskip("accelerate")

# 27 samples in batches of 13: shares differ in size, and the last batch is one sample
N_SAMPLES, BATCH_SIZE = 27, 13
SETTINGS = {
    "unweighted": {"batch_size": BATCH_SIZE},
    "auto": {"batch_size": BATCH_SIZE, "ewc_lambda": "auto"},
    "one batch, SGD": {"batch_size": -1, "optimizer": torch.optim.SGD, "lr": 0.05},
    "many batches": {"batch_size": BATCH_SIZE},
    "empirical": {"batch_size": BATCH_SIZE, "fisher": "empirical"},
    "batch": {"batch_size": BATCH_SIZE, "fisher": "batch", "penalty_step": "gradient"},
    "sampled": {"batch_size": BATCH_SIZE, "fisher": "sampled"},
    "kronecker": {"batch_size": BATCH_SIZE, "curvature": "kronecker"},
    "LBFGS": {"batch_size": -1, "optimizer": torch.optim.LBFGS, "optimizer__max_iter": 3},
    "replay": {"batch_size": BATCH_SIZE, "replay": "auto"},
    "sum": {"batch_size": -1, "criterion": torch.nn.MSELoss, "criterion__reduction": "sum"},
}


def weighted_tasks():
    rng = np.random.RandomState(0)
    for shift in (0.0, 1.0):
        X = rng.randn(N_SAMPLES, 2) + shift
        y = np.sin(X) + np.cos(X.sum(axis=1, keepdims=True))
        yield X, y, rng.randint(0, 4, N_SAMPLES).astype(float)


def learned(make):
    """Return what every setting leads to: parameters, history and memory."""
    found = {}
    for name, settings in SETTINGS.items():
        net = make(
            hidden_layer_sizes=(4,), max_epochs=3, random_state=0, **{"ewc_lambda": 3, **settings}
        )
        for X, y, weight in weighted_tasks():
            net.partial_fit(X, y, sample_weight=None if name == "unweighted" else weight)
        found[name] = {
            "parameters": [p.detach().numpy() for p in net.module_.parameters()],
            "anchors": [a.numpy() for t in net.memory_.tasks for a in t.anchor.values()],
            "fisher": [f.numpy() for t in net.memory_.tasks for f in t.fisher.values()],
            "names": [list(t.fisher) for t in net.memory_.tasks],
            "n_samples": [t.n_samples for t in net.memory_.tasks],
            "losses": np.array(net.history[:, ("train_loss", "penalty", "ewc_lambda")]),
            "predicted": net.predict(X),
        }
    return found


def accelerated(**settings):
    accelerator = accelerate.Accelerator(cpu=True, device_placement=False)
    return EWCRegressor(accelerator=accelerator, **settings)


def diverged():
    """Return whether a net that diverges in all processes is as it was before."""
    (X, y, _), (X_new, y_new, _) = weighted_tasks()
    nets = [accelerated(max_epochs=2, random_state=0).partial_fit(X, y) for _ in range(2)]
    nets[0].set_params(lr=1e300, optimizer=torch.optim.SGD)
    with pytest.raises(FloatingPointError, match="training diverged"):
        nets[0].partial_fit(X_new, y_new * 1e100)
    nets[0].set_params(lr=nets[1].lr, optimizer=nets[1].optimizer)
    predicted = [net.partial_fit(X_new, y_new).predict(X) for net in nets]
    return np.array_equal(*predicted)


def work(folder):
    """Do one process's part of the training, and write down what it ends with."""
    torch.set_num_threads(1)
    found = learned(accelerated)
    assert accelerate.PartialState().num_processes == 2
    assert diverged()
    accumulating = accelerated()
    accumulating.accelerator.gradient_accumulation_steps = 2
    with pytest.raises(ValueError, match="must not accumulate gradients: raise batch_size"):
        accumulating.partial_fit([[0.0]], [0.0])
    Path(folder, os.environ["RANK"]).write_bytes(pickle.dumps(found))
    group = weakref.ref(torch.distributed.group.WORLD)
    torch.distributed.destroy_process_group()
    assert group() is None  # its threads would outlive the interpreter


@pytest.fixture(scope="module")
def ends(tmp_path_factory):
    """Return what each of two processes ends with."""
    folder = tmp_path_factory.mktemp("processes")
    store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    script = f"from tests.training.test_processes import work; work({str(folder)!r})"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script],
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
                "PYTHONWARNINGS": "error::UserWarning",
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": "2",
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(store.port),
                "TORCHELASTIC_USE_AGENT_STORE": "True",  # as torchrun: no port to be snatched
                "ACCELERATE_USE_CPU": "true",
                "OMP_NUM_THREADS": "1",
            },
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        for process in processes:
            _, errors = process.communicate(timeout=600)  # a hang, not a busy machine
            assert process.returncode == 0, errors
    finally:
        for process in processes:
            process.kill()
    return [pickle.loads((folder / str(rank)).read_bytes()) for rank in range(2)]


@pytest.fixture(scope="module")
def alone():
    return learned(EWCRegressor)


@pytest.mark.parametrize("name", SETTINGS)
def test_every_process_ends_with_the_same(ends, name):
    first, second = (pickle.dumps(end[name]) for end in ends)
    assert first == second


@pytest.mark.parametrize("name", SETTINGS)
def test_two_processes_end_where_one_ends_with_all_the_data(ends, alone, name):
    found, expected = ends[0][name], alone[name]
    for key in ("names", "n_samples"):
        assert found[key] == expected[key]
    for key in ("parameters", "anchors", "fisher", "losses", "predicted"):
        for ours, theirs in zip(found[key], expected[key], strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-10, err_msg=key)
