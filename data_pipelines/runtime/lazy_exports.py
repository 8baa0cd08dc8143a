"""Public names of a room that are imported when they are first used, and modules that have moved.

Importing a room then costs nothing: no pandas in a decode worker, no TensorFlow in `import medres`.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
import warnings
from collections.abc import Callable, Container, Mapping, Sequence
from types import ModuleType
from typing import Any


def lazy_exports(
    package: str, homes: Mapping[str, str], *, needs_tensorflow: Container[str] = ()
) -> tuple[list[str], Callable[[str], Any], Callable[[], list[str]]]:
    """`__all__`, `__getattr__` and `__dir__` of a package.

    package: its `__name__`. homes: module -> its public names, separated by spaces.
    needs_tensorflow: names that raise BackendError, in one sentence, if TensorFlow is not
        installed.

    >>> exports = {"data_pipelines.runtime.limits": "limited"}
    >>> names, get, _ = lazy_exports("data_pipelines.runtime", exports)
    >>> names, get("limited").__name__
    (['limited'], 'limited')
    """
    home = {name: module for module, names in homes.items() for name in names.split()}
    exported = sorted(home)

    def get(name: str) -> Any:
        if name not in home:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        if name in needs_tensorflow:
            from data_pipelines.runtime.backend import require_tensorflow

            require_tensorflow()
        return getattr(importlib.import_module(home[name]), name)

    return exported, get, lambda: exported


def redirect_modules(moved: Mapping[str, str], *, deprecated: bool = True) -> None:
    """Keep old module paths importable: {old path: new path}. If deprecated, an import warns and
    names the new path.
    """
    sys.meta_path.append(_MovedModuleFinder(moved, deprecated))


class _MovedModuleFinder(importlib.abc.MetaPathFinder):
    """Finds old module paths. Python asks it last, after every module that exists."""

    def __init__(self, moved: Mapping[str, str], deprecated: bool) -> None:
        self.moved, self.deprecated = dict(moved), deprecated

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        for old, new in self.moved.items():
            if fullname == old or fullname.startswith(f"{old}."):
                loader = _MovedModuleLoader(new + fullname[len(old) :], self.deprecated)
                return importlib.util.spec_from_loader(fullname, loader, is_package=fullname == old)
        return None


class _MovedModuleLoader(importlib.abc.Loader):
    """Makes an old module whose names are those of the new one."""

    def __init__(self, new: str, deprecated: bool) -> None:
        self.new, self.deprecated = new, deprecated

    def exec_module(self, module: ModuleType) -> None:
        if self.deprecated:
            warnings.warn(
                f"{module.__name__} has moved to {self.new}; the next version removes the old path",
                DeprecationWarning,
                stacklevel=2,
            )
        home = importlib.import_module(self.new)
        module.__doc__ = home.__doc__
        module.__getattr__ = lambda name: getattr(home, name)  # type: ignore[method-assign]
