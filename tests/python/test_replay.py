"""compile(replay=True): a call gives what running the function again would give, or runs it again."""

from __future__ import annotations

import collections
import weakref
from collections.abc import Callable
from typing import Any

import lohe
import pytest
import replayed
from lohe import nn
from lohe.nn import functional as F
from replay_checks import counted, fresh_compiler, ready, refused  # noqa: F401

pytestmark = pytest.mark.eager  # these tests record by themselves


def _same(got: Any, want: Any) -> None:
    assert type(got) is type(want)
    if isinstance(want, lohe.Tensor):
        assert (got.dtype, got.shape, got.stride(), got.storage_offset()) == (
            want.dtype,
            want.shape,
            want.stride(),
            want.storage_offset(),
        )
        assert got.requires_grad == want.requires_grad and got.is_inference() == want.is_inference()
        assert lohe.equal(got, want) or (got.isnan() == want.isnan()).all()
    elif isinstance(want, dict):
        assert list(got) == list(want)
        for key in want:
            _same(got[key], want[key])
    elif isinstance(want, (tuple, list)):
        assert len(got) == len(want)
        for g, w in zip(got, want, strict=True):
            _same(g, w)
    else:
        assert got == want


def _mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4))


# --- what is replayed


def test_the_fourth_call_does_not_run_the_function() -> None:
    compiled, runs = ready(lambda x, y: (x * y + 1).tanh(), lohe.randn(5, 7), lohe.randn(5, 7))
    for _ in range(3):
        x, y = lohe.randn(5, 7), lohe.randn(5, 7)
        _same(compiled(x, y), (x * y + 1).tanh())
    assert runs.count == 3
    report = lohe.compile_report(compiled)
    assert report.replay == {"replayed": 4, "ran": 3, "ready": 1, "reasons": []}
    assert "replay: 4 calls replayed, 3 ran" in repr(report)


def test_all_forms_of_compile_take_replay() -> None:
    @lohe.compile(replay=True)
    def decorated(x: lohe.Tensor) -> lohe.Tensor:
        """Doubles."""
        return x * 2

    assert decorated.__doc__ == "Doubles."
    model = _mlp().eval()
    own = _mlp().eval()
    own.compile(replay=True)
    x = lohe.randn(3, 16)
    for function, plain in (
        (decorated, lambda x: x * 2),
        (lohe.compile(model, replay=True), model),
        (own, own._call_impl),
        (lohe.compile(model.forward, replay=True), model),
    ):
        with lohe.no_grad():
            for _ in range(5):
                _same(function(x), plain(x))
        replay = lohe.compile_report(function).replay
        assert replay is not None and replay["replayed"] == 2, replay


def test_without_replay_nothing_is_replayed() -> None:
    compiled = lohe.compile(lambda x: x * 2)
    for _ in range(5):
        compiled(lohe.ones(3))
    assert lohe.compile_report(compiled).replay is None


@pytest.mark.parametrize("mode", ["no_grad", "inference_mode", "grad"])
def test_results_are_as_in_the_mode(mode: str) -> None:
    with {"no_grad": lohe.no_grad, "inference_mode": lohe.inference_mode, "grad": lohe.enable_grad}[mode]():
        compiled, runs = ready(lambda x: (x + 1, x[1:]), lohe.randn(4, 3))
        x = lohe.randn(4, 3)
        _same(compiled(x), (x + 1, x[1:]))
        assert runs.count == 3


def test_results_have_memory_of_their_own() -> None:
    compiled, _ = ready(lambda x: x.relu(), lohe.randn(100))
    a, b = compiled(lohe.ones(100)), compiled(lohe.full((100,), 2.0))
    assert a.data_ptr() != b.data_ptr() and a.sum() == 100 and b.sum() == 200


Pair = collections.namedtuple("Pair", "low high")


@pytest.mark.parametrize(
    "function",
    [
        lambda x: (x + 1, [x * 2, {"a": x - 1, 3: (x.sum(),)}], None, 7, "text", 2.5, True, x.shape, x.dtype),
        lambda x: Pair(x.amin(), x.amax()),
        lambda x: collections.OrderedDict(b=x + 1, a=x + 2),
        lambda x: {"y": x + 1},
        lambda x: [x + 1],
        lambda x: None,
        lambda x: x.shape[0],
        lambda x: lohe.zeros(0),
        lambda x: (x + 1).t(),
        lambda x: (x.to(lohe.float64), x.to(lohe.bfloat16), x > 0, x.argmax()),
        lambda x: lohe.empty(0, 3) + 1,
        lambda x: x.sort(),
    ],
)
def test_containers_and_plain_values_come_back(function: Callable[..., Any]) -> None:
    compiled, runs = ready(function, lohe.randn(4, 3))
    for _ in range(2):
        x = lohe.randn(4, 3)
        _same(compiled(x), function(x))
    assert runs.count == 3


def test_nested_arguments_and_keywords() -> None:
    def f(pair: Any, *, table: dict[str, Any], scale: float) -> lohe.Tensor:
        return pair[0] * scale + pair[1][0] + table["b"]

    a, b, c = lohe.randn(3), lohe.randn(3), lohe.randn(3)
    compiled, runs = ready(f, (a, [b]), table={"b": c}, scale=2.0)
    _same(compiled((b, [c]), table={"b": a}, scale=2.0), b * 2.0 + c + a)
    assert runs.count == 3
    _same(compiled((b, (c,)), table={"b": a}, scale=2.0), b * 2.0 + c + a)
    assert runs.count == 4


def test_views_of_results_and_of_arguments_stay_views() -> None:
    def f(x: lohe.Tensor) -> Any:
        y = x * 2
        return y, y.t(), y[0], x[1], x.t().unsqueeze(0)

    compiled, runs = ready(f, lohe.randn(4, 3))
    x = lohe.randn(4, 3)
    got, want = compiled(x), f(x)
    assert runs.count == 3
    _same(got, want)
    for g, w in zip(got, want, strict=True):
        assert (g._is_view(), g._version) == (w._is_view(), w._version)
    assert got[1]._base is got[0] and got[3]._base is x
    got[2].zero_()
    assert (got[0][0] == 0).all() and (got[1][:, 0] == 0).all() and got[0]._version == got[1]._version == 1
    got[3].fill_(5)
    assert (x[1] == 5).all()


def test_a_view_of_a_base_that_is_gone() -> None:
    compiled, _ = ready(lambda x: (x + 1)[1:], lohe.randn(4, 3))
    x = lohe.randn(4, 3)
    got = compiled(x)
    _same(got, (x + 1)[1:])
    assert got._is_view() and got._base.shape == (4, 3)


def test_an_argument_that_is_given_back_is_itself() -> None:
    compiled, runs = ready(lambda x, y: (y, x.add_(1), y), lohe.zeros(3), lohe.zeros(2))
    x, y = lohe.zeros(3), lohe.zeros(2)
    got = compiled(x, y)
    assert got[0] is y and got[1] is x and got[2] is y and runs.count == 3
    assert x.tolist() == [1, 1, 1] and x._version == 1 and y._version == 0


# --- conditions: arguments


@pytest.mark.parametrize(
    "other",
    [
        lambda x: lohe.randn(5, 3),
        lambda x: lohe.randn(3, 4).t(),
        lambda x: x.double(),
        lambda x: lohe.randn(5, 3)[1:],
        lambda x: lohe.randn(4, 3, requires_grad=True),
        lambda x: lohe.randn(8, 3)[::2],
        lambda x: nn.Parameter(x, requires_grad=False),
        lambda x: lohe.from_numpy(x.numpy()),
    ],
)
def test_an_argument_of_another_kind_runs_the_function(other: Callable[..., Any]) -> None:
    compiled, runs = ready(lambda x: x * 2 + 1, lohe.randn(4, 3))
    x = other(lohe.randn(4, 3))
    _same(compiled(x), x * 2 + 1)
    assert runs.count == 4


def test_an_inference_tensor_is_another_kind_of_argument() -> None:
    with lohe.inference_mode():
        x = lohe.ones(3)
    compiled, runs = ready(lambda x: x.add_(1), lohe.zeros(3))
    with pytest.raises(RuntimeError, match="Inplace update to inference tensor"):
        compiled(x)
    assert runs.count == 4


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (2, 3),
        (2, 2.0),
        (0.0, -0.0),
        (True, 1),
        (None, 0),
        ("a", "b"),
        ([1, 2], [1, 3]),
        ({"k": 1}, {"k": 2}),
        ({"a": 1}, {"b": 1}),
    ],
)
def test_a_changed_value_runs_the_function(first: Any, second: Any) -> None:
    seen: collections.deque[Any] = collections.deque()  # replay does not look into it

    def f(x: lohe.Tensor, value: Any) -> lohe.Tensor:
        seen.append(value)
        return x + len(str(value))

    compiled = lohe.compile(f, replay=True)
    x = lohe.zeros(2)
    for _ in range(5):
        compiled(x, first)
    assert len(seen) == 3
    got = compiled(x, second)
    assert len(seen) == 4 and repr(seen[-1]) == repr(second)
    assert got[0] == len(str(second))
    compiled(x, first)
    assert len(seen) == 4


def test_scalars_are_compared_with_every_call() -> None:
    compiled, runs = ready(lambda x, s: x * s, lohe.ones(3), 2.0)
    assert compiled(lohe.ones(3), 3.0).tolist() == [3, 3, 3]
    assert compiled(lohe.ones(3), 2.0).tolist() == [2, 2, 2]
    assert runs.count == 4


def test_arguments_that_share_memory_run_the_function() -> None:
    def f(x: lohe.Tensor, y: lohe.Tensor) -> lohe.Tensor:
        x.mul_(2)
        return x + y

    compiled, runs = ready(f, lohe.ones(3), lohe.ones(3))
    x = lohe.ones(3)
    assert compiled(x, x).tolist() == [4, 4, 4] and runs.count == 4
    base = lohe.ones(4)
    plain = lohe.ones(4)
    _same(compiled(base[:3], base[:3]), f(plain[:3], plain[:3]))
    # A pair that shares is replayed as a pair that shares.
    for _ in range(4):
        x = lohe.ones(3)
        assert compiled(x, x).tolist() == [4, 4, 4]
    assert runs.count < 9


def test_an_argument_that_shares_memory_with_a_closure_runs_the_function() -> None:
    weight = lohe.ones(3)

    def f(x: lohe.Tensor) -> lohe.Tensor:
        x.mul_(2)
        return x + weight

    compiled, runs = ready(f, lohe.ones(3))
    assert compiled(weight).tolist() == [4, 4, 4] and runs.count == 4
    assert compiled(lohe.ones(3)).tolist() == [4, 4, 4] and runs.count == 4


def test_versions_of_what_is_written_advance_as_they_would() -> None:
    state = lohe.zeros(3)

    def f(x: lohe.Tensor) -> lohe.Tensor:
        state.add_(x)
        state[0].mul_(2)
        x.relu_()
        return state + x

    compiled, runs = ready(f, lohe.ones(3))
    before = state._version
    plain_state = state.clone()
    x = lohe.tensor([1.0, -2.0, 3.0])
    y = x.clone()
    got = compiled(x)
    assert runs.count == 3 and state._version == before + 2 and x._version == 1
    plain_state.add_(y)
    plain_state[0].mul_(2)
    assert lohe.equal(state, plain_state) and lohe.equal(got, state + y.relu())


def test_a_version_check_of_backward_sees_a_replayed_write() -> None:
    compiled, runs = ready(lambda x: x.add_(1), lohe.ones(3))
    weight = lohe.ones(3, requires_grad=True)
    x = lohe.ones(3)
    loss = (weight * x).sum()
    compiled(x)
    assert runs.count == 3
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


# --- conditions: what the function finds by itself


def test_a_parameter_is_read_anew() -> None:
    model = _mlp()
    compiled = lohe.compile(model, replay=True)
    x = lohe.randn(2, 16)
    with lohe.no_grad():
        for _ in range(4):
            compiled(x)
        model[0].weight.add_(1)
        _same(compiled(x), model(x))
        other = _mlp()
        model.load_state_dict(other.state_dict())
        _same(compiled(x), other(x))
        assert lohe.compile_report(compiled).replay["replayed"] == 3
        model[0].weight.data = lohe.randn(16, 16)
        _same(compiled(x), model(x))
        model[2].bias = nn.Parameter(lohe.randn(4))
        _same(compiled(x), model(x))
        model[0].weight.data.zero_()
        _same(compiled(x), model(x))
        model[0] = nn.Linear(16, 16)
        _same(compiled(x), model(x))
        model.append(nn.Tanh())
        _same(compiled(x), model(x))


@pytest.mark.parametrize("how", ["closure", "global", "attribute", "dead"])
def test_another_tensor_in_the_place_of_one_is_seen(how: str) -> None:
    weight = lohe.ones(3)
    if how == "global":
        globals()["_GLOBAL"] = weight
        function: Callable[..., Any] = _reads_a_global
    elif how == "attribute":
        holder = _Holder(weight)
        function = holder.method
    elif how == "dead":
        box = [weight]

        def function(x: lohe.Tensor) -> lohe.Tensor:
            return x + box[0]
    else:

        def function(x: lohe.Tensor) -> lohe.Tensor:
            return x + weight

    compiled = lohe.compile(function, replay=True)
    for _ in range(5):
        assert compiled(lohe.ones(3)).tolist() == [2, 2, 2]
    assert lohe.compile_report(compiled).replay["replayed"] == 2
    kept = weight  # noqa: F841
    other = lohe.full((3,), 2.0)
    if how == "global":
        globals()["_GLOBAL"] = other
    elif how == "attribute":
        holder.weight = other
    elif how == "dead":
        box[0] = other
        del kept, weight
    else:
        weight = other
    assert compiled(lohe.ones(3)).tolist() == [3, 3, 3]


_GLOBAL: Any = None
_SCALE: Any = 2.0


def _reads_a_global(x: lohe.Tensor) -> lohe.Tensor:
    return x + _GLOBAL


def _scales(x: lohe.Tensor) -> lohe.Tensor:
    return x * _SCALE


class _Holder:
    def __init__(self, weight: Any) -> None:
        self.weight = weight

    def method(self, x: lohe.Tensor) -> lohe.Tensor:
        return x + self.weight


def test_a_number_in_a_closure_a_global_or_an_attribute_is_seen() -> None:
    scale = 2.0

    def closure(x: lohe.Tensor) -> lohe.Tensor:
        return x * scale

    holder = _Holder(1.0)
    functions = [lohe.compile(f, replay=True) for f in (closure, _scales, holder.method)]
    for _ in range(5):
        assert [f(lohe.ones(1)).item() for f in functions] == [2, 2, 2]
    scale = 3.0
    holder.weight = 2.0
    globals()["_SCALE"] = 3.0
    assert [f(lohe.ones(1)).item() for f in functions] == [3, 3, 3]
    globals()["_SCALE"] = 2.0


def test_the_gradient_of_an_argument_is_its_own() -> None:
    def f(p: lohe.Tensor) -> None:
        p.sub_(p.grad)

    first, second = lohe.ones(3), lohe.full((3,), 5.0)
    first.grad, second.grad = lohe.ones(3), lohe.full((3,), 2.0)
    compiled, runs = ready(f, first)
    assert first.tolist() == [-3, -3, -3]
    compiled(second)
    assert second.tolist() == [3, 3, 3] and runs.count == 4


def test_a_learning_rate_is_seen() -> None:
    weight = lohe.zeros(3, requires_grad=True)
    weight.grad = lohe.ones(3)
    optimizer = lohe.optim.SGD([weight], lr=1.0)
    step = lohe.compile(optimizer.step, replay=True)
    for _ in range(5):
        step()
    assert lohe.compile_report(step).replay["replayed"] == 2
    optimizer.param_groups[0]["lr"] = 10.0
    step()
    assert weight.tolist() == [-15, -15, -15]


def test_a_dead_tensor_is_let_go() -> None:
    box = [lohe.ones(1000)]
    compiled, _ = ready(lambda x: x + box[0], lohe.ones(1000))
    gone = weakref.ref(box[0])
    box[0] = lohe.ones(1000)
    compiled(lohe.ones(1000))
    assert gone() is None


def test_the_training_flag_of_a_module_is_seen() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), nn.BatchNorm1d(4)).eval()
    compiled = lohe.compile(lambda x: model(x), replay=True)
    x = lohe.randn(8, 4)
    with lohe.no_grad():
        for _ in range(5):
            _same(compiled(x), model(x))
        assert lohe.compile_report(compiled).replay["replayed"] == 2
        model.train()
        state = lohe.get_rng_state()
        got = compiled(x)
        lohe.set_rng_state(state)
        _same(got, model(x))
        model.eval()
        _same(compiled(x), model(x))
        model[1].train()
        lohe.manual_seed(5)
        want = [model(x) for _ in range(6)]
        lohe.manual_seed(5)
        dropping, runs = counted(lambda x: model(x))
        for w in want:
            _same(dropping(x), w)
        assert runs.count == 3


def test_a_replay_draws_the_numbers_that_the_function_would_draw() -> None:
    noise = lohe.zeros(1)

    def function(x: lohe.Tensor) -> Any:
        y = F.dropout(x, 0.5) + lohe.rand(3) * lohe.randn(4, 3)
        z = lohe.empty(4, 3).bernoulli_(0.3) + lohe.randint(0, 9, (4, 3)) + lohe.zeros(0, 3).uniform_().sum()
        noise.uniform_()  # one number, of a tensor that is there before
        return y, z + lohe.bernoulli(x.sigmoid()), noise.clone()

    compiled, runs = counted(function)
    x = lohe.randn(4, 3)
    for call in range(9):
        if call == 6:  # seeds change, and something else draws in between
            lohe.manual_seed(11)
            lohe.rand(5)
        state = lohe.get_rng_state()
        want = function(x)
        after = lohe.get_rng_state()
        lohe.set_rng_state(state)
        for g, w in zip(compiled(x), want, strict=True):
            _same(g, w)
        assert lohe.equal(lohe.get_rng_state(), after)
    assert runs.count == 3


def test_how_much_is_drawn_may_not_change() -> None:
    function = lambda x, p: F.dropout(x, p) + lohe.rand(2)  # noqa: E731
    compiled, runs = counted(function)
    for p in (0.5, 0.5, 0.5, 0.5, 0.25, 0.25, 0.0, 0.0, 0.0, 0.0):
        state = lohe.get_rng_state()
        want = function(lohe.ones(2), p)
        lohe.set_rng_state(state)
        _same(compiled(lohe.ones(2), p), want)
    assert 5 < runs.count < 9


def test_running_statistics_are_written_by_a_replay() -> None:
    ours, plain = nn.BatchNorm1d(4), nn.BatchNorm1d(4)
    compiled = lohe.compile(ours, replay=True)
    with lohe.no_grad():
        for _ in range(7):
            x = lohe.randn(8, 4)
            _same(compiled(x), plain(x))
            for a, b in zip(ours.buffers(), plain.buffers(), strict=True):
                _same(a, b)
                assert a._version == b._version
    assert lohe.compile_report(compiled).replay["replayed"] == 4


def test_a_module_attribute_or_hook_is_seen() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.LeakyReLU(0.1)).eval()
    compiled = lohe.compile(model, replay=True)
    x = lohe.randn(8, 4)
    calls = []
    with lohe.no_grad():
        for _ in range(5):
            compiled(x)
        model[1].negative_slope = 0.5
        _same(compiled(x), model(x))
        model[0].register_forward_hook(lambda *_: calls.append(1))
        compiled(x)
        assert len(calls) == 1
        for _ in range(5):
            compiled(x)
    assert len(calls) == 6
    assert "hooks" in str(lohe.compile_report(compiled).replay["reasons"])


def test_an_optimizer_step_is_replayed_on_the_gradients_of_now() -> None:
    def train(step_of: Callable[[Any], Callable[[], Any]], set_to_none: bool) -> list[lohe.Tensor]:
        lohe.manual_seed(3)
        model = _mlp()
        optimizer = lohe.optim.SGD(model.parameters(), lr=0.1)
        step = step_of(optimizer)
        for _ in range(8):
            model(lohe.randn(4, 16)).square().mean().backward()
            step()
            optimizer.zero_grad(set_to_none=set_to_none)
        return [p.detach() for p in model.parameters()]

    for set_to_none in (True, False):
        tables = []

        def compiled(optimizer: Any, tables: list[Any] = tables) -> Callable[[], Any]:
            tables.append(lohe.compile(optimizer.step, replay=True))
            return tables[0]

        got, want = train(compiled, set_to_none), train(lambda o: o.step, set_to_none)
        for a, b in zip(got, want, strict=True):
            _same(a, b)


# --- conditions: modes


def test_modes_run_the_function_again() -> None:
    compiled, runs = ready(lambda x: x * 2, lohe.ones(3))
    with lohe.no_grad():
        compiled(lohe.ones(3))
    with lohe.inference_mode():
        assert compiled(lohe.ones(3)).is_inference()
    assert runs.count == 5
    lohe.set_default_dtype(lohe.float64)
    try:
        compiled(lohe.ones(3, dtype=lohe.float32))
        assert runs.count == 6
    finally:
        lohe.set_default_dtype(lohe.float32)
    with lohe.profiler.profile():
        compiled(lohe.ones(3))
    assert runs.count == 7
    with lohe.compiler.set_stance("force_eager"):
        compiled(lohe.ones(3))
    assert runs.count == 8
    compiled(lohe.ones(3))
    assert runs.count == 8


def test_a_replayed_function_may_be_called_while_recording() -> None:
    inner, runs = ready(lambda x: x * 2, lohe.ones(3))
    outer = lohe.compile(lambda x: inner(x) + 1)
    for _ in range(3):
        assert outer(lohe.ones(3)).tolist() == [3, 3, 3]
    assert runs.count == 6
    with lohe.compiler.lazy():
        y = inner(lohe.ones(3))
    assert y.tolist() == [2, 2, 2] and runs.count == 7
    both, _ = counted(lambda x: inner(x) + 1)
    for _ in range(5):
        assert both(lohe.ones(3)).tolist() == [3, 3, 3]
    assert lohe.compile_report(both).replay["replayed"] == 2
    mapped = lohe.vmap(inner)(lohe.ones(2, 3))
    assert mapped.tolist() == [[2, 2, 2], [2, 2, 2]]


def test_reset_forgets_replays() -> None:
    compiled, runs = ready(lambda x: x * 2, lohe.ones(3))
    lohe.compiler.reset()
    compiled(lohe.ones(3))
    assert runs.count == 4


# --- random programs


@pytest.mark.parametrize("chunk", range(8))
def test_random_programs_give_the_same_bits(chunk: int) -> None:
    assert sum(replayed.check_function(seed) for seed in range(chunk * 40, chunk * 40 + 40)) > 60


def test_empty_results_count_writes_as_eager_ones() -> None:
    def f(x: lohe.Tensor) -> list[lohe.Tensor]:
        empty = x.reshape(-1)[:0]
        return [(empty > 0).to(lohe.float64), empty.clone(), empty.double().mul_(2), x.clone()]

    compiled = lohe.compile(f, replay=True)
    x = lohe.randn(3, 4)
    for _ in range(4):
        assert [t._version for t in compiled(x)] == [t._version for t in f(x)]


def test_an_empty_tensor_that_is_kept_elsewhere_is_made_each_time() -> None:
    kept = type("Kept", (), {"tensors": []})  # replay does not look into classes

    def f(x: lohe.Tensor) -> lohe.Tensor:
        kept.tensors.append(x.reshape(-1)[:0].clone())
        return x * 2

    compiled = lohe.compile(f, replay=True)
    for _ in range(6):
        compiled(lohe.randn(2, 3))
    assert len(kept.tensors) == 6
