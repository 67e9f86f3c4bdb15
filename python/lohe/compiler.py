"""compile(): records what a function does and runs it as fused programs, by default without changing a bit of any result.

Every call runs the function's Python again; what is saved is the work on memory, which is written down, compiled once
for each kind of trace, and carried out when the function returns or when somebody looks at a value. With replay=True
the Python is left out, too, where what it did last time can be done again.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any, TypeVar, overload

from lohe import _C
from lohe._compile_report import CompileReport, compile_report
from lohe._modes import _BlockOrDecorator
from lohe.nn.modules.module import Module

__all__ = [
    "CompileReport",
    "allow_in_graph",
    "assume_constant_result",
    "compile",
    "compile_report",
    "cudagraph_mark_step_begin",
    "disable",
    "is_compiling",
    "is_dynamo_compiling",
    "is_exporting",
    "lazy",
    "list_backends",
    "reset",
    "set_stance",
]

F = TypeVar("F", bound=Callable[..., Any])

_BACKENDS = ("inductor", "eager")
_MODES = ("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")


@contextlib.contextmanager
def lazy(*, exact: bool = True) -> Iterator[None]:
    """Records the work of the block; what is in it is fused as inside a compiled function.

    ``exact=False`` allows rewrites that round differently, as compile()'s option does.
    """
    _C._record_begin(0, exact)
    try:
        yield
    finally:
        _C._record_end()


def _recorded(function: Callable[..., Any], exact: bool) -> Callable[..., Any]:
    begin, end, site = _C._record_begin, _C._record_end, _C._record_site()

    @functools.wraps(function)
    def compiled(*args: Any, **kwargs: Any) -> Any:
        begin(site, exact)
        try:
            return function(*args, **kwargs)
        finally:
            end()

    compiled._lohe_site = site  # type: ignore[attr-defined]
    return compiled


def _replayed(function: Callable[..., Any], name: str, exact: bool) -> Callable[..., Any]:
    site = _C._record_site()
    table = _C.ReplayTable(function, name, site, exact)

    @functools.wraps(function)
    def compiled(*args: Any, **kwargs: Any) -> Any:
        return table(*args, **kwargs)

    compiled._lohe_site = site  # type: ignore[attr-defined]
    compiled._lohe_replay = table  # type: ignore[attr-defined]
    return compiled


class OptimizedModule(Module):
    """What compile() makes of a module: the same parameters and state under the same names, its calls recorded."""

    _orig_mod: Module

    def __init__(self, module: Module, call: Callable[..., Any]) -> None:
        super().__init__()
        self._orig_mod = module
        object.__setattr__(self, "_compiled_call", call)
        object.__setattr__(self, "_lohe_site", call._lohe_site)  # type: ignore[attr-defined]
        object.__setattr__(self, "_lohe_replay", getattr(call, "_lohe_replay", None))
        self.training = module.training

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self._compiled_call(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        if name == "_orig_mod":
            return self.__dict__["_modules"]["_orig_mod"]
        return getattr(self._orig_mod, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in ("_orig_mod", "training") or "_modules" not in self.__dict__ or "_orig_mod" not in self.__dict__["_modules"]:
            super().__setattr__(name, value)
            if name == "training" and "_orig_mod" in self.__dict__.get("_modules", {}):
                self._orig_mod.training = value
        else:
            setattr(self._orig_mod, name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self._orig_mod, name)

    def __len__(self) -> int:
        return len(self._orig_mod)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *dir(self._orig_mod)})


def _check(backend: Any, mode: Any, options: Any) -> bool:
    """Whether the arguments ask for recording at all."""
    if callable(backend):
        raise NotImplementedError(
            "compile(backend=...) takes the name of a backend; functions that take FX graphs are not supported, because no "
            "FX graph is made"
        )
    if backend not in _BACKENDS:
        raise RuntimeError(f"Invalid backend: {backend!r}; choose one of {', '.join(map(repr, _BACKENDS))}")
    if mode is not None and mode not in _MODES:
        raise RuntimeError(f"Unrecognized mode={mode}, should be one of: {', '.join(_MODES)}")
    if mode is not None and options is not None:
        raise RuntimeError("Either mode or options can be specified, but both can't be specified at the same time.")
    for name, value in (options or {}).items():
        if name != "exact":
            raise RuntimeError(f"Unexpected optimization option {name}, known options are ['exact']")
        if not isinstance(value, bool):
            raise RuntimeError(f"Unexpected type of attr {name}, got {type(value).__name__} should be bool")
    return bool(backend != "eager")


@overload
def compile(
    model: F,
    *,
    fullgraph: bool = ...,
    dynamic: bool | None = ...,
    backend: str = ...,
    mode: str | None = ...,
    options: dict[str, Any] | None = ...,
    disable: bool = ...,
    replay: bool = ...,
) -> F: ...
@overload
def compile(
    model: None = ...,
    *,
    fullgraph: bool = ...,
    dynamic: bool | None = ...,
    backend: str = ...,
    mode: str | None = ...,
    options: dict[str, Any] | None = ...,
    disable: bool = ...,
    replay: bool = ...,
) -> Callable[[F], F]: ...
def compile(
    model: Any = None,
    *,
    fullgraph: bool = False,
    dynamic: bool | None = None,
    backend: str = "inductor",
    mode: str | None = None,
    options: dict[str, Any] | None = None,
    disable: bool = False,
    replay: bool = False,
) -> Any:
    """Makes ``model``, a function or a module, run as fused programs.

    Results have the bits that they have without it. Any Python is allowed inside: what reads a value runs what was
    recorded so far. ``options={"exact": False}`` allows rewrites that round differently, each within a bound that
    docs/compile.md states; where compiled functions nest, the outermost one's setting holds. ``fullgraph``, ``dynamic``
    and ``mode`` are accepted and change nothing, because every call records again. ``backend='eager'`` and
    ``disable=True`` give ``model`` back without recording.

    ``replay=True`` leaves the function's Python out of a call, and runs its program directly, where two calls before it
    did the same and all that can be seen of what they depended on is as it was: arguments, modes, the parameters,
    buffers and other tensors that were found, the modules that were called. Its user vouches for the rest of the
    Python: that it depends on nothing else that changes, and that what it does besides computing its results (printing,
    counting) may be left out. A call that fits nothing runs as without it, and so does every call of a function that
    cannot be replayed; ``compile_report(f).replay`` says why. See docs/compile.md.

    Raises RuntimeError for an unknown backend, mode or option or an option's wrong type, TypeError for what cannot be called.
    """
    if model is None:
        return lambda m: compile(
            m,
            fullgraph=fullgraph,
            dynamic=dynamic,
            backend=backend,
            mode=mode,
            options=options,
            disable=disable,
            replay=replay,
        )
    if not callable(model):
        raise TypeError(f"compile: expected a function or a module, got {type(model).__name__}")
    if not _check(backend, mode, options) or disable:
        return model
    exact = (options or {}).get("exact", True)
    if isinstance(model, Module):
        call = _replayed(model.__call__, type(model).__name__, exact) if replay else _recorded(model.__call__, exact)
        return OptimizedModule(model, call)
    if isinstance(model, type):
        raise TypeError(f"compile: {model.__name__} is a class; compile its instances or its methods")
    if replay:
        return _replayed(model, getattr(model, "__qualname__", type(model).__name__), exact)
    return _recorded(model, exact)


def disable(fn: Any = None, recursive: bool = True, *, reason: str | None = None) -> Any:
    """A function whose work is not recorded, also where it is called from a compiled one."""
    if fn is None:
        return lambda f: disable(f, recursive, reason=reason)
    if not recursive:
        raise NotImplementedError("disable(recursive=False) is not supported: what a plain function calls is plain, too")
    if isinstance(fn, Module):
        fn.forward = disable(fn.forward)
        return fn

    @functools.wraps(fn)
    def plain(*args: Any, **kwargs: Any) -> Any:
        paused = _C._record_pause()
        try:
            return fn(*args, **kwargs)
        finally:
            _C._record_resume(paused)

    return plain


def is_compiling() -> bool:
    """Whether work is being recorded on this thread."""
    return _C._is_recording()


def is_dynamo_compiling() -> bool:
    """As is_compiling()."""
    return _C._is_recording()


def is_exporting() -> bool:
    """False: nothing is exported by recording."""
    return False


def reset() -> None:
    """Forgets all compiled programs."""
    _C._record_reset()


def list_backends(exclude_tags: Any = ("debug", "experimental")) -> list[str]:
    """What compile() takes as ``backend``."""
    return list(_BACKENDS)


def allow_in_graph(fn: F) -> F:
    """``fn`` itself: any function may be called in a compiled one."""
    return fn


def assume_constant_result(fn: F) -> F:
    """``fn`` itself: it is called again each time."""
    return fn


def cudagraph_mark_step_begin() -> None:
    """Nothing: there are no CUDA graphs."""


class set_stance(_BlockOrDecorator):  # noqa: N801
    """Chooses what compiled functions do, from now on, for a block or for a function.

    'default' and 'eager_then_compile' are what compile() does anyway: the first occurrence of a trace runs eagerly.
    'force_eager' records nothing. Others raise NotImplementedError.
    """

    def __init__(self, stance: str = "default", *, skip_guard_eval_unsafe: bool = False, force_backend: Any = None) -> None:
        if stance not in ("default", "eager_then_compile", "force_eager"):
            raise NotImplementedError(
                f"set_stance({stance!r}) is not supported; choose 'default', 'eager_then_compile' or 'force_eager'"
            )
        if force_backend is not None:
            raise NotImplementedError("set_stance(force_backend=...) is not supported: there is one backend")
        self._stance = stance
        self._before = _C._record_allow(stance != "force_eager")

    def clone(self) -> set_stance:
        return set_stance(self._stance)

    def __call__(self, function: Callable) -> Callable:
        self.__exit__()  # a decorator holds while the function runs, not before
        return super().__call__(function)

    def __enter__(self) -> None:
        _C._record_allow(self._stance != "force_eager")

    def __exit__(self, *exc_info: object) -> None:
        _C._record_allow(self._before)
