"""Nested tuples, lists and dicts taken apart into leaves and put together again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any


class Structure:
    """What is left of a nested container when its leaves are taken out; `rebuild` is None for a leaf."""

    __slots__ = ("children", "keys", "kind", "rebuild")

    def __init__(
        self,
        kind: type | None = None,
        rebuild: Callable[[list], Any] | None = None,
        children: tuple[Structure, ...] = (),
        keys: tuple = (),
    ) -> None:
        self.kind, self.rebuild, self.children, self.keys = kind, rebuild, children, keys

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Structure)
            and self.kind is other.kind
            and self.keys == other.keys
            and self.children == other.children
        )

    __hash__ = None  # type: ignore[assignment]

    @property
    def count(self) -> int:
        """The number of leaves."""
        return 1 if self.rebuild is None else sum(child.count for child in self.children)


_LEAF = Structure()


def _parts(value: Any) -> tuple[tuple, list, Callable[[list], Any]] | None:
    """Keys, children and how to rebuild; None for a leaf."""
    kind = type(value)
    if kind in (dict, OrderedDict):
        keys = tuple(value)
        return keys, list(value.values()), lambda items: kind(zip(keys, items))
    if kind in (tuple, list):
        return (), list(value), kind
    if isinstance(value, tuple) and hasattr(kind, "_fields"):
        return (), list(value), lambda items: kind(*items)
    if isinstance(value, tuple) and hasattr(kind, "n_sequence_fields"):
        return (), list(value), kind
    return None


def flatten(value: Any) -> tuple[list, Structure]:
    """The leaves of `value`, in order, and its structure."""
    parts = _parts(value)
    if parts is None:
        return [value], _LEAF
    keys, items, rebuild = parts
    leaves: list = []
    children = []
    for item in items:
        found, structure = flatten(item)
        leaves += found
        children.append(structure)
    return leaves, Structure(type(value), rebuild, tuple(children), keys)


def unflatten(leaves: list, structure: Structure) -> Any:
    """The inverse of flatten."""

    def build(node: Structure, rest: Iterator) -> Any:
        return next(rest) if node.rebuild is None else node.rebuild([build(child, rest) for child in node.children])

    return build(structure, iter(leaves))


def map_leaves(function: Callable[[Any], Any], value: Any) -> Any:
    """`value` with every leaf x replaced by function(x)."""
    leaves, structure = flatten(value)
    return unflatten([function(leaf) for leaf in leaves], structure)


def broadcast_prefix(prefix: Any, structure: Structure) -> list | None:
    """One entry of `prefix` for each leaf of `structure`; an entry may stand for a whole subtree. None: they do not fit."""
    if structure.rebuild is None:
        return None if _parts(prefix) is not None else [prefix]
    parts = _parts(prefix)
    if parts is None:
        return [prefix] * structure.count
    keys, items, _ = parts
    if type(prefix) is not structure.kind or keys != structure.keys or len(items) != len(structure.children):
        return None
    result: list = []
    for item, child in zip(items, structure.children):
        found = broadcast_prefix(item, child)
        if found is None:
            return None
        result += found
    return result
