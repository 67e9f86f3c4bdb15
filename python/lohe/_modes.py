"""Modes that hold for a block or a function: gradient recording and inference, and the subclass protocol."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from lohe import _C

__all__ = ["enable_grad", "inference_mode", "no_grad", "set_grad_enabled", "set_multithreading_enabled"]


class _BlockOrDecorator:
    """A context manager that may also decorate a function, a generator function or a class's methods."""

    def clone(self) -> Any:
        return type(self)()

    def __enter__(self) -> Any:
        raise NotImplementedError

    def __exit__(self, *exc_info: object) -> None:
        raise NotImplementedError

    def __call__(self, function: Callable) -> Callable:
        if inspect.isclass(function):
            raise TypeError(f"{type(self).__name__}: decorate the methods of {function.__name__}, not the class itself")
        if inspect.isgeneratorfunction(function):

            @functools.wraps(function)
            def generator(*args: Any, **kwargs: Any) -> Any:
                # The mode holds while the generator runs, not while its caller does.
                inner = function(*args, **kwargs)
                send: Any = None
                failed: BaseException | None = None
                try:
                    while True:
                        with self.clone():
                            value = inner.send(send) if failed is None else inner.throw(failed)
                        failed = None
                        try:
                            send = yield value
                        except GeneratorExit:
                            with self.clone():
                                inner.close()
                            raise
                        except BaseException as error:
                            failed = error
                except StopIteration as stop:
                    return stop.value

            return generator

        @functools.wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            with self.clone():
                return function(*args, **kwargs)

        return wrapped


class _BareDecorator(_BlockOrDecorator):
    """Also usable without parentheses: ``@no_grad``."""

    def __new__(cls, function: Callable | None = None) -> Any:
        self = super().__new__(cls)
        return self if function is None else cls.__call__(self, function)


class no_grad(_BareDecorator):  # noqa: N801
    """Calls inside are not recorded for backward."""

    def __enter__(self) -> None:
        self.saved = _C._grad_mode()
        _C._set_grad_enabled(False)

    def __exit__(self, *exc_info: object) -> None:
        _C._set_grad_enabled(self.saved)


class enable_grad(_BareDecorator):  # noqa: N801
    """Calls inside are recorded for backward, also within ``no_grad``."""

    def __enter__(self) -> None:
        self.saved = _C._grad_mode()
        _C._set_grad_enabled(True)

    def __exit__(self, *exc_info: object) -> None:
        _C._set_grad_enabled(self.saved)


class set_grad_enabled(_BlockOrDecorator):  # noqa: N801
    """Sets recording at once; as a context manager, until the end of the block."""

    def __init__(self, mode: bool) -> None:
        self.saved = _C._grad_mode()
        self.mode = mode
        _C._set_grad_enabled(mode)

    def __call__(self, function: Callable) -> Callable:
        _C._set_grad_enabled(self.saved)
        return super().__call__(function)

    def __enter__(self) -> None:
        _C._set_grad_enabled(self.mode)

    def __exit__(self, *exc_info: object) -> None:
        _C._set_grad_enabled(self.saved)

    def __str__(self) -> str:
        return f"torch.autograd.grad_mode.set_grad_enabled(mode={self.mode})"

    def clone(self) -> set_grad_enabled:
        return type(self)(self.mode)


class inference_mode(_BlockOrDecorator):  # noqa: N801
    """Calls inside are not recorded, and their results can never take part in a recorded computation."""

    def __new__(cls, mode: Any = True) -> Any:
        if isinstance(mode, bool):
            return super().__new__(cls)
        return cls()(mode)

    def __init__(self, mode: bool = True) -> None:
        self.mode = mode

    def __enter__(self) -> None:
        self.saved = _C.is_inference_mode_enabled()
        _C._set_inference_mode(self.mode)

    def __exit__(self, *exc_info: object) -> None:
        _C._set_inference_mode(self.saved)

    def clone(self) -> inference_mode:
        return type(self)(self.mode)


class set_multithreading_enabled(_BlockOrDecorator):  # noqa: N801
    """Accepted for compatibility: backward uses the one pool of threads whatever is set here."""

    def __init__(self, mode: bool) -> None:
        self.mode = mode

    def __enter__(self) -> None:
        pass

    def __exit__(self, *exc_info: object) -> None:
        pass

    def clone(self) -> set_multithreading_enabled:
        return type(self)(self.mode)


class DisableTorchFunctionSubclass:
    """Inside, tensor subclasses are treated as plain tensors."""

    def __enter__(self) -> None:
        _C._disable_torch_function()

    def __exit__(self, *exc_info: object) -> None:
        _C._enable_torch_function()


setattr(_C, "DisableTorchFunctionSubclass", DisableTorchFunctionSubclass)  # noqa: B010 - the extension shows it too
setattr(_C, "DisableTorchFunction", DisableTorchFunctionSubclass)  # noqa: B010
