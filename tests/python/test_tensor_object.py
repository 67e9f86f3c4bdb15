"""One Python object a tensor, and its life."""

import copy
import gc
import pickle
import weakref

import lohe
import pytest


class Sub(lohe.Tensor):
    pass


class Slotted(lohe.Tensor):
    __slots__ = ("mark",)


def test_attributes_survive_while_only_cpp_holds_the_tensor():
    x = lohe.tensor([1.0], requires_grad=True)
    x.grad = lohe.ones(1)
    x.grad.note = "kept"
    gc.collect()
    assert x.grad.note == "kept" and x.grad is x.grad


def test_weak_reference_survives_while_only_cpp_holds_the_tensor():
    x = lohe.tensor([1.0], requires_grad=True)
    g = lohe.ones(1)
    x.grad = g
    ref = weakref.ref(g)
    del g
    assert ref() is x.grad
    x.grad = None
    gc.collect()
    assert ref() is None


def test_object_brought_back_by_a_weak_reference_outlives_its_owner():
    x = lohe.tensor([1.0], requires_grad=True)
    g = lohe.tensor([4.0])
    x.grad = g
    ref = weakref.ref(g)
    del g
    again = ref()
    x.grad = None
    assert again.tolist() == [4.0]


@pytest.mark.parametrize("cls", [lohe.Tensor, Sub, Slotted])
def test_cycles_are_collected(cls):
    t = lohe.ones(3).as_subclass(cls) if cls is not lohe.Tensor else lohe.ones(3)
    t.me = t
    ref = weakref.ref(t)
    del t
    gc.collect()
    assert ref() is None


def test_slots_are_freed():
    class Payload:
        pass

    payload = Payload()
    ref = weakref.ref(payload)
    t = lohe.ones(1).as_subclass(Slotted)
    t.mark = payload
    del payload, t
    gc.collect()
    assert ref() is None


def test_finalizer_of_a_subclass_runs_once():
    seen = []

    class Final(lohe.Tensor):
        def __del__(self):
            seen.append(1)

    t = lohe.ones(1).as_subclass(Final)
    del t
    gc.collect()
    assert seen == [1]


def test_results_of_subclass_calls_have_its_class():
    s = lohe.ones(2).as_subclass(Sub)
    assert type(s + 1) is Sub and type(1 + s) is Sub and type(s[0]) is Sub
    assert all(type(part) is Sub for part in s.unbind(0))


def test_torch_function_gets_the_call():
    calls = []

    class Logged(lohe.Tensor):
        @classmethod
        def __torch_function__(cls, func, types, args=(), kwargs=None):
            calls.append((func.__name__, types))
            return super().__torch_function__(func, types, args, kwargs or {})

    t = lohe.ones(2).as_subclass(Logged)
    lohe.add(t, 1)
    t.mul(2)
    t - 1
    assert [name for name, _ in calls] == ["add", "mul", "sub"] and calls[0][1] == (Logged,)


def test_duck_typed_object_takes_the_call():
    class Duck:
        @classmethod
        def __torch_function__(cls, func, types, args=(), kwargs=None):
            return "quack", func

    assert lohe.add(Duck(), lohe.ones(1)) == ("quack", lohe.add)
    assert (lohe.ones(1) + Duck())[0] == "quack"


def test_disabled_protocol_gives_plain_tensors():
    p = lohe.Tensor._make_subclass(Sub, lohe.ones(2), True)
    assert p.requires_grad and p.is_leaf and type(p) is Sub
    with lohe._C.DisableTorchFunctionSubclass():
        assert type(p + 1) is lohe.Tensor


def test_deepcopy_and_pickle():
    x = lohe.tensor([1.0, 2.0], requires_grad=True)
    x.note = [1]
    for y in (copy.deepcopy(x), pickle.loads(pickle.dumps(x))):
        assert y.tolist() == [1.0, 2.0] and y.requires_grad and y.note == [1] and y.data_ptr() != x.data_ptr()


def test_deepcopy_keeps_shared_memory_shared():
    base = lohe.zeros(4)
    a, b = copy.deepcopy((base, base.view(2, 2)))
    a.fill_(3)
    assert b.tolist() == [[3.0, 3.0], [3.0, 3.0]] and base.tolist() == [0.0] * 4


def test_storage_identity_and_bytes():
    t = lohe.ones(2, 2)
    assert t.untyped_storage() is t.view(4).untyped_storage() and t.untyped_storage().nbytes() == 16


def test_functions_pickle_by_name():
    assert pickle.loads(pickle.dumps(lohe.add)) is lohe.add
    assert pickle.loads(pickle.dumps(lohe.float32)) is lohe.float32
    assert pickle.loads(pickle.dumps(lohe.Size([2, 3]))) == lohe.Size([2, 3])


def test_size_arithmetic():
    s = lohe.Size([2, 3])
    assert s.numel() == 6 and type(s[:1]) is lohe.Size and type(s + (4,)) is lohe.Size and repr(s) == "torch.Size([2, 3])"
