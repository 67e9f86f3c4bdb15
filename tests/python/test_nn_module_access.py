"""Calls and attributes of modules: the short way of ModuleBase means what the interpreter's long way means."""

import abc
import copy
import pickle
from typing import Generic, TypeVar

import lohe
import pytest
from lohe import nn


class Scale(nn.Module):
    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(lohe.tensor(2.0))
        self.register_buffer("offset", lohe.tensor(1.0))
        self.inner = nn.Identity()

    def forward(self, x, *, twice=False):
        y = self.inner(x) * self.factor + self.offset
        return y * 2 if twice else y


def test_members_are_found_in_their_registries():
    m = Scale()
    assert m.factor is m._parameters["factor"]
    assert m.offset is m._buffers["offset"]
    assert m.inner is m._modules["inner"]
    m.register_parameter("absent", None)
    assert m.absent is None


def test_an_attribute_of_the_instance_hides_a_member():
    m = Scale()
    m.__dict__["factor"] = "plain"
    assert m.factor == "plain"


def test_a_missing_name_is_named():
    with pytest.raises(AttributeError, match="'Scale' object has no attribute 'fctor'") as caught:
        _ = Scale().fctor
    assert caught.value.name == "fctor"
    assert isinstance(caught.value.obj, Scale)
    assert not hasattr(Scale(), "nothing")
    assert getattr(Scale(), "nothing", 5) == 5


def test_use_before_init_says_what_is_missing():
    class Early(nn.Module):
        def __init__(self):
            pass

    with pytest.raises(AttributeError, match="_forward_hooks"):
        Early()(1)
    with pytest.raises(AttributeError, match="weight"):
        _ = Early().weight


def test_own_getattr_comes_first_and_may_ask_above():
    asked = []

    class Wrapper(Scale):
        def __getattr__(self, name):
            asked.append(name)
            try:
                return super().__getattr__(name)
            except AttributeError:
                if name != "other":
                    raise
                return "elsewhere"

    m = Wrapper()
    asked.clear()
    assert m.factor is m._parameters["factor"]
    assert m.other == "elsewhere"
    assert asked == ["factor", "other"]
    assert m(lohe.tensor(3.0)).item() == 7.0


def test_getattr_given_to_a_class_later_is_used_and_its_loss_noticed():
    class Late(Scale):
        pass

    class Below(Late):
        pass

    m = Below()
    assert m.factor.item() == 2.0
    Late.__getattr__ = lambda self, name: "late"
    assert m.factor == "late"
    del Late.__getattr__
    assert m.factor.item() == 2.0


def test_own_getattribute_is_used():
    class Watched(Scale):
        def __getattribute__(self, name):
            if name == "secret":
                return 42
            return super().__getattribute__(name)

    m = Watched()
    assert m.secret == 42 and m.factor.item() == 2.0
    assert m(lohe.tensor(1.0)).item() == 3.0


def test_an_attribute_error_of_a_property_becomes_the_missing_attribute():
    class Broken(Scale):
        @property
        def size(self):
            return self.not_there

        @property
        def ratio(self):
            return 1 / 0

    with pytest.raises(AttributeError, match="no attribute 'size'"):
        _ = Broken().size
    with pytest.raises(ZeroDivisionError):
        _ = Broken().ratio


def test_forward_may_be_anything_callable():
    x = lohe.tensor(1.0)
    m = Scale()
    m.forward = lambda value: "instance"
    assert m(x) == "instance"
    del m.forward
    assert m(x).item() == 3.0

    class Static(nn.Module):
        @staticmethod
        def forward(value):
            return value

    class OfClass(nn.Module):
        @classmethod
        def forward(cls, value):
            return cls

    class Computed(nn.Module):
        @property
        def forward(self):
            return lambda value: "property"

    assert Static()(7) == 7
    assert OfClass()(7) is OfClass
    assert Computed()(7) == "property"
    with pytest.raises(NotImplementedError, match='missing the required "forward"'):
        nn.Module()(1)


def test_arguments_arrive_as_given():
    class Echo(nn.Module):
        def forward(self, *args, **kwargs):
            return args, kwargs

    assert Echo()() == ((), {})
    assert Echo()(*range(20), a=1, b=2) == (tuple(range(20)), {"a": 1, "b": 2})
    assert Scale()(lohe.tensor(1.0), twice=True).item() == 6.0
    assert Echo().__call__(1, k=2) == ((1,), {"k": 2})
    with pytest.raises(TypeError, match="forward"):
        Scale()(1, 2, 3)


def test_call_can_be_overridden_and_reached_from_below():
    class Counted(Scale):
        calls = 0

        def __call__(self, *args, **kwargs):
            Counted.calls += 1
            return super().__call__(*args, **kwargs)

    assert Counted()(lohe.tensor(1.0)).item() == 3.0
    assert Counted.calls == 1


def test_hooks_of_the_module_and_of_all_modules_run():
    m, log = Scale(), []
    handles = [
        m.register_forward_pre_hook(lambda module, args: log.append("pre")),
        m.register_forward_hook(lambda module, args, output: log.append("post")),
        nn.modules.module.register_module_forward_hook(lambda module, args, output: log.append(type(module).__name__)),
    ]
    m(lohe.tensor(1.0))
    assert log == ["pre", "Identity", "Scale", "post"]
    for handle in handles:
        handle.remove()
    m(lohe.tensor(1.0))
    assert len(log) == 4


def test_a_compiled_call_is_preferred():
    m = Scale()
    m._compiled_call_impl = lambda *args, **kwargs: ("compiled", args, kwargs)
    assert m(1, k=2) == ("compiled", (1,), {"k": 2})
    assert m._call_impl(lohe.tensor(1.0)).item() == 3.0


def test_modules_mix_with_other_bases():
    T = TypeVar("T")

    class Abstract(nn.Module, abc.ABC):
        @abc.abstractmethod
        def size(self): ...

    class Typed(Generic[T], nn.Module):
        def forward(self, x):
            return x

    class Noted:
        def __init_subclass__(cls, note=None, **kwargs):
            super().__init_subclass__(**kwargs)
            cls.note = note

    class Marked(Noted, Scale, note="here"):
        pass

    with pytest.raises(TypeError, match="abstract"):
        Abstract()
    assert Typed[int]()(3) == 3
    assert Marked.note == "here" and Marked().factor.item() == 2.0
    with pytest.raises(TypeError, match="keyword"):
        type("Wrong", (Scale,), {}, unknown=1)


def test_modules_are_copied_and_pickled():
    m = Scale()
    for other in (copy.deepcopy(m), copy.copy(m), pickle.loads(pickle.dumps(m))):
        assert type(other) is Scale
        assert other(lohe.tensor(1.0)).item() == 3.0
