"""What people ran into: each report's program in short, with the outcome that it should have."""

import copy
import datetime
import io
import pickle
import sqlite3

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.model_selection import GridSearchCV
from sklearn.preprocessing import StandardScaler
from skorch.callbacks import (
    Callback,
    Checkpoint,
    EarlyStopping,
    Initializer,
    LoadInitState,
    TrainEndCheckpoint,
    WandbLogger,
)
from skorch.helper import SliceDict
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader, IterableDataset, WeightedRandomSampler

from sklearn_ewc import (
    ContinualTargetRegressor,
    estimate_lambda,
    make_continual_pipeline,
    search_lambda,
)

from ..helpers import Lookup, learn, parameters, quick
from .small import TwoInputs, files_of, fisher, halves, rows

X, Y = rows()


def in_pipeline(net):
    return make_continual_pipeline(StandardScaler(), net)


@pytest.mark.parametrize(
    "wrapped",
    [
        lambda net: net,
        ContinualTargetRegressor,
        lambda net: ContinualTargetRegressor(in_pipeline(net)),
        lambda net: in_pipeline(ContinualTargetRegressor(net)),
    ],
    ids=["net", "target", "target of a pipeline", "pipeline of a target"],
)
def test_search_lambda_finds_the_net_in_every_nesting(wrapped):
    model, task = wrapped(quick(max_epochs=1)), np.arange(len(X)) % 2
    search = search_lambda(model, X, Y, task, lambdas=[0, 1], cv=2)
    ((name, value),) = search.best_params_.items()
    assert name.endswith("ewc_lambda")
    assert value in (0, 1)
    assert search.best_estimator_.n_tasks_ == 2


@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")  # of torch's compiler itself
def test_a_compiled_net_and_one_that_is_not_read_each_other_s_files():
    compiled = quick(max_epochs=1, compile=True, compile__backend="eager").partial_fit(X, Y)
    plain = quick(max_epochs=1).partial_fit(X, Y)
    assert torch.allclose(parameters(compiled), parameters(plain))
    ours, theirs = (files_of(net, "f_params", "f_memory") for net in (compiled, plain))
    plain.load_params(**ours)
    assert torch.equal(parameters(plain), parameters(compiled))
    compiled.load_params(**theirs)
    assert compiled.partial_fit(X, Y).n_tasks_ == 2


class Keeps(nn.Module):
    """Keeps what it computed, as attention does to be shown."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 1)

    def forward(self, X):
        self.attention = torch.softmax(self.layer.weight * X, 1)
        return self.layer(self.attention * X)


class Normed(nn.Module):
    """Computes its weight from two parameters in a hook, and keeps it."""

    def __init__(self):
        super().__init__()
        self.layer = nn.utils.weight_norm(nn.Linear(3, 1))

    def forward(self, X):
        return self.layer(X)


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning", "ignore:.*batching rule")
@pytest.mark.parametrize("module", [Keeps, Normed])
@pytest.mark.parametrize("kind", ["exact", "empirical"])
def test_nothing_of_the_fisher_pass_stays_in_a_module_that_keeps_what_it_computes(module, kind):
    net = quick(module=module, max_epochs=1, fisher=kind).partial_fit(X, Y)
    for copied in (pickle.loads(pickle.dumps(net)), copy.deepcopy(net)):
        assert np.array_equal(copied.predict(X), net.predict(X))
    torch.save(net.module_, io.BytesIO())


def test_what_a_callback_writes_at_the_end_of_training_holds_the_task(tmp_path):
    left, right = halves()
    end = TrainEndCheckpoint(dirname=tmp_path, f_pickle="net.pkl", f_memory="memory.pt")
    settings = {"hidden_layer_sizes": (4,), "ewc_lambda": 100.0, "max_epochs": 3}
    net = quick(callbacks=[end], **settings).partial_fit(*left)
    pickled = pickle.loads((tmp_path / "train_end_net.pkl").read_bytes())
    loaded = quick(**settings)
    loaded.load_params(
        f_params=tmp_path / "train_end_params.pt", f_memory=tmp_path / "train_end_memory.pt"
    )
    for one in (net, pickled, loaded):
        assert one.n_tasks_ == 1
        one.partial_fit(*right)
        assert one.n_tasks_ == 2
        assert torch.equal(parameters(one), parameters(net))


def test_running_statistics_belong_to_what_is_remembered_unless_they_are_let_go():
    left, right = halves()

    def two_tasks(remember_buffers):
        layers = nn.Linear(1, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 1)
        module, options = nn.Sequential(*layers), {"ewc_lambda": 1e12}
        net = quick(module=module, remember_buffers=remember_buffers, **options).partial_fit(*left)
        before = net.predict(left[0])
        return before, net.partial_fit(*right).predict(left[0])

    np.testing.assert_allclose(*two_tasks(remember_buffers=True), rtol=1e-5, atol=1e-5)
    before, after = two_tasks(remember_buffers=False)
    assert abs(before - after).max() > 0.1


def test_a_head_wider_than_y_learns_and_all_of_its_columns_are_predicted():
    def gaussian(output, y):
        mean, log_var = output[:, :1], output[:, 1:]
        return (log_var + (y - mean) ** 2 / log_var.exp()).mean()

    net = quick(module=nn.Linear(3, 2), criterion=gaussian)
    assert learn(net, [(X, Y)] * 2).predict(X).shape == (len(X), 2)


def test_a_task_of_which_drop_last_leaves_nothing_is_refused_unlearned():
    net = quick(iterator_train__drop_last=True).partial_fit(X, Y)
    before, n_rows = net.predict(X), len(net.history)
    with pytest.raises(ValueError, match="drop_last leaves out all samples"):
        net.partial_fit(X[:20], 5 + Y[:20])
    assert (net.n_tasks_, len(net.history)) == (1, n_rows)
    assert np.array_equal(net.predict(X), before)


class NotCopied(Callback):
    """Holds what cannot be copied, and tells whether it was called."""

    def __init__(self):
        self.connection, self.n_calls = sqlite3.connect(":memory:"), 0

    def on_epoch_end(self, net, **kwargs):
        self.n_calls += 1


def test_trials_of_lambda_run_no_callback_and_touch_no_file(tmp_path):
    own = NotCopied()
    saving = Checkpoint(dirname=tmp_path, monitor="train_loss_best")
    net = quick(callbacks=[saving, own]).partial_fit(X, Y)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    n_calls = own.n_calls
    estimate_lambda(net, X, -Y, lambdas=[0, 1])
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert own.n_calls == n_calls > 0


class Largest(TorchDispatchMode):
    """Notes the size of the largest tensor that any operation makes."""

    size = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor):
            self.size = max(self.size, result.numel())
        return result


@pytest.mark.parametrize("kind", ["auto", "exact", "sampled"])
def test_a_fisher_of_many_outputs_needs_memory_for_a_batch_alone(kind):
    images = np.random.RandomState(0).rand(16, 200).astype("float32")
    net = quick(module=nn.Linear(200, 200), fisher=kind, max_epochs=1)
    with Largest() as largest:
        net.partial_fit(images, images)
    assert 200**2 <= largest.size < 16 * 200**2 / 4  # the weights; a batch of squares


@pytest.mark.parametrize(
    "wrapped", [in_pipeline, ContinualTargetRegressor, lambda net: in_pipeline(in_pipeline(net))]
)
def test_estimate_lambda_takes_a_fitted_wrapper(wrapped):
    model = wrapped(quick(max_epochs=1)).partial_fit(X, Y)
    assert estimate_lambda(model, X, Y, lambdas=[0, 1]).best in (0, 1)
    assert model.n_tasks_ == 1


class StopsAtAnEpoch(Callback):
    def on_epoch_end(self, net, **kwargs):
        raise KeyboardInterrupt


class StopsInABatch(EarlyStopping):
    def on_batch_end(self, net, **kwargs):
        raise KeyboardInterrupt


@pytest.mark.parametrize("callback", [StopsAtAnEpoch(), StopsInABatch("train_loss")])
def test_a_callback_ends_a_task_by_a_keyboard_interrupt(callback):
    net = quick(max_epochs=100, callbacks=[callback]).partial_fit(X, Y)
    assert (net.n_tasks_, len(net.history)) == (1, 1)


def test_a_keyboard_interrupt_from_elsewhere_is_raised_and_nothing_is_learned():
    class Interrupted(nn.MSELoss):
        def forward(self, output, y):
            if output.requires_grad:
                raise KeyboardInterrupt
            return super().forward(output, y)

    net = quick(criterion=Interrupted)
    with pytest.raises(KeyboardInterrupt):
        net.partial_fit(X, Y)
    assert not net.__sklearn_is_fitted__()


def test_widths_may_be_numpy_s_integers():
    widths = {"hidden_layer_sizes": np.array([2, 4])}
    search = GridSearchCV(quick(max_epochs=1), widths, cv=2, error_score="raise").fit(X, Y)
    width = search.best_params_["hidden_layer_sizes"]
    assert search.best_estimator_.module_.layers[0].out_features == width


def test_a_criterion_may_be_a_plain_function():
    def log_cosh(output, target):
        return torch.log(torch.cosh(output - target)).mean()

    assert quick(criterion=log_cosh).partial_fit(X, Y).n_tasks_ == 1
    by_function, by_class = (
        quick(criterion=criterion, normalize_y=True).partial_fit(X, Y)
        for criterion in (nn.functional.mse_loss, nn.MSELoss)
    )
    assert torch.equal(parameters(by_function), parameters(by_class))


def test_a_transformer_that_cannot_be_copied_works_in_a_continual_pipeline():
    pipeline = make_continual_pipeline(Lookup(sqlite3.connect(":memory:")), quick())
    assert pipeline.fit(X, Y).n_tasks_ == 1
    assert pipeline.partial_fit(X, Y).n_tasks_ == 2


class Sites(nn.Module):
    """A table of codes beside a number."""

    def __init__(self):
        super().__init__()
        self.site, self.out = nn.Embedding(3, 2), nn.Linear(3, 1)

    def forward(self, site, t):
        return self.out(torch.cat([self.site(site), t], 1))


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "int32"])
def test_codes_of_any_integer_dtype_go_into_an_embedding(dtype):
    frame = pd.DataFrame({"site": [*"abc"] * 10, "t": np.linspace(0, 1, 30)})
    codes = frame["site"].astype("category").cat.codes

    def learned(dtype):
        inputs = {"site": codes.astype(dtype), "t": frame[["t"]]}
        return parameters(quick(module=Sites).partial_fit(inputs, frame["t"]))

    assert torch.equal(learned(dtype), learned("int64"))


def test_a_module_widened_between_tasks_is_refused_by_names_and_shapes():
    net = quick(module=nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1))).partial_fit(X, Y)
    net.module_[0], net.module_[1] = nn.Linear(3, 6), nn.Linear(6, 1)
    with pytest.raises(ValueError, match=r"\(6, 3\).*0\.weight.*\(4, 3\)"):
        net.partial_fit(X, Y)
    assert net.n_tasks_ == 1


class Stream(IterableDataset):
    def __iter__(self):
        yield from [(np.ones(3, "float32"), np.float32(1))] * 20


class SizedStream(Stream):
    def __len__(self):
        return 20


@pytest.mark.parametrize("kind", [Stream, SizedStream, lambda: DataLoader(Stream())])
def test_data_that_can_be_read_only_in_order_are_refused_with_what_x_may_be(kind):
    with pytest.raises(TypeError, match="X is a .* must be an array, a dict of arrays, or a torch"):
        quick().partial_fit(kind())


def test_a_sampler_takes_the_place_of_a_shuffle_that_nobody_set():
    first_alone = WeightedRandomSampler(torch.eye(len(X))[0], 8)
    net = quick(max_epochs=1, iterator_train__sampler=first_alone).partial_fit(X, Y)
    (batch,) = net.history[0, "batches"]
    assert batch["train_batch_size"] == 8
    assert net.n_tasks_ == 1


def test_dates_are_no_numbers_in_any_frame_and_polars_floats_keep_their_size():
    polars = pytest.importorskip("polars")
    days = [datetime.datetime(2024, 1, 1) + datetime.timedelta(days=d) for d in range(len(X))]
    for frame in (pd.DataFrame({"day": days}), polars.DataFrame({"day": days})):
        with pytest.raises(TypeError, match="dates and durations are no numbers"):
            quick().partial_fit(frame, Y)
    assert quick().partial_fit(polars.DataFrame(X), Y).dtype_ == np.float32


def test_a_history_that_is_loaded_as_training_begins_is_kept(tmp_path):
    first, again = (Checkpoint(dirname=tmp_path, monitor=None) for _ in range(2))
    quick(max_epochs=5, callbacks=[first]).partial_fit(X, Y)
    net = quick(max_epochs=2, callbacks=[LoadInitState(again), again]).partial_fit(X, Y)
    assert net.history[:, "epoch"] == [1, 2, 3, 4, 5, 6, 7]


def test_an_initializer_of_the_first_epoch_fires_once_whether_or_not_tasks_are_stored():
    left, right = halves()
    learned = []
    for store_tasks in (True, False):
        torch.manual_seed(0)
        start = Initializer("*weight", fn=nn.init.xavier_uniform_)
        net = quick(store_tasks=store_tasks, callbacks=[start], ewc_lambda=0.0).partial_fit(*left)
        learned.append(parameters(net).clone())
        net.set_params(lr=0.0).partial_fit(*right)
        assert torch.equal(parameters(net), learned[-1])
    assert torch.equal(*learned)


def test_sparse_gradients_learn_or_are_refused_before_training():
    item = np.arange(30) % 5
    table = {"module": nn.Embedding(5, 1, sparse=True), "lr": 0.1, "ewc_lambda": 1.0}
    net = quick(optimizer=torch.optim.SGD, **table)
    assert learn(net, [({"input": item}, item / 5)] * 2).n_tasks_ == 2
    heard = NotCopied()
    with pytest.raises(ValueError, match="sparse=True.*optimizer=torch.optim.SGD"):
        quick(callbacks=[heard], **table).partial_fit({"input": item}, item / 5)
    assert heard.n_calls == 0


@pytest.mark.parametrize(
    ("n_rows", "tracks", "way_out"),
    [
        (33, True, "iterator_train__drop_last=True"),
        (1, True, "learn more samples"),
        (36, False, "a layer that does without"),
    ],
)
def test_batch_norm_of_a_batch_of_one_row_is_refused_before_training(n_rows, tracks, way_out):
    layers = nn.Linear(3, 4), nn.BatchNorm1d(4, track_running_stats=tracks), nn.Linear(4, 1)
    heard = NotCopied()
    net = quick(module=nn.Sequential(*layers), callbacks=[heard])
    with pytest.raises(ValueError, match=f"BatchNorm1d cannot take a batch of 1.*{way_out}"):
        net.partial_fit(X[:n_rows], Y[:n_rows])
    assert heard.n_calls == 0


@pytest.mark.parametrize("kind", [SliceDict, dict])
def test_lambda_is_chosen_for_inputs_by_name(kind):
    inputs, task = kind(a=X[:, :2], b=X[:, 1:]), np.arange(len(X)) % 2
    net = quick(module=TwoInputs, max_epochs=1)
    search = search_lambda(net, inputs, Y, task, lambdas=[0, 1], cv=2)
    assert search.best_params_["ewc_lambda"] in (0, 1)
    assert estimate_lambda(net.partial_fit(inputs, Y), inputs, Y, lambdas=[0, 1]).best in (0, 1)


def test_lambda_means_the_same_for_a_criterion_that_sums():
    tasks, size = halves(), 32

    def learned(reduction, lr):
        options = {"optimizer": torch.optim.SGD, "lr": lr, "ewc_lambda": 100.0}
        options |= {"batch_size": size, "criterion__reduction": reduction}
        return learn(quick(module__activation=nn.Tanh, **options), tasks)

    mean, summed = learned("mean", 0.05), learned("sum", 0.05 / size)
    torch.testing.assert_close(parameters(summed), parameters(mean))
    assert mean.history[-1, "penalty"] > 0
    ratios = [net.history[-1, "penalty"] / net.history[-1, "train_loss"] for net in (mean, summed)]
    assert ratios[1] == pytest.approx(ratios[0], rel=1e-3)


def test_wandb_s_logger_with_its_defaults_is_told_what_it_lacks():
    class Run:
        dir = "."

        def watch(self, *args, **kwargs):
            pass

        log = watch

    with pytest.raises(ValueError, match="WandbLogger looks for 'valid_loss_best'.*train_split"):
        quick(callbacks=[WandbLogger(Run())]).partial_fit(X, Y)


class Forecast(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn, self.out = nn.GRU(3, 4, batch_first=True), nn.Linear(4, 24)

    def forward(self, x):
        return self.out(self.rnn(x)[0][:, -1])


def test_the_fisher_of_a_recurrent_net_with_many_outputs_is_sampled():
    sequences = np.random.RandomState(0).randn(12, 8, 3).astype("float32")
    y = sequences.reshape(12, 24)
    auto, sampled = (
        quick(module=Forecast, fisher=kind, max_epochs=1).partial_fit(sequences, y)
        for kind in ("auto", "sampled")
    )
    for name, values in fisher(auto).items():
        assert torch.equal(values, fisher(sampled)[name])


def test_parameters_in_float64_load_into_a_new_net_and_predict():
    net = quick().partial_fit(X.astype(float), Y.astype(float))
    again = quick(module__n_features=3).initialize()
    again.load_params(**files_of(net, "f_params"))
    assert again.dtype_ == np.float64
    assert torch.equal(parameters(again), parameters(net))
    np.testing.assert_array_equal(again.predict(X).ravel(), net.predict(X))
