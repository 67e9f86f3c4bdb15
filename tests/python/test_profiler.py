"""profiler.profile against its promises, and its schedule against PyTorch's."""

from __future__ import annotations

import gzip
import json
import threading
from pathlib import Path
from typing import Any

import lohe
import pytest

try:
    import torch
except ImportError:
    torch = None

from lohe.profiler import ProfilerAction, ProfilerActivity, profile, record_function, schedule

pytestmark = pytest.mark.eager


def _names(prof: profile) -> list[str]:
    return [event.name for event in prof.events()]


def test_ops_are_measured_in_their_order_and_with_their_shapes() -> None:
    x = lohe.ones(3, 4)
    with profile(record_shapes=True) as prof:
        y = x @ lohe.ones(4, 2)
        y.add_(1)
    names = _names(prof)
    assert names.index("aten::ones") < names.index("aten::matmul") < names.index("aten::add_")
    product = prof.events()[names.index("aten::matmul")]
    assert product.input_shapes == [[3, 4], [4, 2]]
    assert 0 <= product.self_cpu_time_total <= product.cpu_time_total < 1e6


def test_events_lie_inside_the_events_around_them() -> None:
    x = lohe.ones(4, 4, requires_grad=True)
    with profile() as prof, record_function("step"):
        with record_function("forward"):
            loss = lohe.nn.functional.gelu(x @ x).sum()
        loss.backward()
    events = prof.events()
    by_name = {event.name: event for event in events}
    assert by_name["forward"].cpu_parent is by_name["step"]
    assert by_name["aten::gelu"].cpu_parent is by_name["forward"]
    for event in events:
        for child in event.cpu_children:
            assert (
                event.time_range.start
                <= child.time_range.start
                <= child.time_range.end
                <= event.time_range.end
            )
        assert event.self_cpu_time_total >= 0
    nodes = [event for event in events if event.category == "autograd_node"]
    assert [node.name for node in nodes][:2] == ["SumBackward0", "GeluBackward0"]
    assert all(node.cpu_parent is by_name["step"] for node in nodes)


def test_kernels_of_compiled_programs_are_events() -> None:
    compiled = lohe.compile(lambda x: (x * 2 + 1).tanh().sum())
    x = lohe.ones(50)
    for _ in range(3):
        compiled(x)
    with profile() as prof:
        compiled(x)
    kernels = [event.name for event in prof.events() if event.category == "kernel"]
    assert len(kernels) == 1 and kernels[0].startswith("fused")


def test_a_range_decorates_a_function_and_may_recurse() -> None:
    @record_function("down")
    def down(n: int) -> int:
        return 0 if n == 0 else 1 + down(n - 1)

    assert down(2) == 2  # outside of a profile
    with profile() as prof:
        assert down(2) == 2
    assert _names(prof) == ["down"] * 3
    (average,) = prof.key_averages()
    assert average.count == 3
    # A call's time is not counted again for the calls inside it.
    assert average.cpu_time_total == prof.events()[0].cpu_time_total


def test_an_error_ends_the_events_that_it_leaves() -> None:
    with profile() as prof:
        with pytest.raises(RuntimeError), record_function("fails"):
            lohe.ones(2) @ lohe.ones(3)
        lohe.ones(1)
    events = {event.name: event for event in prof.events()}
    assert events["aten::matmul"].cpu_parent is events["fails"]
    assert [e.cpu_parent for e in prof.events() if e.name == "aten::ones"][-1] is None


def test_memory_is_what_an_event_allocated() -> None:
    with profile(profile_memory=True) as prof:
        kept = lohe.zeros(1000)
        with record_function("nothing stays"):
            kept + 1
    events = {event.name: event for event in prof.events()}
    assert events["aten::zeros"].cpu_memory_usage >= 4000
    assert events["nothing stays"].cpu_memory_usage == 0 and events["aten::add"].cpu_memory_usage >= 4000
    assert "CPU Mem" in prof.key_averages().table()


def test_other_threads_and_what_follows_are_not_measured() -> None:
    with profile() as prof:
        thread = threading.Thread(target=lambda: lohe.ones(3))
        thread.start()
        thread.join()
    lohe.ones(3)
    assert _names(prof) == []


def test_one_profile_at_a_time() -> None:
    with profile() as prof:
        with pytest.raises(RuntimeError, match="already active"), profile():
            pass
        lohe.ones(3)
    assert "aten::ones" in _names(prof)


@pytest.mark.parametrize("option", ["with_stack", "with_flops", "with_modules"])
def test_what_is_not_supported_says_so(option: str) -> None:
    arguments: dict[str, Any] = {option: True}
    with pytest.raises(NotImplementedError, match=option):
        profile(**arguments)


def test_activities_are_checked() -> None:
    profile(activities=[ProfilerActivity.CPU])
    with pytest.raises(TypeError, match="ProfilerActivity"):
        profile(activities=["cpu"])  # type: ignore[list-item]


@pytest.mark.skipif(torch is None, reason="compares with torch")
@pytest.mark.parametrize(
    "arguments",
    [
        {"wait": 1, "warmup": 1, "active": 3},
        {"wait": 0, "warmup": 2, "active": 1, "repeat": 2},
        {"wait": 2, "warmup": 0, "active": 2, "skip_first": 3},
        {"wait": 2, "warmup": 1, "active": 2, "repeat": 2, "skip_first": 1, "skip_first_wait": 1},
    ],
)
def test_a_schedule_is_pytorchs(arguments: dict[str, int]) -> None:
    ours, theirs = schedule(**arguments), torch.profiler.schedule(**arguments)
    assert [ours(i).name for i in range(40)] == [theirs(i).name for i in range(40)]


def test_cycles_of_a_schedule_are_handed_over_one_by_one() -> None:
    seen: list[list[str]] = []
    plan = schedule(wait=1, warmup=1, active=2, repeat=2)
    with profile(schedule=plan, on_trace_ready=lambda p: seen.append(_names(p))) as prof:
        for _ in range(10):
            lohe.ones(1)
            prof.step()
    assert [[n for n in names if n.startswith("Prof")] for names in seen] == [
        ["ProfilerStep#2", "ProfilerStep#3"],
        ["ProfilerStep#6", "ProfilerStep#7"],
    ]
    assert all(names.count("aten::ones") == 2 for names in seen)


def test_a_profile_that_ends_inside_a_cycle_is_handed_over() -> None:
    seen: list[int] = []
    with profile(
        schedule=schedule(wait=0, warmup=0, active=5), on_trace_ready=lambda p: seen.append(p.step_num)
    ) as prof:
        for _ in range(3):
            prof.step()
    assert seen == [3]
    assert prof.current_action is ProfilerAction.RECORD


@pytest.mark.parametrize("name", ["trace.json", "trace.json.gz"])
def test_a_chrome_trace_holds_all_events(tmp_path: Path, name: str) -> None:
    with profile(record_shapes=True) as prof:
        lohe.ones(3) + 1
    prof.add_metadata("run", "first")
    prof.add_metadata_json("numbers", "[1, 2]")
    prof.export_chrome_trace(tmp_path / name)
    data = (tmp_path / name).read_bytes()
    trace = json.loads(gzip.decompress(data) if name.endswith(".gz") else data)
    assert trace["run"] == "first" and trace["numbers"] == [1, 2]
    events = [event for event in trace["traceEvents"] if event["ph"] == "X"]
    assert [event["name"] for event in events] == _names(prof)
    assert all(event["dur"] >= 0 and event["cat"] == "cpu_op" for event in events)
    assert [event for event in events if event["name"] == "aten::add"][0]["args"]["Input Dims"][0] == [3]
    with pytest.raises(FileNotFoundError):
        prof.export_chrome_trace(tmp_path / "missing" / name)
    assert sorted(p.name for p in tmp_path.iterdir()) == [name]


def test_traces_for_tensorboard_go_into_files_of_their_own(tmp_path: Path) -> None:
    handler = lohe.profiler.tensorboard_trace_handler(str(tmp_path / "log"), "worker")
    for _ in range(2):
        with profile(on_trace_ready=handler):
            lohe.ones(1)
    names = [p.name for p in (tmp_path / "log").iterdir()]
    assert len(names) == 2 and all(n.startswith("worker.") and n.endswith(".pt.trace.json") for n in names)


def test_the_table_has_a_row_for_a_name_and_sorts() -> None:
    with profile(record_shapes=True) as prof:
        for n in (2, 3, 3):
            lohe.ones(n).exp()
    averages = prof.key_averages(group_by_input_shape=True)
    table = averages.table(sort_by="count", row_limit=1)
    assert "# of Calls" in table and "Self CPU time total" in table
    assert table.count("aten::") == 1
    exp = [average for average in averages if average.key == "aten::exp"]
    assert sorted((average.count, average.input_shapes) for average in exp) == [(1, [[2]]), (2, [[3]])]
    with pytest.raises(AttributeError, match="self_cpu_time_total"):
        averages.table(sort_by="cuda")
    assert prof.events().total_average().count == len(prof.events())
    assert lohe.profiler.EventList([]).table().endswith("0.000us\n")


def test_the_older_profile_can_be_off() -> None:
    with lohe.autograd.profiler.profile(enabled=False) as off:
        lohe.ones(1)
    assert off.function_events == []
    with lohe.autograd.profiler.profile() as on:
        lohe.ones(1)
    assert "aten::ones" in on.table()
