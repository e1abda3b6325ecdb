"""A search for λ on a Dask cluster."""

import joblib
import numpy as np
import pytest

from sklearn_ewc import search_lambda

from .helpers import parameters, quick

distributed = pytest.importorskip("distributed")


@pytest.fixture
def client():
    """Return a client of a cluster of two worker processes."""
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


def test_a_search_on_two_dask_workers_equals_one_in_this_process(client, tasks):
    X, y = (np.concatenate(parts) for parts in zip(*tasks[:3], strict=True))
    task = np.repeat([1, 2, 3], [len(y) for _, y in tasks[:3]])

    def search():
        return search_lambda(quick(), X, y, task, lambdas=[0, 30, 1000])

    alone = search()
    with joblib.parallel_config(backend="dask"), distributed.get_task_stream(client) as done:
        on_cluster = search()
    assert {job["worker"] for job in done.data} == client.scheduler_info()["workers"].keys()
    scores = [name for name in alone.cv_results_ if name.endswith("_test_score")]
    assert len(scores) == 3 + 3  # folds, and their mean, deviation and rank
    for name in scores:
        assert np.array_equal(alone.cv_results_[name], on_cluster.cv_results_[name]), name
    assert len(set(alone.cv_results_["mean_test_score"])) == 3
    assert alone.best_params_ == on_cluster.best_params_
    assert np.array_equal(*(parameters(found.best_estimator_) for found in (alone, on_cluster)))
