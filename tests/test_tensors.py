"""Batches of tensors, dicts and sequences."""

import threading

import pytest
import torch

from sklearn_ewc.tensors import cached_property, joined, leaves, mapped

TABLE, TARGET = torch.arange(12.0).reshape(6, 2), torch.arange(6.0).reshape(6, 1)


def batches_of(size, X=TABLE, *rest):
    rest = rest or (TARGET,)
    return [
        (mapped(X, lambda part, i=i: part[i : i + size]), *(r[i : i + size] for r in rest))
        for i in range(0, 6, size)
    ]


@pytest.mark.parametrize("X", [TABLE, {"a": TABLE, "b": TABLE[:, 0]}])
@pytest.mark.parametrize("size", [1, 4, 6])
def test_small_tables_are_joined_and_no_row_is_lost(X, size):
    weight = torch.arange(6.0)
    ((inputs, target, weights),) = joined(batches_of(size, X, TARGET, weight))
    torch.testing.assert_close((inputs, target, weights), (X, TARGET, weight), rtol=0, atol=0)


def test_a_joined_batch_has_at_most_512_rows_and_2_to_the_18_numbers():
    rows = [len(y) for _, y in joined([(torch.ones(200, 3), torch.ones(200, 1))] * 5)]
    assert rows == [400, 400, 200]
    rows = [len(y) for _, y in joined([(torch.ones(100, 1000), torch.ones(100, 1))] * 3)]
    assert rows == [200, 100]
    rows = [len(y) for _, y in joined([(torch.ones(600, 3), torch.ones(600, 1))] * 2)]
    assert rows == [600, 600]


@pytest.mark.parametrize(
    "other",
    [
        (torch.ones(2, 3), torch.ones(2, 1)),
        (torch.ones(2, 2).double(), torch.ones(2, 1)),
        ({"a": torch.ones(2, 2)}, torch.ones(2, 1)),
        (torch.ones(2, 2, 2), torch.ones(2, 1)),
        ((torch.ones(2, 2), torch.ones(2, 2)), torch.ones(2, 1)),
        (torch.ones(2, 2), torch.ones(2, 1), torch.ones(2)),
    ],
    ids=["width", "dtype", "dict", "images", "tuple", "weights"],
)
def test_what_differs_or_is_no_table_stays_apart(other):
    stream = [(torch.ones(2, 2), torch.ones(2, 1)), other, other]
    found = list(joined(stream))
    assert found[0] is stream[0]
    assert sum(len(one[1]) for one in found) == 6


def test_nested_parts_are_mapped_and_listed_in_order():
    data = {"a": (TABLE, [TARGET]), "b": TABLE}
    doubled = mapped(data, lambda part: 2 * part)
    assert torch.equal(doubled["a"][1][0], 2 * TARGET)
    assert [part.shape for part in leaves(data)] == [(6, 2), (6, 1), (6, 2)]


def test_what_is_found_once_is_found_for_two_objects_at_once():
    class Slow:
        @cached_property
        def value(self):
            met.wait(timeout=5)
            return []

    met = threading.Barrier(2)
    one, other = Slow(), Slow()
    thread = threading.Thread(target=lambda: other.value)
    thread.start()
    assert one.value is one.value
    thread.join()
    assert other.value is not one.value
