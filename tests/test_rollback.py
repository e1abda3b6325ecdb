"""All or nothing: whatever a block does before it fails, nothing of it is left."""

import os
import signal
import threading
import time
from collections import OrderedDict, defaultdict, deque
from contextlib import suppress

import numpy as np
import pytest
import torch
from sklearn.base import BaseEstimator
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import ShuffleSplit
from sklearn.preprocessing import StandardScaler
from skorch.callbacks import EarlyStopping, LRScheduler
from skorch.dataset import ValidSplit
from skorch.history import History
from torch import nn
from torch.nn.utils import parametrizations, prune

from sklearn_ewc.rollback import all_or_nothing

from .helpers import parameters, quick
from .injector import (
    ERRORS,
    KINDS,
    Injector,
    differences,
    in_undoing,
    interrupted,
    interrupted_twice,
    sampled,
    state,
)


def assert_undone(one, change, error=RuntimeError):
    """Change something and fail: the change is seen, and then nothing is left of it."""
    before = state(one)
    with pytest.raises(error, match="on purpose"), all_or_nothing(one):  # noqa: PT012
        change()
        assert differences(before, state(one))
        raise error("on purpose")
    assert differences(before, state(one)) == []


@pytest.fixture
def module():
    module = nn.Sequential(
        OrderedDict(first=nn.Linear(2, 3), norm=nn.BatchNorm1d(3), last=nn.Linear(3, 1))
    )
    module(torch.ones(4, 2)).sum().backward()
    return module


# modules


def test_a_parameter_that_was_written_to_comes_back(module):
    assert_undone(module, lambda: module.first.weight.data.add_(1))


def test_data_that_were_swapped_come_back_in_the_storage_that_others_share(module):
    shared = module.first.weight.data

    def swap():
        module.first.weight.data = torch.zeros(5, 5, dtype=torch.float64)
        shared.zero_()

    assert_undone(module, swap)
    assert module.first.weight.data.is_set_to(shared)


def test_a_rebound_buffer_comes_back(module):
    assert_undone(module, lambda: setattr(module.norm, "running_mean", torch.ones(3)))


def test_a_buffer_that_was_none_is_none_again(module):
    module.register_buffer("seen", None)
    assert_undone(module, lambda: setattr(module, "seen", torch.ones(3)))


@pytest.mark.parametrize(
    "expanded",
    [torch.ones(1).expand(3), torch.arange(3.0).unfold(0, 2, 1), torch.ones(()).expand(0)],
)
def test_a_buffer_that_repeats_its_values_can_be_put_back(module, expanded):
    module.register_buffer("mask", expanded)
    module.register_buffer("other", torch.zeros(1))
    assert_undone(module, lambda: (module.mask.untyped_storage().fill_(7), module.other.fill_(1)))


@pytest.mark.parametrize(
    "buffer", [torch.eye(2).to_sparse(), torch.tensor(True), torch.ones(2, dtype=torch.complex64)]
)
def test_a_buffer_of_any_kind_comes_back(module, buffer):
    module.register_buffer("other", buffer)
    assert_undone(module, lambda: module.other.zero_())


def test_a_buffer_from_inference_mode_comes_back(module):
    with torch.inference_mode():
        module.register_buffer("other", torch.ones(2))

    def write():
        with torch.inference_mode():
            module.other.zero_()

    assert_undone(module, write)


def test_a_swapped_layer_comes_back_after_a_failure(module):
    assert_undone(module, lambda: setattr(module, "first", nn.Linear(2, 3)))


def test_a_layer_that_was_taken_out_comes_back_to_its_place(module):
    layers = list(module)
    assert_undone(module, lambda: delattr(module, "first"))
    assert list(module) == layers


def test_parameters_that_were_added_and_deleted_go_and_come(module):
    def change():
        module.scale = nn.Parameter(torch.ones(1))
        del module.first.bias

    assert_undone(module, change)


def test_attributes_and_modes_of_every_part_come_back(module):
    def change():
        module.eval()
        module.last.calls = 1
        module.norm.momentum = 0.5
        del module.norm.eps

    assert_undone(module, change)


@pytest.mark.parametrize(
    "register", ["forward_hook", "forward_pre_hook", "full_backward_hook", "state_dict_pre_hook"]
)
def test_hooks_of_modules_are_gone(module, register):
    hook = getattr(module.first, f"register_{register}")
    assert_undone(module, lambda: hook(lambda *args: None))


def test_hooks_of_parameters_are_gone_and_old_ones_stay(module):
    calls = []
    module.first.bias.register_hook(lambda gradient: calls.append("old"))

    def change():
        module.first.bias._backward_hooks.clear()
        module.first.bias.register_hook(lambda gradient: calls.append("new"))
        module.first.weight.register_hook(lambda gradient: calls.append("new"))
        module.last.weight.register_post_accumulate_grad_hook(lambda p: calls.append("new"))

    assert_undone(module, change)
    module(torch.ones(4, 2)).sum().backward()
    assert calls == ["old"]


def test_gradients_come_back_the_same_objects_with_the_same_values(module):
    def change():
        module.first.weight.grad.zero_()
        module.first.bias.grad = None
        module.last.weight.grad = torch.ones(1, 3)

    assert_undone(module, change)


def test_what_was_frozen_is_thawed(module):
    assert_undone(module, lambda: module.requires_grad_(False))


def test_marks_on_parameters_are_gone(module):
    assert_undone(module, lambda: setattr(module.first.weight, "is_marked", True))


def test_pruning_is_undone(module):
    assert_undone(module, lambda: prune.l1_unstructured(module.first, "weight", 2))


def test_parametrizations_are_undone(module):
    assert_undone(module, lambda: parametrizations.weight_norm(module.first))
    assert type(module.first) is nn.Linear
    module(torch.ones(4, 2))


def test_a_lazy_module_is_lazy_again():
    module = nn.Sequential(nn.LazyLinear(3), nn.LazyBatchNorm1d())
    assert_undone(module, lambda: module(torch.ones(4, 2)))
    assert type(module[0]) is nn.LazyLinear
    assert module(torch.ones(4, 5)).shape == (4, 3)


def test_tied_parameters_stay_tied(module):
    module.again = module.first
    assert_undone(module, lambda: setattr(module, "again", nn.Linear(2, 3)))
    assert module.again is module.first


def test_a_scripted_module_comes_back(module):
    scripted = torch.jit.script(nn.Linear(1, 1))
    before = parameters_of(scripted)
    with pytest.raises(RuntimeError), all_or_nothing(scripted):  # noqa: PT012
        scripted.weight.data.zero_()
        raise RuntimeError
    assert torch.equal(parameters_of(scripted), before)


def parameters_of(module):
    return torch.cat([p.detach().flatten() for p in module.parameters()])


# optimizers and schedulers


@pytest.fixture
def optimizer(module):
    optimizer = torch.optim.Adam(module.parameters())
    optimizer.step()
    return optimizer


def test_a_step_of_an_optimizer_is_undone(module, optimizer):
    assert_undone([module, optimizer], optimizer.step)


def test_groups_of_an_optimizer_come_back(optimizer):
    def change():
        optimizer.param_groups[0]["lr"] = 9.0
        optimizer.param_groups[0]["params"].pop()
        optimizer.add_param_group({"params": [nn.Parameter(torch.ones(1))]})

    assert_undone(optimizer, change)


def test_loading_into_an_optimizer_is_undone(optimizer):
    loaded = optimizer.state_dict()
    loaded["param_groups"][0]["lr"] = 9.0
    assert_undone(optimizer, lambda: optimizer.load_state_dict(loaded))


def test_a_scheduler_and_what_it_does_to_its_optimizer_are_undone(optimizer):
    assert_undone(optimizer, lambda: torch.optim.lr_scheduler.StepLR(optimizer, 1))
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    optimizer.step()
    assert_undone([scheduler, optimizer], scheduler.step)


# containers, arrays, generators


@pytest.mark.parametrize(
    ("items", "change"),
    [
        ([1, [2]], lambda items: (items[1].append(3), items.clear())),
        ({"a": [1], "b": 2}, lambda items: (items["a"].append(3), items.pop("a"))),
        (OrderedDict(a=1, b=2), lambda items: items.move_to_end("a")),
        (defaultdict(list, a=[1]), lambda items: items["b"].append(1)),
        ({1, 2}, lambda items: (items.discard(1), items.add(3))),
        (deque([1, 2]), lambda items: (items.popleft(), items.append(3))),
        (deque([1, 2], maxlen=2), lambda items: items.append(3)),
        (({"a": 1},), lambda items: items[0].clear()),
        ([], lambda items: items.append(1)),
        (History([{"loss": 1}]), lambda items: (items.new_epoch(), items.record("loss", 2))),
    ],
    ids=lambda value: type(value).__name__,
)
def test_containers_come_back(items, change):
    assert_undone([items], lambda: change(items))


def test_no_container_is_ever_empty_while_it_is_put_back():
    items = {"a": 1, "b": 2}
    sizes = []

    def watch(frame, event, argument):
        sizes.append(len(items))
        return watch

    with pytest.raises(RuntimeError), Injector() as injector, all_or_nothing(items):  # noqa: PT012
        injector._lines = watch
        items.clear()
        items["c"] = 3
        raise RuntimeError
    assert items == {"a": 1, "b": 2}
    assert len(sizes) > 10
    assert min(sizes) == 1


def test_rows_of_a_history_are_kept_not_copied():
    rows = [{"loss": epoch} for epoch in range(3)]
    history = History(rows)
    assert_undone(history, lambda: history.pop())
    assert all(one is other for one, other in zip(list.__iter__(history), rows, strict=True))


def test_what_a_callback_writes_into_the_rows_of_earlier_epochs_is_gone():
    history = History([{"loss": epoch, "is_best": epoch == 1} for epoch in range(1500)])

    def write():
        history[-1]["loss"] = 0
        del history[-1]["is_best"]
        list.__getitem__(history, 600)["note"] = "best"
        history.append({"loss": 1})

    assert_undone(history, write)


def test_a_long_history_costs_no_more_than_its_list():
    history = History([{"loss": 1.0, "batches": []}] * 300_000)
    start = time.perf_counter()
    with all_or_nothing(history):
        pass
    assert time.perf_counter() - start < 0.1


@pytest.mark.parametrize("array", [np.zeros((2, 3)), np.zeros(()), np.zeros((4, 4)).T[::2]])
def test_values_of_arrays_come_back(array):
    assert_undone([array], lambda: array.fill(1))


def test_arrays_of_objects_and_read_only_ones_come_back():
    array = np.array([{"a": 1}, None], dtype=object)
    assert_undone([array, np.broadcast_to(0.0, 3)], lambda: (array[0].clear(), array.fill(2)))


@pytest.mark.parametrize(
    ("generator", "draw"),
    [
        (np.random.RandomState(0), lambda generator: generator.randn()),
        (np.random.default_rng(0), lambda generator: generator.random()),
        (torch.Generator(), lambda generator: torch.rand(1, generator=generator)),
        (torch.default_generator, lambda generator: torch.rand(1)),
    ],
)
def test_generators_come_back(generator, draw):
    assert_undone([generator], lambda: draw(generator))


def test_modes_of_torch_come_back():
    assert_undone([], lambda: torch.set_grad_enabled(False))
    assert_undone([], lambda: setattr(torch.backends.cudnn, "enabled", False))
    assert_undone([], lambda: torch.rand(1))


def test_another_thread_leaves_the_generator_of_all_threads_alone():
    def fail():
        with suppress(RuntimeError), all_or_nothing():
            drawn.append(torch.rand(1))
            raise RuntimeError

    drawn = []
    torch.manual_seed(0)
    thread = threading.Thread(target=fail)
    thread.start()
    thread.join()
    assert torch.rand(1) != drawn[0]


# estimators


class Scaler(StandardScaler):
    """Holds what scikit-learn's own do not."""

    def __init__(self, *, held=None):
        super().__init__()
        self.held = held


class Plain:
    """Of no kind that is known."""

    def __init__(self, **attributes):
        vars(self).update(attributes)


class Slotted:
    __slots__ = ("value",)


def test_an_estimator_comes_back_with_those_in_it():
    inner = StandardScaler().fit([[1.0], [2.0]])
    outer = Scaler(held=[("inner", inner)])

    def change():
        inner.mean_ += 1
        inner.partial_fit([[5.0]])
        outer.fit([[1.0]])

    assert_undone(outer, change)


def test_what_an_estimator_holds_of_an_unknown_kind_comes_back_in_place():
    held = Plain(counts={"a": 1}, inner=Plain(array=np.zeros(3)))
    slotted = Slotted()
    slotted.value = [1]
    estimator = Scaler(held=(held, slotted))
    with pytest.raises(RuntimeError), all_or_nothing(estimator):  # noqa: PT012
        held.counts["a"] = 2
        held.inner.array += 1
        held.new = 3
        slotted.value.append(2)
        raise RuntimeError
    assert estimator.held == (held, slotted)
    assert vars(held).keys() == {"counts", "inner"}
    assert held.counts == {"a": 1}
    assert held.inner.array.tolist() == [0, 0, 0]
    assert slotted.value == [1]


def test_a_data_frame_in_an_estimator_comes_back():
    pd = pytest.importorskip("pandas")
    estimator = Scaler(held=pd.DataFrame({"a": [1, 2]}))
    frame = estimator.held
    with pytest.raises(RuntimeError), all_or_nothing(estimator):  # noqa: PT012
        frame.loc[0, "a"] = 5
        frame["b"] = 3
        raise RuntimeError
    assert estimator.held is frame
    assert frame.to_dict("list") == {"a": [1, 2]}


def test_what_cannot_be_copied_is_kept_and_all_beside_it_comes_back(tmp_path):
    with open(tmp_path / "file", "w") as file:
        held = [threading.Lock(), file, Plain(lock=threading.Lock()), threading.current_thread()]
        estimator = Scaler(held=held)
        assert_undone(estimator, lambda: (held.pop(), estimator.fit([[1.0]])))


def test_what_an_object_leaves_out_of_its_pickle_stays():
    class Cached(Plain):
        def __getstate__(self):
            return {"kept": self.kept}

    held = Cached(kept=[1], cache="kept too")
    with pytest.raises(RuntimeError), all_or_nothing(Scaler(held=held)):  # noqa: PT012
        held.kept.append(2)
        raise RuntimeError
    assert vars(held) == {"kept": [1], "cache": "kept too"}


def test_an_estimator_that_points_at_itself_goes_on_doing_so():
    estimator = Scaler()
    estimator.held = Plain(owner=estimator)
    assert_undone(estimator, lambda: setattr(estimator.held, "owner", None))
    assert estimator.held.owner is estimator


def test_a_frozen_estimator_is_not_copied():
    class Uncopied(BaseEstimator):
        def __reduce_ex__(self, protocol):
            raise AssertionError

        @property
        def __dict__(self):
            raise AssertionError

    with all_or_nothing(FrozenEstimator(Uncopied())):
        pass


@pytest.mark.parametrize("split", [ValidSplit(3, stratified=False), ShuffleSplit(2)])
def test_the_generator_of_a_split_comes_back(split):
    split.random_state = np.random.RandomState(0)
    assert_undone([split], lambda: split.random_state.randn())


def test_callbacks_given_as_instances_come_back(tasks):
    stop, schedule = EarlyStopping("train_loss"), LRScheduler("StepLR", step_size=1)
    net = quick(callbacks=[stop, ("schedule", schedule)])
    assert_undone(net, lambda: net.partial_fit(*tasks[0]))
    assert not hasattr(stop, "best_epoch_")
    assert not hasattr(schedule, "lr_scheduler_")


def test_what_callbacks_and_modules_hold_of_an_unknown_kind_is_not_copied(tasks):
    class Uncopied:
        def __reduce_ex__(self, protocol):
            raise SystemExit

    net = quick(callbacks=[EarlyStopping("train_loss")]).partial_fit(*tasks[0])
    net.callbacks[0].logger, net.module_.vocabulary = Uncopied(), Uncopied()
    with all_or_nothing(net):
        pass


def test_the_generator_of_a_net_comes_back(tasks):
    net = quick(random_state=np.random.RandomState(0))
    assert_undone(net, lambda: net.partial_fit(*tasks[0]))


def test_a_refused_setting_leaves_nothing_on_the_live_optimizer(tasks):
    net = quick().partial_fit(*tasks[0])
    before = state(net)
    for refused in ({"lr": 9.0, "criterion": 5}, {"lr": 9.0, "optimizer__param_groups__7__lr": 1}):
        with pytest.raises((TypeError, IndexError)):
            net.set_params(**refused)
        assert differences(before, state(net)) == []


def test_a_move_that_fails_half_way_leaves_all_on_their_device(tasks, monkeypatch):
    monkeypatch.setattr("sklearn_ewc.training.building.check_device", lambda device: None)
    net = quick().partial_fit(*tasks[0])
    before = state(net)
    with pytest.raises(RuntimeError):
        net.set_params(device="meta")
    assert differences(before, state(net)) == []
    net.predict(tasks[0][0])


def test_modules_can_be_left_out_where_a_block_does_not_change_them(tasks):
    net = quick().partial_fit(*tasks[0])
    before = parameters(net)
    with pytest.raises(RuntimeError), all_or_nothing(net, modules=False):  # noqa: PT012
        net.lr = 9.0
        net.module_.hidden = None
        with torch.no_grad():
            next(net.module_.parameters()).add_(1)
        raise RuntimeError
    assert net.lr != 9.0
    assert net.module_.hidden is None
    assert not torch.equal(parameters(net), before)


# undoing


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit, GeneratorExit])
def test_whatever_is_raised_is_raised_in_the_end(module, error):
    assert_undone(module, lambda: module.eval(), error)


def test_a_block_that_ends_is_committed(module):
    with all_or_nothing(module):
        module.first = nn.Identity()
        attempt = module.first
    assert module.first is attempt


def test_what_cannot_be_put_back_is_told_and_all_else_comes_back(module):
    class Stubborn(dict):
        def update(self, *args):
            raise OSError

    stubborn = Stubborn(a=1)

    def fail():
        with suppress(RuntimeError), all_or_nothing(stubborn, module):
            module.eval()
            stubborn["a"] = 2
            raise RuntimeError

    with pytest.warns(RuntimeWarning, match="could not be put back after a failure: Stubborn"):
        fail()
    assert module.training


def test_ctrl_c_is_held_back_while_something_is_undone_and_then_heard_again():
    class Slow(dict):
        def update(self, *args):
            os.kill(os.getpid(), signal.SIGINT)
            super().update(*args)

    slow, handler = Slow(a=1), signal.getsignal(signal.SIGINT)
    with pytest.raises(RuntimeError), all_or_nothing(slow):  # noqa: PT012
        slow["a"] = 2
        raise RuntimeError
    assert slow == {"a": 1}
    assert signal.getsignal(signal.SIGINT) is handler


@pytest.mark.parametrize("name", ["partial_fit, later", "pipeline, later", "target, later"])
def test_a_second_interrupt_while_the_first_is_undone_loses_nothing(name):
    with Injector(within=in_undoing) as lines, pytest.raises(RuntimeError):  # noqa: PT012
        estimator = KINDS[name].estimator()
        with all_or_nothing(estimator):
            raise RuntimeError
    for position in sampled(lines.n_lines - 10, 8, seed=0):
        outcome = interrupted_twice(KINDS[name], position)
        assert outcome.verdict == "undone", (position, outcome)


@pytest.mark.parametrize("name", KINDS)
def test_an_error_at_any_line_leaves_the_estimator_as_it_was(name):
    kind = KINDS[name]
    for index, position in enumerate(sampled(kind.n_lines, 6, seed=1)):
        outcome = interrupted(kind, ERRORS[index % 2], position)
        assert outcome.verdict != "lost", (position, outcome)
        # all is done where only the end of the last block and the return are left
        assert outcome.verdict != "done" or position >= kind.n_lines - 4, (position, outcome)
