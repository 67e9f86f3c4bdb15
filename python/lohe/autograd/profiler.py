"""The profiler's older names; see ``lohe.profiler``."""

from __future__ import annotations

from typing import Any

from lohe import profiler as _profiler
from lohe.profiler import EventList, FunctionEvent, FunctionEventAvg, record_function

__all__ = ["EventList", "FunctionEvent", "FunctionEventAvg", "profile", "record_function"]


class profile(_profiler.profile):
    """``lohe.profiler.profile`` that can be switched off, with the results as attributes and methods of its own."""

    def __init__(
        self, enabled: bool = True, *, use_cpu: bool = True, use_kineto: bool = False, **options: Any
    ) -> None:
        super().__init__(**options)
        self.enabled = enabled and use_cpu

    def start(self) -> None:
        if self.enabled:
            super().start()

    @property
    def function_events(self) -> EventList:
        return self.events()

    @property
    def self_cpu_time_total(self) -> float:
        return self.events().self_cpu_time_total

    def total_average(self) -> FunctionEventAvg:
        """All events as one."""
        return self.events().total_average()

    def table(self, **options: Any) -> str:
        """The events as text; see ``EventList.table``."""
        return self.events().table(**options)
