"""Real data: three clinics send their patients' records one after another.

The diabetes data of scikit-learn: ten measurements of 442 patients, and how far
the disease had progressed a year later. Each clinic sees other patients (a third
of them each, by serum triglycerides, ``s5``), and no clinic's records may be
kept once the next one's arrive. λ is chosen in a Pipeline by GridSearchCV; then
the clinics are learned one by one, with that λ and with none.

Run: python examples/three_clinics.py
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from sklearn.base import clone
from sklearn.datasets import load_diabetes
from sklearn.metrics import root_mean_squared_error
from sklearn.model_selection import GridSearchCV, StratifiedKFold, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklearn_ewc import EWCRegressor

CLINICS = ["low", "middle", "high"]


def errors_after_each_step(net, train, test):
    """Learn the clinics one by one; return the error on each after each step."""
    rows = []
    for X, y in train:
        net.partial_fit(X, y)
        rows.append([root_mean_squared_error(y, net.predict(X)) for X, y in test])
    steps = [f"after clinic {name!r}" for name in CLINICS]
    return pd.DataFrame(rows, index=steps, columns=[f"on {name!r}" for name in CLINICS])


def main():
    """Choose λ, learn the clinics with and without it, print both tables."""
    torch.set_num_threads(1)
    X, y = load_diabetes(return_X_y=True, as_frame=True, scaled=False)
    clinic = pd.qcut(X["s5"], 3, labels=CLINICS)  # ordered: low, middle, high
    X_train, X_test, y_train, y_test, clinic_train, clinic_test = train_test_split(
        X, y, clinic, stratify=clinic, random_state=0
    )

    pipeline = make_pipeline(StandardScaler(), EWCRegressor(random_state=0))
    # folds stratified by clinic keep every clinic in every fold
    folds = StratifiedKFold(3, shuffle=True, random_state=0).split(X_train, clinic_train)
    search = GridSearchCV(
        pipeline,
        {"ewcregressor__ewc_lambda": [0.0, 1.0, 3.0, 10.0, 30.0, 100.0]},
        cv=list(folds),
        n_jobs=2,
    )
    search.fit(X_train, y_train, ewcregressor__task=clinic_train)
    print("Mean R² over all clinics, cross-validated")
    for ewc_lambda, score in zip(
        search.cv_results_["param_ewcregressor__ewc_lambda"],
        search.cv_results_["mean_test_score"],
        strict=True,
    ):
        print(f"  λ = {ewc_lambda:>4g}: {score:6.3f}")

    scaler, net = search.best_estimator_
    train, test = (
        [(scaler.transform(X[rows == name]), y[rows == name]) for name in CLINICS]
        for X, y, rows in ((X_train, y_train, clinic_train), (X_test, y_test, clinic_test))
    )
    for name, ewc_lambda in (("no penalty", 0.0), (f"EWC, λ = {net.ewc_lambda:g}", net.ewc_lambda)):
        table = errors_after_each_step(clone(net).set_params(ewc_lambda=ewc_lambda), train, test)
        print(f"\nRoot mean squared error on held-out patients, {name}")
        print(table.round(1).to_string())

    joint = clone(net).fit(*(np.concatenate(part) for part in zip(*train, strict=True)))
    errors = [f"{root_mean_squared_error(y, joint.predict(X)):.1f}" for X, y in test]
    print(f"\nAll clinics at once, if their records could be kept: {', '.join(errors)}")


if __name__ == "__main__":
    main()
