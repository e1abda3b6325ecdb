"""
A fitted net as an ONNX file, predicted with by a program that has no torch
===========================================================================

What is exported is the module and the scale of y, so that the file predicts in the user's
units. Scale the inputs as in training. Needs ``pip install sklearn-ewc[onnx]``.
"""

# %%
# Two tasks, as ever.

import importlib.util
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

from sklearn_ewc import EWCRegressor

needed = ("onnx", "onnxruntime", "onnxscript")
if missing := [name for name in needed if not importlib.util.find_spec(name)]:
    print("not installed:", ", ".join(missing))
    sys.exit()

rng = np.random.RandomState(0)
X = rng.uniform(-1, 1, (400, 3)).astype(np.float32)
y = np.sin(3 * X[:, 0]) + X[:, 1]
left = X[:, 0] < 0
net = EWCRegressor(max_epochs=50, random_state=0)
net.partial_fit(X[left], y[left]).partial_fit(X[~left], y[~left])

# %%
# The module, and what turns its output into predictions.


class Predictor(torch.nn.Module):
    """A fitted regressor as one module, from scaled inputs to targets."""

    def __init__(self, net):
        super().__init__()
        self.module = net.bare_module_
        dtype = next(self.module.parameters()).dtype
        self.centre = torch.as_tensor(net.targets_.centre or 0.0, dtype=dtype)
        self.scale = torch.as_tensor(net.targets_.scale or 1.0, dtype=dtype)

    def forward(self, X):
        """Predict in the units of y."""
        return self.module(X) * self.scale + self.centre


path = Path(tempfile.mkdtemp()) / "net.onnx"
torch.onnx.export(
    Predictor(net).eval(),
    (torch.as_tensor(X[:2]),),
    path,
    input_names=["X"],
    output_names=["y"],
    dynamic_shapes=[{0: torch.export.Dim("n_samples")}],
    dynamo=True,
    external_data=False,
    verbose=False,
)

# %%
# Elsewhere: any number of rows, the same predictions.

import onnxruntime

session = onnxruntime.InferenceSession(path)
(predicted,) = session.run(["y"], {"X": X})
difference = np.abs(predicted.ravel() - net.predict(X)).max()
print(f"{path.stat().st_size} bytes; predictions differ by at most {difference:.0e}")
assert difference < 1e-5
