"""Folds that hold their share of every task."""

import numpy as np
import pytest

from sklearn_ewc import TaskKFold

TASK = np.repeat(["a", "b", "c"], [30, 9, 4])


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("labels", [TASK, np.asarray(TASK == "a", dtype=float), list(TASK)])
def test_every_fold_holds_its_share_of_every_task(labels, shuffle):
    splitter = TaskKFold(4, shuffle=shuffle, random_state=0 if shuffle else None)
    tested = []
    for train, test in splitter.split(np.zeros((43, 1)), groups=labels):
        assert not set(train) & set(test)
        assert len(train) + len(test) == 43
        for label in set(labels):
            n_samples = np.sum(np.asarray(labels) == label)
            n_tested = np.sum(np.asarray(labels)[test] == label)
            assert n_tested in (n_samples // 4, -(-n_samples // 4))
        tested.extend(test)
    assert sorted(tested) == list(range(43))


def test_a_continuous_target_does_not_disturb_the_folds():
    y = np.linspace(0, 1, 43)
    for target in (y, None):
        tested = [test for _, test in TaskKFold(3).split(np.zeros((43, 1)), target, TASK)]
        assert [len(test) for test in tested] == [15, 14, 14]


def test_folds_need_the_tasks():
    with pytest.raises(ValueError, match="needs groups, the task of every sample"):
        list(TaskKFold(3).split(np.zeros((9, 1))))


def test_more_folds_than_any_task_has_samples_are_refused():
    with pytest.raises(ValueError, match="n_splits is 31, but no label in groups has more than 30"):
        TaskKFold(31).split(np.zeros((43, 1)), groups=TASK)
