"""Our parameters from a file's tensors by a family's rules, and a file's tensors from our parameters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from singlestream.interop.rules import Account, Rule, Rules, Tensor, WeightsError


def read_params(
    rules: Rules,
    tensors: Mapping[str, Tensor],
    shapes: Mapping[str, tuple[int, ...]],
    *,
    strict: bool = True,
    fresh: tuple[str, ...] = (),
    where: str,
) -> tuple[dict[str, np.ndarray], Account]:
    """Our parameters {path: float32 or float64 array} from a file's tensors, one tensor at a time.

    Args:
        shapes: of all our parameters, by path.
        fresh: beginnings of paths that the file cannot have.
        strict: refuse whatever is missing, left over, or of another shape; else it is skipped, and accounted for.
        where: the file, for messages.

    Raises:
        WeightsError: lists every missing, unused and misfitting key; nothing was read yet.
    """
    known = {each.key for each in rules.constants} | {each.key for each in rules.copies}
    missing: list[str] = []
    misfits: list[str] = []
    fit: list[Rule] = []
    for rule in rules.rules:
        found = _compare(rule, tensors, shapes)
        missing += found[0]
        misfits += found[1]
        if not any(found):
            fit.append(rule)
    for copy in rules.copies:
        if copy.key in tensors and copy.of in tensors and not _equal(tensors[copy.key], tensors[copy.of]):
            misfits.append(f"{copy.key} differs from {copy.of}, here they are one")
    # Refused is a key that no rule knows; skipped is also one whose rule lacks another key.
    known.update(key for rule in (rules.rules if strict else fit) for key in _keys(rule, shapes))
    account = Account(
        taken={path: tuple(_keys(rule, shapes)) for rule in fit for path in rule.ours},
        fresh=tuple(sorted(set(shapes) - {path for rule in fit for path in rule.ours})),
        unused=tuple(sorted(set(tensors) - known)),
        misfits=tuple(misfits),
    )
    # What has a rule is among the missing or the misfits already.
    ruled = {path for rule in rules.rules for path in rule.ours}
    bare = sorted(path for path in shapes if path not in ruled and not path.startswith(fresh))
    if strict and (missing or misfits or account.unused or bare):
        raise WeightsError(_complaint(where, missing, bare, account))
    return {path: array for rule in fit for path, array in _read(rule, tensors, shapes).items()}, account


def write_params(rules: Rules, params: Mapping[str, np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
    """Every (key, array) of their file, from our parameters by path; the inverse of `read_params`.

    The arrays are views of ours wherever a layout allows it, so that a list of them all takes little memory.
    """
    written: dict[str, np.ndarray] = {}
    sources = {copy.of for copy in rules.copies}
    for rule in rules.rules:
        arrays = [np.asarray(params[path]) for path in rule.ours]
        for i in range(len(arrays[0])) if rule.stacked else (None,):
            parts = rule.layout.write(*(arrays if i is None else (a[i] for a in arrays)))
            for key, part in zip(rule.keys(i), parts, strict=True):
                if key in sources:
                    written[key] = part
                yield key, part
    for copy in rules.copies:
        yield copy.key, written[copy.of]
    for constant in rules.constants:
        if constant.value is not None:
            yield constant.key, constant.value


def _keys(rule: Rule, shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
    if not rule.stacked:
        return rule.keys(None)
    num_layers = shapes[rule.ours[0]][0] if rule.ours[0] in shapes else 0
    return [key for i in range(num_layers) for key in rule.keys(i)]


def _compare(
    rule: Rule, tensors: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]]
) -> tuple[list[str], list[str]]:
    """The rule's keys that are missing, and lines about those of another shape or type."""
    if absent := [path for path in rule.ours if path not in shapes]:
        # A fault of the family's table and not of the file.
        raise KeyError(f"a rule names {absent[0]}, which the model does not have")
    slices = [shapes[path][1:] if rule.stacked else shapes[path] for path in rule.ours]
    # Arrays without memory of their own: only their shapes count.
    expected = [part.shape for part in rule.layout.write(*(np.broadcast_to(np.float32(0), s) for s in slices))]
    missing, misfits = [], []
    for i in range(shapes[rule.ours[0]][0]) if rule.stacked else (None,):
        for key, shape in zip(rule.keys(i), expected, strict=True):
            if key not in tensors:
                missing.append(key)
            elif tuple(tensors[key].shape) != shape:
                misfits.append(f"{key} is {list(tensors[key].shape)}, expected {list(shape)}")
            elif tensors[key].dtype.kind in "biu":
                misfits.append(f"{key} is {tensors[key].dtype}, expected floating point")
    return missing, misfits


def _equal(one: Tensor, other: Tensor) -> bool:
    return tuple(one.shape) == tuple(other.shape) and np.array_equal(one.read(), other.read(), equal_nan=True)


def _read(rule: Rule, tensors: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    if not rule.stacked:
        arrays = rule.layout.read(*(_wide(tensors[key].read()) for key in rule.keys(None)))
        return {path: np.asarray(a, order="C") for path, a in zip(rule.ours, arrays, strict=True)}
    result: dict[str, np.ndarray] = {}
    for i in range(shapes[rule.ours[0]][0]):
        arrays = rule.layout.read(*(_wide(tensors[key].read()) for key in rule.keys(i)))
        for path, array in zip(rule.ours, arrays, strict=True):
            if path not in result:
                result[path] = np.empty(shapes[path], array.dtype)
            result[path][i] = array
    return result


def _wide(array: np.ndarray) -> np.ndarray:
    """Half precision becomes float32, exactly; parameters are float32 or float64."""
    return array if array.dtype in (np.float32, np.float64) else array.astype(np.float32)


def _complaint(where: str, missing: Sequence[str], bare: Sequence[str], account: Account) -> str:
    lists = (
        ("missing", missing),
        ("not known here", account.unused),
        ("not as expected", account.misfits),
        ("parameters that no key stands for", bare),
    )
    parts = [f"{title}: {', '.join(names)}" for title, names in lists if names]
    return f"{where} does not fit ({'; '.join(parts)}); nothing was loaded. strict=False takes what fits"
