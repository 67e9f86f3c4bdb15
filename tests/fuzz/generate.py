"""Makes random programs: every step is a call of a row of the op table, with arguments by the row's schema.

Programs are made while PyTorch runs them, so that most steps fit the shapes at hand; now and then a step that PyTorch
refuses stays in, because Lohe has to refuse it too.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from typing import Any

from program import COMPLEX, FLOATS, INTEGERS, Call, Dtype, Leaf, Machine, Program, Ref, Step

DTYPES = (*FLOATS, *COMPLEX, *INTEGERS, "bool")
DTYPE_WEIGHTS = (30, 12, 6, 4, 6, 3, 8, 4, 2, 2, 3, 5)
LAYOUTS = ("dense", "dense", "dense", "transposed", "strided", "offset", "expanded")
KEEP_REFUSED = 0.04
# Rows whose results the other framework need not give: random numbers, memory that nobody wrote, internals.
LEFT_OUT_FAMILIES = {"random", "sampling", "dropout", "optimizers", "foreach"}
LEFT_OUT = re.compile(
    r"empty|rand|dropout|rrelu|resize|^set_$|^_|_backward$|^nll_loss_forward|^nonzero_numpy|^unique_dim|pin_memory|"
    r"^is_|data_ptr|^share_|^requires_grad|^retain|fractional|alpha_dropout|^numpy|^storage|element_size|^native_|^scaled_dot_product_attention"
)
# Writes where the order of equal indices is nobody's promise get distinct ones.
DISTINCT_INDEX = {"scatter", "scatter_", "index_copy", "index_copy_", "index_put", "index_put_", "put_", "put", "index_fill"}
STRINGS = {
    "rounding_mode": ["trunc", "floor"],
    "approximate": ["none", "tanh"],
    "reduce": ["sum", "prod", "mean", "amax", "amin"],
    "indexing": ["ij", "xy"],
    "mode": ["constant", "reflect", "replicate", "circular"],
    "side": ["left", "right"],
}
SKIPPED_TYPES = ("Layout", "Device", "Generator", "MemoryFormat", "bool?")


@dataclass(frozen=True)
class Parameter:
    type: str
    name: str
    optional: bool
    keyword_only: bool


@dataclass(frozen=True)
class Form:
    """One way to call a row."""

    place: str
    name: str
    parameters: tuple[Parameter, ...]
    weight: float


def parse(schema: str) -> tuple[Parameter, ...]:
    inside = schema[schema.index("(") + 1 : schema.rindex(") ->")]
    parameters, keyword_only = [], False
    for part in filter(None, (p.strip() for p in re.split(r",\s*(?![^\[(]*[\])])", inside))):
        if part == "*":
            keyword_only = True
            continue
        kind, name = part.split(" ", 1)
        name, _, default = name.partition("=")
        parameters.append(Parameter(re.sub(r"\([a-z]!?\)", "", kind), name, bool(default) or kind.endswith("?"), keyword_only))
    return tuple(parameters)


def forms(rows: list[dict[str, Any]], peer: Any, pattern: str = "") -> list[Form]:
    """All public forms that both frameworks have. `rows` is Lohe's op table, `peer` is PyTorch."""
    found: dict[tuple[str, str, tuple[Parameter, ...]], Form] = {}
    weights = {"view": 3.0, "composed": 1.5, "pointwise": 1.0, "primitive": 1.0, "function": 1.0}
    for row in rows:
        base = row["base"]
        if row["family"] in LEFT_OUT_FAMILIES or LEFT_OUT.search(base) or not re.search(pattern, base):
            continue
        parameters, weight = parse(row["schema"]), weights[row["kind"]]
        if any(p.type == "int" and p.name == "reduction" for p in parameters):
            continue  # what nn.functional calls inside
        short = re.sub("^(special|linalg)_", "", base)
        place = {"": "torch", "nn": "nn.functional", "special": "special", "linalg": "linalg"}.get(row["module"])
        if row["has_function"] and place:
            owner = {"torch": peer, "nn.functional": peer.nn.functional, "special": peer.special, "linalg": peer.linalg}[place]
            name = short if place in ("special", "linalg") else base
            if hasattr(owner, name):
                found[place, name, parameters] = Form(place, name, parameters, weight)
        for name, wanted in ((base, row["has_method"]), (base + "_", row["has_inplace"] and row["has_method"])):
            # PyTorch lets logical_and_ and its kin write a leaf that needs a gradient, which then passes them unchanged.
            if wanted and hasattr(peer.Tensor, name) and not re.match("logical_.*_$", name):
                heavier = 1.5 if name.endswith("_") and not name.endswith("__") else 1.0
                found["method", name, parameters] = Form("method", name, parameters, weight * heavier)
    found["getitem", "getitem", ()] = Form("getitem", "getitem", (), 30)
    found["setitem", "setitem", ()] = Form("setitem", "setitem", (), 30)
    return list(found.values())


class Generator:
    """Makes programs from one seed; `large` ones have tensors that several threads share."""

    def __init__(self, seed: int, forms: list[Form], peer: Any, large: bool = False):
        self.rng = random.Random(seed)
        self.forms = forms
        self.weights = [form.weight for form in forms]
        self.large = large
        self.machine = Machine(peer)
        self.program: Program = []
        self._next = 0

    # ---- the program

    def make(self, steps: int) -> Program:
        for _ in range(self.rng.randint(2, 4)):
            self._leaf()
        refused = 0
        while len(self.program) < steps and refused < 60:
            form = self.rng.choices(self.forms, self.weights)[0]
            mark, next_step = len(self.program), self._next
            try:
                call = self._call(form)
            except LookupError:  # no argument of this kind can be made
                continue
            accepted = self.machine.step(call)
            # PyTorch's as_strided_ takes negative sizes, or keeps them when it refuses them; nothing can be said
            # about what follows.
            if any(n < 0 for value in self.machine.values.values() for n in value.shape):
                return self.program[:mark]
            if accepted:
                self.program.append(call)
                continue
            refused += 1
            if self.machine.trace.errors.get(call.step, ("", ""))[0] != "TooLarge" and self.rng.random() < KEEP_REFUSED:
                self.program.append(call)
            else:  # the leaves that were made for it go too
                del self.program[mark:]
                for step in range(next_step, self._next):
                    self.machine.values.pop(Ref(step), None)
                    self.machine.trace.errors.pop(step, None)
        return self.program

    def _number(self) -> int:
        self._next += 1
        return self._next - 1

    def _shape(self) -> tuple[int, ...]:
        if self.large and self.rng.random() < 0.7:
            return self.rng.choice([(70_000,), (300, 257), (7, 96, 110), (40_000, 3), (3, 33_333)])
        dims = self.rng.choice([0, 1, 1, 2, 2, 2, 3, 3, 4])
        return tuple(self.rng.choice([1, 2, 3, 4, 5, 3, 4, 17, 0 if self.rng.random() < 0.15 else 2]) for _ in range(dims))

    def _leaf(self, shape: tuple[int, ...] | None = None, dtype: str | None = None, data: Any = None) -> Ref:
        rng = self.rng
        dtype = dtype or rng.choices(DTYPES, DTYPE_WEIGHTS)[0]
        leaf = Leaf(
            self._number(), dtype, self._shape() if shape is None else shape, rng.randrange(1 << 30),
            "dense" if data is not None else rng.choice(LAYOUTS), dtype in (*FLOATS, *COMPLEX) and rng.random() < 0.6, data,
        )  # fmt: skip
        self.program.append(leaf)
        self.machine.step(leaf)
        return Ref(leaf.step)

    # ---- arguments

    def _tensor(self, like: Any = None) -> Ref:
        """A tensor of the program; with `like` preferably one that broadcasts with it and has its dtype."""
        rng, values = self.rng, self.machine.values
        if like is None:
            if rng.random() < 0.1 or not values:
                return self._leaf()
            refs = list(values)
            return rng.choice(refs[-6:]) if rng.random() < 0.6 else rng.choice(refs)
        fitting = [r for r, v in values.items() if v.shape == like.shape and (v.dtype == like.dtype or rng.random() < 0.4)]
        if fitting and rng.random() < 0.6:
            return rng.choice(fitting)
        if rng.random() < 0.1:
            return self._tensor()
        shape = tuple(like.shape)
        roll = rng.random()
        if roll < 0.25:
            shape = tuple(1 if rng.random() < 0.4 else n for n in shape)
        elif roll < 0.4:
            shape = shape[rng.randint(0, len(shape)) :]
        dtype = str(like.dtype).rsplit(".", 1)[-1] if rng.random() < 0.7 else None
        return self._leaf(shape, dtype)

    def _index(self, name: str, first: Any, dim: int, distinct: bool) -> Ref:
        """Indices into dim `dim` of `first`."""
        rng = self.rng
        size = first.shape[dim] if first.dim() else 1
        if name in ("gather", "scatter", "scatter_", "scatter_add", "scatter_add_", "scatter_reduce", "scatter_reduce_", "take_along_dim"):
            shape = list(first.shape)
            if shape and not distinct:
                shape[dim] = rng.randint(0, 4) if rng.random() < 0.8 else shape[dim]
            count = 1
            for n in shape:
                count *= n
            if count > 4096 or (count and not size):
                raise LookupError
            if not distinct:
                return self._leaf(tuple(shape), "int64", tuple(rng.randrange(size) for _ in range(count)))
            inner = 1
            for n in shape[dim + 1 :]:
                inner *= n
            lines = {}
            data = []
            for i in range(count):
                key = (i // (inner * max(shape[dim], 1) if shape else 1), i % inner)
                lines.setdefault(key, rng.sample(range(size), size))
                data.append(lines[key].pop())
            return self._leaf(tuple(shape), "int64", tuple(data))
        if name in ("take", "put_", "put"):
            size = first.numel()
        if not size:
            raise LookupError
        if distinct:
            data = tuple(rng.sample(range(size), rng.randint(0, min(size, 4))))
        else:
            data = tuple(rng.randrange(-size if name in ("take", "index_put") else 0, size) for _ in range(rng.randint(0, 5)))
        return self._leaf((len(data),), "int64" if rng.random() < 0.8 else "int32", data)

    def _item(self, first: Any) -> Any:
        """Something to index `first` with."""
        rng, parts, dim = self.rng, [], 0
        while dim < first.dim() and rng.random() < 0.75:
            size, roll = first.shape[dim], rng.random()
            if roll < 0.12:
                parts.append(None)
                continue
            if roll < 0.35 and size:
                parts.append(rng.randrange(-size, size))
            elif roll < 0.7:
                start, stop = rng.choice([None, *range(-size - 1, size + 2)]), rng.choice([None, *range(-size - 1, size + 2)])
                if size > 50:
                    start, stop = rng.choice([None, rng.randrange(size)]), None
                parts.append(slice(start, stop, rng.choice([None, 1, 2, 3])))
            elif roll < 0.8 and Ellipsis not in parts:
                parts.append(Ellipsis)
                dim = max(first.dim() - rng.randint(0, 1), dim)
                continue
            elif roll < 0.9 and size:
                parts.append(self._leaf((2,), "int64", tuple(rng.sample(range(size), min(2, size)) * 2)[:2]))
            else:
                parts.append(self._leaf((size,), "bool"))
            dim += 1
        return tuple(parts) if len(parts) != 1 or rng.random() < 0.3 else parts[0]

    def _ints(self, name: str, type_: str, first: Any) -> Any:
        rng = self.rng
        fixed = re.search(r"\[(\d)\]", type_)
        dims = first.dim() if first is not None else 2
        if "dim" in name or name in ("source", "destination", "axes"):
            if not dims:
                return rng.choice([(), (0,), (-1,)])
            if name == "dims" and rng.random() < 0.7:  # a permutation
                return tuple(rng.sample(range(dims), dims))
            chosen = rng.sample(range(dims), rng.randint(0 if rng.random() < 0.2 else 1, dims))
            return tuple(d - dims if rng.random() < 0.3 else d for d in chosen)
        if name in ("size", "shape", "sizes", "normalized_shape"):
            shape = list(first.shape) if first is not None else list(self._shape())
            roll = rng.random()
            if name == "normalized_shape":
                return tuple(shape[rng.randrange(max(len(shape), 1)) :]) or (1,)
            if roll < 0.3:
                return (*[rng.randint(1, 3)] * rng.randint(0, 2), *shape)
            if roll < 0.6:
                return (-1,)
            if roll < 0.8 and len(shape) > 1:
                return (shape[0] * shape[1], *shape[2:])
            return tuple(reversed(shape))
        if name in ("repeats", "dims", "reps"):
            return tuple(rng.randint(0, 2) for _ in range(dims + rng.randint(0, 1)))
        if name in ("split_size", "split_sizes") and dims:
            size = first.shape[0]
            cut = rng.randint(0, size)
            return (cut, size - cut)
        count = int(fixed[1]) if fixed else rng.randint(1, max(dims, 1))
        if fixed and name == "padding" and count in (4, 6):
            return tuple(rng.randint(0, 1) for _ in range(count))
        low = {"stride": 1, "kernel_size": 1, "dilation": 1, "output_size": 1}.get(name, 0)
        return tuple(rng.randint(low, 3 if name != "padding" else 1) for _ in range(count))

    def _argument(self, form: Form, p: Parameter, first: Any, chosen: dict[str, Any]) -> Any:
        rng, kind = self.rng, p.type.rstrip("?") if not p.type.endswith("]?") else p.type[:-1]
        if p.type in SKIPPED_TYPES or kind in SKIPPED_TYPES:
            raise KeyError(p.name)
        if p.type.endswith("?") and rng.random() < 0.3:
            if p.optional and rng.random() < 0.5:
                raise KeyError(p.name)
            return None
        distinct = form.name in DISTINCT_INDEX
        if kind == "Tensor":
            dim = chosen.get("dim", 0)
            dim = dim if isinstance(dim, int) and first is not None and -first.dim() <= dim < first.dim() else 0
            if p.name in ("index", "indices") and first is not None:
                return self._index(form.name, first, dim % max(first.dim(), 1), distinct)
            if p.name in ("mask", "condition") and first is not None:
                return self._leaf(tuple(first.shape), "bool")
            if p.name == "repeats":
                return self._leaf((3,), "int64", tuple(rng.randint(0, 3) for _ in range(3)))
            if p.name in ("mat2", "vec2") and first is not None and first.dim():
                dtype = str(first.dtype).rsplit(".", 1)[-1]
                inner = first.shape[-1]
                shapes = {1: [(inner,)], 2: [(inner, 3), (inner, 1)]}.get(first.dim(), [(*first.shape[:-2], inner, 2)])
                return self._leaf(rng.choice(shapes), dtype)
            if p.name == "weight" and form.name in ("linear", "embedding") and first is not None and first.dim():
                return self._leaf((4, first.shape[-1]), str(first.dtype).rsplit(".", 1)[-1])
            if p.name in ("src", "source") and chosen.get("index") is not None:
                return self._leaf(tuple(self.machine.values[chosen["index"]].shape), str(first.dtype).rsplit(".", 1)[-1])
            return self._tensor(first)
        if kind == "Tensor[]":
            return [self._tensor(first if first is not None and rng.random() < 0.8 else None) for _ in range(rng.randint(1, 3))]
        if kind == "Scalar":
            return rng.choice([2, 0, 1, -1, 3, 0.5, 1.5, -0.25, True, 2.0])
        if kind == "float":
            return rng.choice([0.5, 1.0, 0.25, 1e-3, 2.0])
        if kind == "bool":
            return rng.random() < 0.5
        if kind == "ScalarType":
            return Dtype(rng.choices(DTYPES, DTYPE_WEIGHTS)[0])
        if kind == "str":
            if p.name not in STRINGS:
                raise LookupError
            return rng.choice(STRINGS[p.name])
        if kind == "int":
            dims = first.dim() if first is not None else 2
            if p.name.startswith(("dim", "axis", "start_dim", "end_dim")):
                return rng.randrange(-dims, dims) if dims else rng.choice([0, -1])
            size = max(first.shape) if first is not None and first.dim() else 2
            low = {"chunks": 1, "sections": 1, "size": 1, "step": 1, "split_size": 1, "groups": 1, "num_groups": 1}.get(p.name, -1)
            return rng.randint(low, min(max(size, 2), 6))
        if kind.startswith("int["):
            return self._ints(p.name, kind, first)
        raise LookupError

    def _call(self, form: Form) -> Step:
        rng = self.rng
        if form.place in ("getitem", "setitem"):
            target = self._tensor()
            first = self.machine.values[target]
            item = self._item(first)
            if form.place == "getitem":
                return Call(self._number(), "getitem", "", (target, item))
            value = rng.choice([1.5, 2, True]) if rng.random() < 0.4 else self._set_value(target, item)
            return Call(self._number(), "setitem", "", (target, item, value))
        args: list[Any] = []
        kwargs: list[tuple[str, Any]] = []
        chosen: dict[str, Any] = {}
        first: Any = None
        positional = True
        for number, p in enumerate(form.parameters):
            if p.optional and rng.random() < 0.6:
                positional = False
                continue
            try:
                value = self._argument(form, p, first, chosen)
            except KeyError:
                positional = False
                continue
            if number == 0 and isinstance(value, Ref):
                first = self.machine.values[value]
            chosen[p.name] = value
            if p.keyword_only or not positional:
                kwargs.append((p.name, value))
            else:
                args.append(value)
        if form.place == "method" and not (args and isinstance(args[0], Ref)):
            raise LookupError
        return Call(self._number(), form.place, form.name, tuple(args), tuple(kwargs))

    def _set_value(self, target: Ref, item: Any) -> Any:
        probe = Call(-1, "getitem", "", (target, item))
        part = Machine(self.machine.framework)
        part.values = dict(self.machine.values)
        if not part.step(probe):
            return 1.0
        like = part.values[Ref(-1)]
        return self._leaf(tuple(like.shape)[self.rng.randint(0, like.dim()) if self.rng.random() < 0.3 else 0 :], str(like.dtype).rsplit(".", 1)[-1])
