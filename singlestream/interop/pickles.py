"""Reads pickles without running them: nothing that a file names is imported, and nothing of Python's is called for it.

Python's `pickle` imports what a file names and calls it, which is how a file of weights can run a program. Here
pickle's instructions go to a machine of our own that knows plain containers and the calls it was given. A global is a
name and no more; what would be made by calling it is an `Inert`, which takes everything and does nothing.
"""

from __future__ import annotations

import dataclasses
import io
import pickletools
from collections.abc import Callable, Mapping
from typing import Any

Calls = Mapping[str, Callable[..., object]]


@dataclasses.dataclass(frozen=True)
class Global:
    """A name that a pickle refers to, `module.name`."""

    name: str


class Inert:
    """What a call of something unknown would have made; `name` is of what was to be called."""

    def __init__(self, name: str):
        self.name = name

    def build(self, state: Any) -> None:
        """Takes the state that a pickle gives it, and keeps nothing of it."""


def read_pickle(stream: io.BytesIO | io.BufferedReader, calls: Calls, persistent: Callable[[object], object]) -> Any:
    """The object of one pickle; `stream` then stands behind it.

    Sets become lists, and dictionaries keep the keys that are text or integers.

    Args:
        calls: by full name, what may be called; these check their arguments themselves.
        persistent: gives the object for what the pickle's writer kept elsewhere.

    Raises:
        ValueError, TypeError, KeyError, IndexError: no pickle, or a damaged one.
    """
    machine = _Machine(calls, persistent)
    for opcode, argument, _ in pickletools.genops(stream):
        machine.step(opcode.name, argument)
    return machine.stack.pop()


def call(calls: Calls, target: object, arguments: object) -> object:
    """What calling `target` stands for: a result of `calls`, or an Inert."""
    if isinstance(target, Global) and target.name in calls and isinstance(arguments, tuple):
        return calls[target.name](*arguments)
    return Inert(target.name if isinstance(target, Global | Inert) else type(target).__name__)


class _Machine:
    """The stack machine that a pickle is a program for; `pickletools` describes its instructions."""

    def __init__(self, calls: Calls, persistent: Callable[[object], object]):
        self.stack: list[Any] = []
        self._below: list[list[Any]] = []  # what lies under each mark
        self._memo: dict[int, Any] = {}
        self._calls, self._persistent = calls, persistent

    def step(self, name: str, argument: Any) -> None:
        if name in _ARGUMENTS:
            self.stack.append(argument)
        elif name in _STEPS:
            _STEPS[name](self, argument)
        elif name not in ("PROTO", "FRAME", "STOP"):
            raise ValueError(f"pickle's instruction {name} is not read here")

    def push(self, value: object) -> None:
        self.stack.append(value)

    def last(self, count: int) -> list[Any]:
        """Takes off the last values."""
        return [self.stack.pop() for _ in range(count)][::-1]

    def mark(self) -> None:
        self._below.append(self.stack)
        self.stack = []

    def marked(self) -> list[Any]:
        """Takes off all values above the last mark, and the mark."""
        items, self.stack = self.stack, self._below.pop()
        return items

    def pop(self) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self.marked()

    def remember(self, index: int | None) -> None:
        self._memo[len(self._memo) if index is None else index] = self.stack[-1]

    def recall(self, index: int) -> None:
        self.push(self._memo[index])

    def extend(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, list):
            target.extend(items)
        elif not isinstance(target, Inert):
            raise ValueError("items for what is no list")

    def update(self, items: list[Any]) -> None:
        """Takes keys and values in turn."""
        target = self.stack[-1]
        if isinstance(target, dict):
            pairs = zip(items[::2], items[1::2], strict=True)
            # A tuple nested a million times deep could not even be hashed.
            target.update((key, value) for key, value in pairs if isinstance(key, str | int))
        elif not isinstance(target, Inert):
            raise ValueError("keys for what is no dictionary")

    def name(self, module: object, name: object) -> None:
        if not (isinstance(module, str) and isinstance(name, str)):
            raise ValueError("a global without a name")
        self.push(Global(f"{module}.{name}"))

    def call(self, target: object, arguments: object) -> None:
        self.push(call(self._calls, target, arguments))

    def build(self, state: Any) -> None:
        # Others take none: the attributes of an OrderedDict, of a parameter.
        if isinstance(self.stack[-1], Inert):
            self.stack[-1].build(state)

    def persist(self, identity: object) -> None:
        self.push(self._persistent(identity))

    def dictionary(self, items: list[Any]) -> None:
        self.push({})
        self.update(items)

    def instance(self, target: object, *arguments: object) -> None:
        self.call(target, arguments)


# Instructions that push their argument.
_ARGUMENTS = frozenset(
    "INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING UNICODE BINUNICODE "
    "SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8".split()
)
_STEPS: Mapping[str, Callable[[_Machine, Any], object]] = {
    "NONE": lambda m, _: m.push(None),
    "NEWTRUE": lambda m, _: m.push(True),
    "NEWFALSE": lambda m, _: m.push(False),
    "EMPTY_TUPLE": lambda m, _: m.push(()),
    "EMPTY_LIST": lambda m, _: m.push([]),
    "EMPTY_SET": lambda m, _: m.push([]),
    "EMPTY_DICT": lambda m, _: m.push({}),
    "MARK": lambda m, _: m.mark(),
    "POP": lambda m, _: m.pop(),
    "POP_MARK": lambda m, _: m.marked(),
    "DUP": lambda m, _: m.push(m.stack[-1]),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"), _Machine.remember),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _Machine.recall),
    "TUPLE": lambda m, _: m.push(tuple(m.marked())),
    "TUPLE1": lambda m, _: m.push(tuple(m.last(1))),
    "TUPLE2": lambda m, _: m.push(tuple(m.last(2))),
    "TUPLE3": lambda m, _: m.push(tuple(m.last(3))),
    "LIST": lambda m, _: m.push(m.marked()),
    "FROZENSET": lambda m, _: m.push(m.marked()),
    "DICT": lambda m, _: m.dictionary(m.marked()),
    "APPEND": lambda m, _: m.extend(m.last(1)),
    "APPENDS": lambda m, _: m.extend(m.marked()),
    "ADDITEMS": lambda m, _: m.extend(m.marked()),
    "SETITEM": lambda m, _: m.update(m.last(2)),
    "SETITEMS": lambda m, _: m.update(m.marked()),
    "GLOBAL": lambda m, names: m.name(*names.split(" ", 1)),
    "STACK_GLOBAL": lambda m, _: m.name(*m.last(2)),
    **dict.fromkeys(("EXT1", "EXT2", "EXT4"), lambda m, code: m.name("copyreg", str(code))),
    "REDUCE": lambda m, _: m.call(*m.last(2)),
    "NEWOBJ": lambda m, _: m.call(*m.last(2)),
    "NEWOBJ_EX": lambda m, _: m.call(*m.last(3)[:2]),
    "OBJ": lambda m, _: m.instance(*m.marked()),
    "INST": lambda m, names: m.instance(Global(names.replace(" ", ".", 1)), *m.marked()),
    "BUILD": lambda m, _: m.build(m.last(1)[0]),
    "PERSID": _Machine.persist,
    "BINPERSID": lambda m, _: m.persist(m.last(1)[0]),
}
