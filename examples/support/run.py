"""A training run that may be killed at any moment and goes on bit for bit.

A checkpoint holds everything that changes from step to step: model, optimizer, schedule, position in the data, state
of the random stream, losses so far. Whoever is killed loses the steps since the last checkpoint, repeats them and ends
with the losses and weights of a run that was never killed.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lohe as torch

from support.files import write_json, write_whole
from support.report import Memory, Progress, draw_losses

FORMAT = 1


class BatchOrder:
    """Which samples make up which batch: a batch sampler for DataLoader over `steps` batches.

    Each epoch is a permutation drawn from (seed, epoch) alone, so the position in the data is one number, and it does
    not matter how far ahead a loader reads. The samples that do not fill a last batch are left out of that epoch.
    """

    def __init__(self, samples: int, batch_size: int, steps: int, seed: int) -> None:
        if samples < batch_size:
            raise ValueError(f"{samples} samples do not fill a batch of {batch_size}")
        self.samples, self.batch_size, self.steps, self.seed = samples, batch_size, steps, seed
        self.step = 0

    def __iter__(self) -> Iterator[list[int]]:
        per_epoch = self.samples // self.batch_size
        step = self.step
        while step < self.steps:
            epoch, first = divmod(step, per_epoch)
            generator = torch.Generator().manual_seed(self.seed + epoch)
            order = torch.randperm(self.samples, generator=generator).tolist()
            for batch in range(first, min(per_epoch, first + self.steps - step)):
                yield order[batch * self.batch_size : (batch + 1) * self.batch_size]
                step += 1

    def __len__(self) -> int:
        return self.steps - self.step

    def state_dict(self) -> dict[str, int]:
        return {"step": self.step}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.step = state["step"]


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of every run."""
    parser.add_argument("--steps", type=int, help="training steps (default: chosen by the program)")
    parser.add_argument("--quick", action="store_true", help="a few seconds instead of minutes")
    parser.add_argument("--seed", type=int, default=1, help="of weights, data order and dropout (default 1)")
    parser.add_argument("--out", type=Path, help="folder of checkpoint, losses and loss curve (default: in demo/)")
    parser.add_argument("--checkpoint-every", type=int, default=100, metavar="N", help="steps (default 100)")
    parser.add_argument("--fresh", action="store_true", help="start over instead of going on from a checkpoint")
    parser.add_argument("--die-at", type=int, metavar="N", help="kill -9 itself after step N")


def default_folder(program: str, options: argparse.Namespace) -> Path:
    """demo/PROGRAM/FRAMEWORK beside the examples, with `-quick` behind the program's name where asked."""
    root = Path(__file__).resolve().parents[2]
    return root / "demo" / (program + ("-quick" if options.quick else "")) / torch.__name__


class Run:
    """One run: the loop over batches, its clock, its losses and its checkpoint.

    `configuration` names what must not change between the parts of a run; `parts` are the objects with
    ``state_dict`` and ``load_state_dict``, "order" (a BatchOrder) among them. `per_step` items of kind `unit` are
    processed by a step.
    """

    def __init__(
        self,
        program: str,
        options: argparse.Namespace,
        configuration: dict[str, Any],
        parts: dict[str, Any],
        *,
        unit: str,
        per_step: int,
        memory: Memory,
    ) -> None:
        self.program, self.configuration, self.parts = program, configuration, parts
        self.unit, self.per_step, self.memory = unit, per_step, memory
        self.order: BatchOrder = parts["order"]
        self.steps = self.order.steps
        self.folder = options.out or default_folder(program, options)
        self.checkpoint = self.folder / "checkpoint.pt"
        self.checkpoint_every, self.die_at = options.checkpoint_every, options.die_at
        self.step = 0
        self.losses: list[float] = []
        self.validation: list[tuple[int, float]] = []
        self.seconds = 0.0
        self.peak = 0
        self._resumed: dict[str, Any] | None = None
        if self.checkpoint.exists() and not options.fresh:
            self._resume()

    def _resume(self) -> None:
        # weights_only is the default: a checkpoint from elsewhere can hold tensors and plain values, never code.
        state = torch.load(self.checkpoint)
        if state.get("format") != FORMAT or state["program"] != self.program:
            raise SystemExit(f"{self.checkpoint} is no checkpoint of this program; --fresh starts over")
        theirs = state["configuration"]
        for key in sorted({*theirs, *self.configuration}):
            there, here = theirs.get(key), self.configuration.get(key)
            if there != here:
                raise SystemExit(
                    f"{self.checkpoint} is of a run with {key} {there}, this run has {here}; --fresh starts over"
                )
        if state["step"] >= self.steps:
            return  # that run came to its end: this is a new one
        for name, part in self.parts.items():
            part.load_state_dict(state[name])
        self.step, self.seconds, self.peak = state["step"], state["seconds"], state["peak"]
        self.losses, self.validation = list(state["losses"]), [tuple(pair) for pair in state["validation"]]
        self._resumed = state
        print(f"{self.program}: going on after step {self.step} of {self.steps}", file=sys.stderr)

    def save(self) -> None:
        """Writes the checkpoint, whole or not at all."""
        state = {
            "format": FORMAT,
            "program": self.program,
            "configuration": self.configuration,
            "step": self.step,
            "seconds": self.seconds,
            "peak": max(self.peak, self.memory.peak()),
            "losses": self.losses,
            "validation": self.validation,
            "random": torch.get_rng_state(),
            **{name: part.state_dict() for name, part in self.parts.items()},
        }
        write_whole(self.checkpoint, lambda file: torch.save(state, file))

    def batches(self, loader: Any) -> Iterator[Any]:
        """The loader's batches that are still to be trained on; call ``record(loss)`` for each."""
        batches = iter(loader)
        if self._resumed is not None:
            # Only now: making the iterator has drawn a number, as it had when the run began.
            torch.set_rng_state(self._resumed["random"])
            self._resumed = None
        with Progress(self.program, self.step, self.steps) as progress:
            self._began = time.perf_counter()
            for batch in batches:
                yield batch
                self.step += 1
                self.order.step = self.step
                if len(self.losses) != self.step:
                    raise RuntimeError(f"{len(self.losses)} losses after step {self.step}; call record once a step")
                progress.step(self.losses[-1])
                if self.step % self.checkpoint_every == 0 or self.step == self.steps:
                    with self.aside():
                        self.save()
                if self.step == self.die_at:
                    os.kill(os.getpid(), signal.SIGKILL)

    def record(self, loss: Any) -> None:
        """Notes the loss (a tensor of one element) of the step under way."""
        self.losses.append(loss.item())

    def is_due(self, every: int) -> bool:
        """Whether the step under way is a multiple of `every`, or the last."""
        return (self.step + 1) % every == 0 or self.step + 1 == self.steps

    def record_validation(self, loss: float) -> None:
        """Notes a validation loss after the step under way."""
        self.validation.append((self.step + 1, loss))

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """What happens within is not training time."""
        self.seconds += time.perf_counter() - self._began
        try:
            yield
        finally:
            self._began = time.perf_counter()

    def finish(self, quality: dict[str, float]) -> None:
        """Writes result.json and loss.png and prints a line; `quality` is what the trained model reaches."""
        result = {
            "program": self.program,
            "framework": torch.__name__,
            "version": str(torch.__version__),
            "threads": torch.get_num_threads(),
            "configuration": self.configuration,
            "unit": self.unit,
            "per_second": self.per_step * self.steps / self.seconds,
            "seconds": self.seconds,
            "peak_bytes": max(self.peak, self.memory.peak()),
            "quality": quality,
            "losses": self.losses,
            "validation": self.validation,
        }
        write_json(self.folder / "result.json", result)
        drawn = draw_losses(self.folder / "loss.png", [result])
        said = ", ".join(f"{name} {value:.4f}" for name, value in quality.items())
        print(
            f"{self.program} on {torch.__name__}: {said}; {result['per_second']:,.0f} {self.unit}/s, "
            f"peak memory {result['peak_bytes'] / 2**20:,.0f} MiB; {self.folder}/"
            + ("loss.png" if drawn else "result.json")
        )
