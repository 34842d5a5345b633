"""What the pickle of a torch file says: tensors as views of storages, and the state dict among all that it holds.

Each tensor is a call, `_rebuild_tensor_v2(storage, offset, shape, strides, ...)` (`torch/_utils.py`); a storage is a
persistent id, and its numbers lie elsewhere in the file.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import ml_dtypes
import numpy as np

from singlestream.interop.pickle_calls import CALLS, NumpyArray, PickledTensor
from singlestream.interop.pickles import Calls, Global, Inert, call
from singlestream.interop.rules import WeightsError
from singlestream.interop.tensors import check_shape

# Where the state dict lies in files that hold more: an optimiser, a step.
NESTS = ("state_dict", "model_state_dict", "model", "module")

_TYPES = {
    "FloatStorage": "<f4",
    "DoubleStorage": "<f8",
    "HalfStorage": "<f2",
    "BFloat16Storage": ml_dtypes.bfloat16,
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
    "UntypedStorage": "u1",
}
STORAGES = {
    f"{module}.{name}": np.dtype(kind)
    for name, kind in _TYPES.items()
    for module in ("torch", "torch.cuda", "torch.storage")
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Storage:
    """What a pickle says of numbers that lie elsewhere in its file."""

    key: str
    dtype: np.dtype


@dataclasses.dataclass(frozen=True, kw_only=True)
class View:
    """A tensor: `shape` and `strides` over a storage, from element `offset` on."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read_storage(identity: object) -> Storage | Global | Inert:
    """What a persistent id stands for: a storage, or the class of a module, which older files keep with its source.

    Raises:
        ValueError: a storage of quantised or complex numbers, or a view of one, as torch wrote before 0.4.
    """
    match identity:
        case ("storage", Global(name=name), str() as key, _, int(), *view):
            if name not in STORAGES or any(part is not None for part in view):
                raise ValueError(f"numbers of the kind {name} are not read here")
            return Storage(key=key, dtype=STORAGES[name])
        case ("module", Global() as kind, *_):
            return kind
    return Inert("a persistent id")


def find_state_dict(where: str, tree: Any) -> dict[str, View | PickledTensor]:
    """The tensors by name in what a file holds: under one of `NESTS`, else at its top.

    Raises:
        WeightsError: there are none, or one is of a kind that is not read.
    """
    if isinstance(tree, Inert):
        raise WeightsError(f"{where} holds an object of {tree.name}; write the model's state_dict() with torch.save")
    if not isinstance(tree, dict):
        raise WeightsError(f"{where} holds a {type(tree).__name__}; expected a state dict, tensors by name")
    for nest in NESTS:
        if isinstance(tree.get(nest), dict) and tree[nest]:
            return find_state_dict(where, tree[nest])
    for key, value in tree.items():
        if isinstance(value, Inert) and value.name.startswith("torch._"):
            raise WeightsError(f"{where}: {key} is a tensor made by {value.name}, which is not read here")
    values = {str(key): value.tensor if isinstance(value, NumpyArray) else value for key, value in tree.items()}
    tensors = {key: value for key, value in values.items() if isinstance(value, View | PickledTensor)}
    if not tensors:
        names = ", ".join(key[:80] for key in list(values)[:20]) or "nothing"
        raise WeightsError(f"{where} has no tensors by name at its top or in {', '.join(NESTS)}; it has {names}")
    return tensors


def find_settings(tree: dict[Any, Any]) -> dict[str, Any] | None:
    """Numbers and texts among Lightning's `hyper_parameters`, of a model whose one argument is called `config`."""
    outer = tree.get("hyper_parameters")
    inner = outer.get("config") if isinstance(outer, dict) else None
    if not isinstance(inner, dict):
        return None
    return {key: value for key, value in inner.items() if isinstance(key, str) and isinstance(value, int | float | str)}


def _view(storage: object, offset: object, shape: object, strides: object, *rest: object) -> View | Inert:
    """`_rebuild_tensor` and `_rebuild_tensor_v2`: the third of the rest says that numbers are negated or conjugated."""
    shape, strides = check_shape(shape), check_shape(strides)
    if not (isinstance(storage, Storage) and type(offset) is int and offset >= 0 and len(shape) == len(strides)):
        raise ValueError("a tensor that is none")
    if any(rest[2:]):
        return Inert("torch._utils._rebuild_tensor_v2, negated or conjugated,")
    return View(storage=storage, offset=offset, shape=shape, strides=strides)


def _parameter(data: object, *_: object) -> object:
    return data


def _subclass(function: object, kind: object, arguments: object, state: object) -> object:
    return call(TORCH_CALLS, function, arguments)


TORCH_CALLS: Calls = {
    **CALLS,
    "torch._utils._rebuild_tensor": _view,
    "torch._utils._rebuild_tensor_v2": _view,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch._tensor._rebuild_from_type_v2": _subclass,
}
