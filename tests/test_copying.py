"""Copies of what cannot be copied as a whole."""

import threading

import numpy as np

from sklearn_ewc.copying import twin


class Holder:
    def __init__(self, **attributes):
        vars(self).update(attributes)

    def method(self):
        return self


def test_what_can_be_copied_is_and_the_rest_is_shared():
    lock = threading.Lock()
    one = Holder(lock=lock, values=np.zeros(2), both=[np.zeros(2), lock])
    other = twin(one)
    assert type(other) is Holder
    assert other.lock is lock
    assert other.values is not one.values
    assert other.both is one.both


def test_attributes_that_share_an_object_share_its_copy():
    values = np.zeros(2)
    one = Holder(first=values, second=[values], lock=threading.Lock())
    other = twin(one)
    assert other.first is other.second[0]
    assert other.first is not values


def test_an_attribute_that_is_copied_by_half_leaves_nothing_behind():
    inner = Holder(values=np.zeros(2), lock=threading.Lock())
    other = twin(Holder(refused=[inner], again=inner))
    assert other.again is inner
    assert other.refused == [inner]


def test_a_bound_method_is_bound_to_the_copy():
    one = Holder()
    one.bound = one.method
    other = twin(one)
    assert other.bound() is other


def test_what_stands_for_an_object_is_taken_for_it():
    values, instead = np.zeros(2), np.ones(2)
    memo = {id(values): instead}
    assert twin(Holder(values=values), memo).values is instead
    assert memo == {id(values): instead}


def test_what_has_no_attributes_is_returned():
    assert twin("passthrough") == "passthrough"
    assert twin(None) is None
