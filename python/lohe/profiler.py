"""Where time and memory go: ops, nodes of the backward pass, kernels of compiled programs, and ranges of one's own.

::

    with lohe.profiler.profile(record_shapes=True) as prof:
        with lohe.profiler.record_function("forward"):
            model(inputs)
    print(prof.key_averages().table(sort_by="self_cpu_time_total", row_limit=10))
    prof.export_chrome_trace("trace.json")  # for chrome://tracing or ui.perfetto.dev

The thread that starts a profile is measured, with the backward passes that it runs. While nothing is profiled nothing is
measured, and no op is slower for it.
"""

from __future__ import annotations

import enum
import functools
import gzip
import json
import os
import socket
import time
from collections.abc import Callable, Iterable
from typing import Any

from lohe import _C
from lohe._files import write_whole
from lohe._profile_events import EventList, FunctionEvent, FunctionEventAvg

__all__ = [
    "EventList",
    "FunctionEvent",
    "FunctionEventAvg",
    "ProfilerAction",
    "ProfilerActivity",
    "profile",
    "record_function",
    "schedule",
    "supported_activities",
    "tensorboard_trace_handler",
]


class ProfilerActivity(enum.Enum):
    """What can be measured; this build knows the CPU."""

    CPU = 0
    XPU = 1
    MTIA = 2
    CUDA = 3
    HPU = 4
    PrivateUse1 = 5


def supported_activities() -> set[ProfilerActivity]:
    """The activities that ``profile`` accepts without a warning."""
    return {ProfilerActivity.CPU}


class ProfilerAction(enum.Enum):
    """What a profile does in a step: see ``schedule``."""

    NONE = 0
    WARMUP = 1
    RECORD = 2
    RECORD_AND_SAVE = 3


def schedule(
    *, wait: int, warmup: int, active: int, repeat: int = 0, skip_first: int = 0, skip_first_wait: int = 0
) -> Callable[[int], ProfilerAction]:
    """Steps in cycles: ``wait`` without measuring, ``warmup`` likewise, ``active`` measured and handed over together.

    ``skip_first`` steps come before the first cycle, ``repeat`` cycles are done (0: without end), and with
    ``skip_first_wait`` the first cycle does not wait. Raises AssertionError for negative numbers and for ``active=0``.
    """
    assert wait >= 0 and warmup >= 0 and active > 0 and repeat >= 0 and skip_first >= 0, (
        f"schedule: expected numbers of steps of at least 0, and at least 1 active, got wait={wait}, warmup={warmup}, "
        f"active={active}, repeat={repeat}, skip_first={skip_first}"
    )

    def action(step: int) -> ProfilerAction:
        assert step >= 0
        if step < skip_first:
            return ProfilerAction.NONE
        step -= skip_first
        if skip_first_wait != 0:
            step += wait
        cycle = wait + warmup + active
        if repeat > 0 and step // cycle >= repeat:
            return ProfilerAction.NONE
        at = step % cycle
        if at < wait:
            return ProfilerAction.NONE
        if at < wait + warmup:
            return ProfilerAction.WARMUP
        return ProfilerAction.RECORD if at < cycle - 1 else ProfilerAction.RECORD_AND_SAVE

    return action


def tensorboard_trace_handler(
    dir_name: str, worker_name: str | None = None, use_gzip: bool = False
) -> Callable[[profile], None]:
    """For ``on_trace_ready``: writes each trace into a file of its own in ``dir_name``."""
    os.makedirs(dir_name, exist_ok=True)

    def handler(prof: profile) -> None:
        worker = worker_name or f"{socket.gethostname()}_{os.getpid()}"
        name = f"{worker}.{time.time_ns()}.pt.trace.json" + (".gz" if use_gzip else "")
        prof.export_chrome_trace(os.path.join(dir_name, name))

    return handler


class record_function:
    """A named range, as a block or a decorator; it costs a call while nothing is profiled."""

    def __init__(self, name: str, args: str | None = None) -> None:
        self.name = name
        self.args = args
        self._numbers: list[int] = []

    def __enter__(self) -> record_function:
        self._numbers.append(
            _C._profile_enter(self.name if self.args is None else f"{self.name}({self.args})")
        )
        return self

    def __exit__(self, *exc_info: object) -> None:
        _C._profile_leave(self._numbers.pop())

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            with record_function(self.name, self.args):
                return function(*args, **kwargs)

        return wrapped


class profile:
    """Measures a block, or with ``schedule`` some of its steps, which ``step()`` tells apart.

    ``activities``: the CPU is the only one here. ``on_trace_ready(prof)`` runs whenever events are complete: at the end of
    every cycle of ``schedule``, or of the block. ``record_shapes`` keeps the sizes of tensor arguments, ``profile_memory``
    the bytes that each event allocated less those that it freed. ``acc_events`` keeps the events of earlier cycles too.
    Raises NotImplementedError for ``with_stack``, ``with_flops`` and ``with_modules``, RuntimeError where the thread has a
    profile already.
    """

    def __init__(
        self,
        *,
        activities: Iterable[ProfilerActivity] | None = None,
        schedule: Callable[[int], ProfilerAction] | None = None,
        on_trace_ready: Callable[..., Any] | None = None,
        record_shapes: bool = False,
        profile_memory: bool = False,
        with_stack: bool = False,
        with_flops: bool = False,
        with_modules: bool = False,
        experimental_config: Any = None,
        execution_trace_observer: Any = None,
        acc_events: bool = False,
        use_cuda: bool | None = None,
        custom_trace_id_callback: Callable[[], str] | None = None,
    ) -> None:
        for name, given in (
            ("with_stack", with_stack),
            ("with_flops", with_flops),
            ("with_modules", with_modules),
        ):
            if given:
                raise NotImplementedError(f"profiler.profile: {name}=True is not supported; leave it out")
        for name, option in (
            ("experimental_config", experimental_config),
            ("execution_trace_observer", execution_trace_observer),
        ):
            if option is not None:
                raise NotImplementedError(f"profiler.profile: {name} is not supported; leave it out")
        self.activities = supported_activities() if activities is None else set(activities)
        for activity in self.activities:
            if not isinstance(activity, ProfilerActivity):
                raise TypeError(
                    f"profiler.profile: activities are of type ProfilerActivity, got {type(activity).__name__}"
                )
        self.record_shapes, self.profile_memory, self.acc_events = record_shapes, profile_memory, acc_events
        self.schedule = schedule or (lambda step: ProfilerAction.RECORD)
        self.on_trace_ready = on_trace_ready
        self.step_num = 0
        self.current_action = self.schedule(0)
        self._by_steps = schedule is not None
        self._recording = False
        self._step_range: int | None = None
        self._events = EventList([])
        self._metadata: dict[str, Any] = {}

    # ---- running ----

    def start(self) -> None:
        """Begins the first step."""
        self._follow(self.current_action)

    def stop(self) -> None:
        """Ends the last step."""
        if self._recording:
            self._collect()
            self._ready()

    def step(self) -> None:
        """Ends a step and begins the next."""
        before = self.current_action
        self._end_step()
        self.step_num += 1
        self.current_action = self.schedule(self.step_num)
        if self._recording and (
            before is ProfilerAction.RECORD_AND_SAVE or not self._records(self.current_action)
        ):
            self._collect()
            self._ready()
        self._follow(self.current_action)

    def __enter__(self) -> profile:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    @staticmethod
    def _records(action: ProfilerAction) -> bool:
        return action in (ProfilerAction.RECORD, ProfilerAction.RECORD_AND_SAVE)

    def _follow(self, action: ProfilerAction) -> None:
        if not self._records(action):
            return
        if not self._recording:
            _C._profile_begin(self.record_shapes, self.profile_memory)
            self._recording = True
        if self._by_steps:
            self._step_range = _C._profile_enter(f"ProfilerStep#{self.step_num}")

    def _end_step(self) -> None:
        if self._step_range is not None:
            _C._profile_leave(self._step_range)
            self._step_range = None

    def _collect(self) -> None:
        self._end_step()
        self._recording = False
        thread, rows = _C._profile_end()
        found = EventList.from_rows(thread, rows)
        self._events = EventList([*self._events, *found]) if self.acc_events else found

    def _ready(self) -> None:
        if self.on_trace_ready is not None:
            self.on_trace_ready(self)

    # ---- results ----

    def events(self) -> EventList:
        """All events, in the order of their beginnings."""
        return self._events

    def key_averages(
        self,
        group_by_input_shape: bool = False,
        group_by_stack_n: int = 0,
        group_by_overload_name: bool = False,
    ) -> EventList:
        """Events of one name (and one set of input shapes) together."""
        return self._events.key_averages(group_by_input_shape)

    def export_chrome_trace(self, path: str | os.PathLike[str]) -> None:
        """Writes the events for chrome://tracing or ui.perfetto.dev; compressed if the name ends in ``.gz``."""
        data = json.dumps(self._events.chrome_trace(self._metadata)).encode()
        write_whole(path, gzip.compress(data) if os.fspath(path).endswith(".gz") else data)

    def add_metadata(self, key: str, value: str) -> None:
        """A text that the exported trace carries."""
        self._metadata[key] = value

    def add_metadata_json(self, key: str, value: str) -> None:
        """A JSON value that the exported trace carries."""
        self._metadata[key] = json.loads(value)
