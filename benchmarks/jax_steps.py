"""Whole training steps in JAX, the work of ``models.classification_step``; ``worker.py`` takes this as its module.

The optimizer is by hand, each step one ``jax.jit`` that is given its state's memory (``donate_argnums``). Programs run
in the calling thread, not in one that waits for work. The MLP's parameters are one vector and its products are not
divided among threads: of the forms tried that was the fastest. The GPT's forms, with one vector or many parameters,
``erf`` or ``erfc``, attention by hand or JAX's own, differed by less than the noise. All is float32, products at the
default precision, which is float32 on CPUs.
"""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import suites
from jax.flatten_util import ravel_pytree

__version__ = jax.__version__
RATE, BETA1, BETA2, EPSILON, DECAY = 3e-4, 0.9, 0.95, 1e-8, 0.1

jax.config.update("jax_cpu_enable_async_dispatch", False)


def set_num_threads(count: int) -> None:
    """JAX has a thread for each processor that it may use when it first computes: leaves it ``count`` of them."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])


def get_num_threads() -> int:
    return len(os.sched_getaffinity(0))


def classification_step(
    forward: Callable[[Any, Any], Any],
    parameters: Any,
    batches: Sequence[tuple[Any, Any]],
    *,
    one_vector: bool,
    options: dict[str, Any] | None = None,
) -> Callable[[], float]:
    """A call that does one step of ``forward(parameters, inputs)`` on the next batch and returns the loss.

    ``one_vector`` keeps all parameters in one vector, ``options`` are the compiler's.
    """
    given, tree = ravel_pytree(parameters) if one_vector else (parameters, lambda p: p)

    def loss_of(parameters: Any, inputs: Any, targets: Any) -> Any:
        logits = forward(tree(parameters), inputs)
        logits = logits.reshape(-1, logits.shape[-1])
        chosen = logits * jax.nn.one_hot(targets.reshape(-1), logits.shape[-1])
        return (jax.nn.logsumexp(logits, axis=1) - chosen.sum(1)).mean()

    @functools.partial(jax.jit, donate_argnums=0, compiler_options=options)
    def work(state: Any, inputs: Any, targets: Any) -> Any:
        parameters, first, second, count = state
        count = count + 1
        loss, gradients = jax.value_and_grad(loss_of)(parameters, inputs, targets)
        first = jax.tree.map(lambda m, g: BETA1 * m + (1 - BETA1) * g, first, gradients)
        second = jax.tree.map(lambda v, g: BETA2 * v + (1 - BETA2) * g * g, second, gradients)
        size, scale = RATE / (1 - BETA1**count), jax.lax.rsqrt(1 - BETA2**count)

        def moved(p: Any, m: Any, v: Any) -> Any:
            return p * (1 - RATE * DECAY) - size * m / (jnp.sqrt(v) * scale + EPSILON)

        return (jax.tree.map(moved, parameters, first, second), first, second, count), loss

    zeros = functools.partial(jax.tree.map, jnp.zeros_like, given)
    state = (given, zeros(), zeros(), jnp.zeros((), jnp.float32))

    stream = itertools.cycle(batches)

    def step() -> float:
        nonlocal state
        state, loss = work(state, *next(stream))
        return loss.item()

    return step


class Draw:
    """Random values, in PyTorch's usual ranges of initial parameters."""

    def __init__(self) -> None:
        self._key = jax.random.key(0)

    def key(self) -> Any:
        self._key, key = jax.random.split(self._key)
        return key

    def normal(self, *shape: int) -> Any:
        return jax.random.normal(self.key(), shape)

    def ids(self, end: int, *shape: int) -> Any:
        return jax.random.randint(self.key(), shape, 0, end)

    def linear(self, inside: int, outside: int) -> dict[str, Any]:
        bound = inside**-0.5
        shapes = {"weight": (inside, outside), "bias": (outside,)}
        return {n: jax.random.uniform(self.key(), s, minval=-bound, maxval=bound) for n, s in shapes.items()}


def _linear(p: Any, x: Any) -> Any:
    rows = x.reshape(-1, x.shape[-1])  # one product of two matrices
    return (rows @ p["weight"] + p["bias"]).reshape(*x.shape[:-1], -1)


def _mlp() -> Callable[[], float]:
    draw = Draw()

    def forward(layers: Any, x: Any) -> Any:
        for layer in layers[:-1]:
            x = jax.nn.relu(_linear(layer, x))
        return _linear(layers[-1], x)

    layers = [draw.linear(64, 64) for _ in range(4)]
    options = {"xla_cpu_multi_thread_eigen": False}
    batches = [(draw.normal(32, 64), draw.ids(64, 32)) for _ in range(suites.BATCHES)]
    return classification_step(forward, layers, batches, one_vector=True, options=options)


def _gpt(layers: int, width: int, heads: int, context: int, batch: int) -> Callable[[], float]:
    draw, vocabulary = Draw(), 65

    def norm(p: Any, x: Any) -> Any:
        centred = x - x.mean(-1, keepdims=True)
        return centred * jax.lax.rsqrt((centred * centred).mean(-1, keepdims=True) + 1e-5) * p[0] + p[1]

    def attention(p: Any, x: Any) -> Any:
        batch, time, _ = x.shape
        q, k, v = (
            t.reshape(batch, time, heads, width // heads).transpose(0, 2, 1, 3)
            for t in jnp.split(_linear(p["project"], x), 3, axis=2)
        )
        scores = jnp.einsum("bhqd,bhkd->bhqk", q, k) * (width // heads) ** -0.5
        shares = jax.nn.softmax(jnp.where(jnp.tri(time, dtype=bool), scores, -jnp.inf), axis=-1)
        y = jnp.einsum("bhqk,bhkd->bqhd", shares, v)
        return _linear(p["out"], y.reshape(batch, time, width))

    def forward(p: Any, ids: Any) -> Any:
        x = p["tokens"][ids] + p["positions"]
        for b in p["blocks"]:
            x = x + attention(b, norm(b["norm1"], x))
            up = jax.nn.gelu(_linear(b["up"], norm(b["norm2"], x)), approximate=False)
            x = x + _linear(b["down"], up)
        return norm(p["norm"], x) @ p["head"]

    def ones_and_zeros() -> tuple[Any, Any]:
        return jnp.ones(width), jnp.zeros(width)

    def block() -> dict[str, Any]:
        return {
            "norm1": ones_and_zeros(), "norm2": ones_and_zeros(),
            "project": draw.linear(width, 3 * width), "out": draw.linear(width, width),
            "up": draw.linear(width, 4 * width), "down": draw.linear(4 * width, width),
        }  # fmt: skip

    parameters = {
        "tokens": draw.normal(vocabulary, width), "positions": draw.normal(context, width),
        "blocks": [block() for _ in range(layers)], "norm": ones_and_zeros(),
        "head": draw.linear(width, vocabulary)["weight"],
    }  # fmt: skip
    ids = [draw.ids(vocabulary, batch, context + 1) for _ in range(suites.BATCHES)]
    return classification_step(forward, parameters, [(i[:, :-1], i[:, 1:]) for i in ids], one_vector=False)


#: The cases that there are in JAX, by their names in the suite ``compile``.
STEPS: dict[str, Callable[[], Callable[[], float]]] = {
    "MLP 64x4, batch 32; whole step compiled": _mlp,
    "MLP 64x4, batch 32; whole step compiled, replay": _mlp,
    "GPT 4x128, 64 tokens, batch 12; whole step compiled": functools.partial(_gpt, 4, 128, 4, 64, 12),
}
