"""Read a pickle of plain data without the module `pickle`, which can run any code.

The opcodes are documented in pickletools of the standard library. This module knows those that
torch writes for a state dict; any other opcode is an error, as is a name that the caller has not
listed.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

from medres.errors import WeightsError

MARK = object()
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
VALUES = {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE"}
TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class Reader:
    """`names`: dotted name -> its replacement, a function of this package or plain data.
    `persistent`: persistent id -> the object that it refers to.
    """

    def __init__(self, names: Mapping[str, Any], persistent: Callable[[Any], Any]) -> None:
        self._names = names
        self._functions = [value for value in names.values() if callable(value)]
        self._persistent = persistent

    def read(self, file: BinaryIO) -> Any:
        """The next pickle of `file`; the position is then after it. Raises WeightsError for an
        opcode or a name that is not allowed, and ValueError, IndexError, TypeError or
        AttributeError for a damaged pickle.
        """
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        for opcode, argument, _ in pickletools.genops(file):
            if opcode.name == "STOP":
                return self._stack.pop()
            self._run(opcode.name, argument)
        raise ValueError("the pickle has no STOP opcode")

    def _run(self, name: str, argument: Any) -> None:
        stack = self._stack
        if name in VALUES:
            stack.append(argument)
        elif name in CONSTANTS:
            stack.append(CONSTANTS[name])
        elif name in TUPLES:
            stack.append(tuple(reversed([stack.pop() for _ in range(TUPLES[name])])))
        elif name in ("BINPUT", "LONG_BINPUT"):
            self._memo[argument] = stack[-1]
        elif name == "MEMOIZE":
            self._memo[len(self._memo)] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(self._memo[argument])
        elif name in STEPS:
            STEPS[name](self, argument)
        elif name not in ("PROTO", "FRAME"):
            raise WeightsError(
                f"the file holds the pickle opcode {name}, which plain tensors do not need; save "
                f"it as safetensors",
                code="unsafe_pickle",
            )

    def _since_mark(self) -> list[Any]:
        items = []
        while (item := self._stack.pop()) is not MARK:
            items.append(item)
        return items[::-1]

    def _named(self, name: str) -> None:
        if name not in self._names:
            raise WeightsError(
                f"the file refers to {name}: only tensors are read, because a pickle can run any "
                f"code; save only the state dict, preferably as safetensors",
                code="unsafe_pickle",
            )
        self._stack.append(self._names[name])

    def _global(self, argument: str) -> None:
        self._named(argument.replace(" ", "."))

    def _stack_global(self, _: Any) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        self._named(f"{module}.{name}")

    def _reduce(self, _: Any) -> None:
        arguments, function = self._stack.pop(), self._stack.pop()
        if not any(function is allowed for allowed in self._functions):
            raise WeightsError(
                "the file calls an object that is not a function of tensors", code="unsafe_pickle"
            )
        self._stack.append(function(*arguments))

    def _set_items(self, _: Any) -> None:
        items = self._since_mark()
        self._stack[-1].update(zip(items[::2], items[1::2], strict=True))

    def _set_item(self, _: Any) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        self._stack[-1].update({key: value})

    def _mark(self, _: Any) -> None:
        self._stack.append(MARK)

    def _dict(self, _: Any) -> None:
        self._stack.append({})

    def _list(self, _: Any) -> None:
        self._stack.append([])

    def _tuple(self, _: Any) -> None:
        self._stack.append(tuple(self._since_mark()))

    def _append(self, _: Any) -> None:
        item = self._stack.pop()
        self._stack[-1].append(item)

    def _extend(self, _: Any) -> None:
        items = self._since_mark()
        self._stack[-1].extend(items)

    def _build(self, _: Any) -> None:
        self._stack.pop()  # attributes, such as the _metadata of a state dict, are ignored

    def _persist(self, _: Any) -> None:
        self._stack.append(self._persistent(self._stack.pop()))


STEPS: dict[str, Callable[[Reader, Any], None]] = {
    "MARK": Reader._mark,
    "EMPTY_DICT": Reader._dict,
    "EMPTY_LIST": Reader._list,
    "TUPLE": Reader._tuple,
    "SETITEM": Reader._set_item,
    "SETITEMS": Reader._set_items,
    "APPEND": Reader._append,
    "APPENDS": Reader._extend,
    "GLOBAL": Reader._global,
    "STACK_GLOBAL": Reader._stack_global,
    "REDUCE": Reader._reduce,
    "BUILD": Reader._build,
    "BINPERSID": Reader._persist,
}
