"""Makes ``import torch`` give this package."""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.util
import sys
from types import ModuleType
from typing import Any

_PREFIX = "torch"


class _AliasLoader(importlib.abc.Loader):
    def __init__(self, real_name: str) -> None:
        self.real_name = real_name

    def create_module(self, spec: Any) -> ModuleType:
        return importlib.import_module(self.real_name)

    def exec_module(self, module: ModuleType) -> None:
        pass


class _AliasFinder(importlib.abc.MetaPathFinder):
    """``torch.a.b`` is the module object of ``lohe.a.b``, whenever it is first imported."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name != _PREFIX and not name.startswith(_PREFIX + "."):
            return None
        real_name = "lohe" + name[len(_PREFIX) :]
        try:
            found = importlib.util.find_spec(real_name)
        except (ImportError, ValueError):
            # A module that exists only as an attribute, such as lohe._C.ops.
            found = getattr(sys.modules.get(real_name), "__spec__", None)
        if found is None:
            return None
        spec = importlib.util.spec_from_loader(name, _AliasLoader(real_name))
        module = importlib.import_module(real_name)
        sys.modules[name] = module
        return spec

    def find_module(self, name: str, path: Any = None) -> None:
        return None


def install() -> None:
    """Registers ``torch`` and its submodules. @raises RuntimeError when another torch was imported already."""
    import lohe

    present = sys.modules.get(_PREFIX)
    if present is lohe:
        return
    if present is not None:
        raise RuntimeError("lohe.install(): another module named 'torch' was imported before; call install() first")
    sys.modules[_PREFIX] = lohe
    for name, module in list(sys.modules.items()):
        if name.startswith("lohe."):
            sys.modules[_PREFIX + name[4:]] = module
    sys.meta_path.insert(0, _AliasFinder())
