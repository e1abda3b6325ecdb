"""Permuted MNIST: digits whose pixels every task shuffles in its own way.

The protocol, as in the papers below: ten tasks of all 60,000 training images, one net of
784-100-100-10 units (ReLU) and one head for all tasks, which are not told apart when it
predicts. The first task has the pixels as they are, every other one a permutation drawn
from the seed. Pixels are divided by 255, nothing else is done to them. Every task is
learned for three epochs by Adam at a rate of 1e-3 in batches of 64, under cross-entropy,
and then its images are gone. The figure is the accuracy on the 10,000 test images of each
task after the last one, the mean over tasks. "joint" learns the images of all tasks at
once, for as many epochs; it holds them all in memory, 0.2 GB a task.

There are ten outputs, one for each digit, with one-hot targets; the digit predicted is the
largest of them. All that is not said here is at the library's defaults, so λ is too,
unless --ewc-lambda says otherwise.

Published for this net and ten tasks, after more epochs (VCL 100 a task, FROMP 10):

    EWC               84    Nguyen et al. 2018, after Kirkpatrick et al. 2017
    SI                86    Nguyen et al. 2018, after Zenke et al. 2017
    VCL               90    Nguyen et al. 2018
    VCL with coreset  93    the same; keeps 200 images a task
    FROMP             94.9  Pan et al. 2020; keeps 200 images a task

Kirkpatrick et al., "Overcoming catastrophic forgetting in neural networks", PNAS 2017;
Zenke et al., "Continual learning through synaptic intelligence", ICML 2017; Nguyen et
al., "Variational continual learning", ICLR 2018; Pan et al., "Continual deep learning by
functional regularisation of memorable past", NeurIPS 2020.

Run: python examples/benchmarks/permuted_mnist.py [--data mnist.npz] [--seeds 3]
[--methods none diagonal online kronecker joint] [--tasks 10] [--epochs 3]
[--rows 2000 for a short form, of so many training and test images]

The file of --data has arrays X_train, y_train, X_test, y_test; without it MNIST is
fetched from OpenML, whose first 60,000 images are those to train on.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch
from sklearn.datasets import fetch_openml

from sklearn_ewc import EWCRegressor

N_PIXELS, N_DIGITS, N_TRAIN = 784, 10, 60_000
METHODS = {
    "none": {"ewc_lambda": 0.0},
    "diagonal": {},
    "online": {"mode": "online"},
    "kronecker": {"curvature": "kronecker"},
    "joint": {},
}
PENALISED = ("diagonal", "online", "kronecker")


def mnist(path, n_rows):
    """Return training and test images, each as pixels in [0, 1] and digits."""
    if path is None:
        X, y = fetch_openml("mnist_784", return_X_y=True, as_frame=False)
        pairs = [(X[:N_TRAIN], y[:N_TRAIN]), (X[N_TRAIN:], y[N_TRAIN:])]
    else:
        with np.load(path) as arrays:
            pairs = [(arrays[f"X_{part}"], arrays[f"y_{part}"]) for part in ("train", "test")]
    return [
        (np.float32(X[:n_rows].reshape(-1, N_PIXELS) / 255), y[:n_rows].astype(int))
        for X, y in pairs
    ]


def permutations(n_tasks, seed):
    """Return the order of the pixels in each task, the identity first."""
    rng = np.random.RandomState(seed)
    return [np.arange(N_PIXELS), *(rng.permutation(N_PIXELS) for _ in range(n_tasks - 1))]


def one_hot(digits):
    """Return the targets of ten outputs."""
    return np.eye(N_DIGITS, dtype=np.float32)[digits]


def learn(net, train, orders):
    """Learn the permutations one after another, and return the time each took."""
    X, digits = train
    y, seconds = one_hot(digits), []
    for order in orders:
        start = time.perf_counter()
        net.partial_fit(X[:, order], y)
        seconds.append(time.perf_counter() - start)
    return seconds


def learn_at_once(net, train, orders):
    """Learn the images of all permutations as one task, and return the time by their number."""
    X, digits = train
    together = np.empty((len(orders), *X.shape), X.dtype)  # filled, as a copy would not fit
    for images, order in zip(together, orders, strict=True):
        images[:] = X[:, order]
    start = time.perf_counter()
    net.fit(together.reshape(-1, N_PIXELS), np.tile(one_hot(digits), (len(orders), 1)))
    return [(time.perf_counter() - start) / len(orders)]


def accuracy(net, test, orders):
    """Return the mean over the permutations of the part of images that are told right."""
    X, digits = test
    return np.mean([np.mean(net.predict(X[:, order]).argmax(1) == digits) for order in orders])


def run(method, seed, images, arguments):
    """Return accuracy after the last task and the seconds a task took."""
    net = EWCRegressor(
        hidden_layer_sizes=(100, 100),
        criterion=torch.nn.CrossEntropyLoss,
        max_epochs=arguments.epochs,
        batch_size=arguments.batch_size,
        random_state=seed,
        **METHODS[method],
    )
    if arguments.ewc_lambda is not None and method in PENALISED:
        net.set_params(ewc_lambda=arguments.ewc_lambda)
    train, test = images
    orders = permutations(arguments.tasks, seed)
    seconds = (learn_at_once if method == "joint" else learn)(net, train, orders)
    return accuracy(net, test, orders), np.mean(seconds)


def lambda_of(text):
    """Return λ as the command line has it, a number or "auto"."""
    return text if text == "auto" else float(text)


def main():
    """Run every method and print accuracies and times."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="npz file; without it the images are fetched from OpenML")
    parser.add_argument("--rows", type=int, help="so many images to train and test on; all")
    parser.add_argument("--tasks", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--ewc-lambda", type=lambda_of, help="number or auto, in place of default")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    images = mnist(arguments.data, arguments.rows)
    for method in arguments.methods:
        found = []
        for seed in range(arguments.seeds):
            right, seconds = run(method, seed, images, arguments)
            found.append((right, seconds))
            print(
                f"{method:<10} seed {seed}  accuracy {100 * right:.1f}  {seconds:.1f} s a task",
                flush=True,
            )
        accuracies, seconds = (np.array(column) for column in zip(*found, strict=True))
        spread = f" ± {100 * accuracies.std(ddof=1):.1f}" if len(found) > 1 else ""
        print(
            f"{method:<10} mean    accuracy {100 * accuracies.mean():.1f}{spread}  "
            f"{seconds.mean():.1f} s a task",
            flush=True,
        )


if __name__ == "__main__":
    main()
