"""Python arguments by schema: positions, keywords, aliases, numbers, errors."""

import lohe
import numpy as np
import pytest


def test_self_is_called_input():
    assert lohe.add(input=lohe.ones(2), other=1).tolist() == [2.0, 2.0]


def test_axis_and_keepdims():
    x = lohe.ones(2, 3)
    assert x.sum(axis=1, keepdims=True).shape == (2, 1)


def test_sizes_as_sequence_or_spread():
    x = lohe.zeros(6)
    for y in (x.view(2, 3), x.view((2, 3)), x.view([2, 3]), x.view(lohe.Size([2, 3])), x.view(np.int64(2), lohe.tensor(3))):
        assert y.shape == (2, 3)
    assert lohe.zeros(2, 3).shape == lohe.zeros((2, 3)).shape == lohe.zeros(size=(2, 3)).shape


@pytest.mark.parametrize("number", [2, 2.0, np.float32(2), np.int64(2), np.float64(2), lohe.tensor(2)])
def test_numbers_of_every_kind(number):
    x = lohe.ones(2)
    assert (x * number).tolist() == (number * x if not isinstance(number, np.generic) else x * number).tolist() == [2.0, 2.0]


def test_python_types_stand_for_dtypes():
    assert lohe.zeros(1, dtype=int).dtype is lohe.int64 and lohe.zeros(1, dtype=bool).dtype is lohe.bool
    assert lohe.zeros(1, dtype=float).dtype is lohe.float32


def test_out_argument_gives_the_same_object():
    out = lohe.empty(2)
    assert lohe.add(lohe.ones(2), 1, out=out) is out and out.tolist() == [2.0, 2.0]


def test_factory_takes_requires_grad():
    assert lohe.zeros(2, requires_grad=True).requires_grad and lohe.ones(2, device="cpu", pin_memory=False).is_leaf


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: lohe.add(lohe.ones(2)), 'missing 1 required positional arguments: "other"'),
        (lambda: lohe.add(lohe.ones(2), lohe.ones(2), alfa=1), "did you mean 'alpha'"),
        (lambda: lohe.add(lohe.ones(2), lohe.ones(2), input=1), "multiple values for argument 'input'"),
        (lambda: lohe.neg(1), "argument 'input' (position 1) must be Tensor, not int"),
        (lambda: lohe.neg(lohe.ones(1), 1), "takes 1 positional argument but 2 were given"),
        (lambda: lohe.add(1, 2), "must be Tensor, not int"),
        (lambda: lohe.ones(2, "a"), "must be tuple of ints"),
        (lambda: lohe.ones(2) + "a", "unsupported operand"),
        (lambda: lohe.Tensor.add(1, 2), "needs a Tensor"),
    ],
)
def test_wrong_arguments_raise_type_errors(call, text):
    with pytest.raises(TypeError) as caught:
        call()
    assert text in str(caught.value)


def test_missing_op_is_named_when_it_is_called():
    with pytest.raises(NotImplementedError, match="no_such_op"):
        lohe._C.ops.no_such_op(1)


@pytest.mark.parametrize("dtype", ["int16", "int64", "bool", "complex64"])
@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_a_dtype_that_an_op_does_not_compute_in_is_refused_when_it_is_asked_for(name: str, dtype: str) -> None:
    with pytest.raises(NotImplementedError, match=f'"{name}" not implemented for'):
        getattr(lohe.randn(2, 3), name)(0, dtype=getattr(lohe, dtype))
    assert getattr(lohe.arange(3), name)(0, dtype=lohe.float32).dtype == lohe.float32
