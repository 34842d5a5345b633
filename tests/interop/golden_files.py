"""Golden files: what authors' code gave for numbers drawn by name, and comparisons with it.

A golden file holds, for each case, `shapes` of the file of weights, `logits` and `states`, and for a case that was
trained `loss`, `trained` (names), and of those parameters, flattened, `gradients` and what three steps of AdamW made of
them, `stepped` (`golden/authors.py` writes it). Needs no torch.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx

from singlestream.interop.build import build, find_plan
from singlestream.interop.plan import Plan
from tests.interop.compare import Precision, Training, check_training

GOLDEN = Path(__file__).parent / "golden"


@functools.cache
def golden(name: str) -> Mapping[str, np.ndarray]:
    with np.load(GOLDEN / f"{name}.npz") as file:
        return dict(file)


def part(name: str, prefix: str) -> dict[str, np.ndarray]:
    """What a golden file holds under a prefix."""
    return {key.removeprefix(prefix): value for key, value in golden(name).items() if key.startswith(prefix)}


def layers(name: str, prefix: str) -> list[np.ndarray]:
    """What it holds under a prefix and a number, in order."""
    found = {int(key): value for key, value in part(name, prefix).items() if key.isdigit()}
    return [found[i] for i in range(len(found))]


def shapes_of(name: str, case: str) -> dict[str, tuple[int, ...]]:
    """Of every tensor of the authors' file."""
    return {key: tuple(shape) for key, shape in json.loads(str(golden(name)[f"{case}/shapes"])).items()}


def by_name(name: str, case: str, kind: str) -> dict[str, np.ndarray]:
    """`gradients` of the parameters that the loss reaches, or those parameters `stepped`."""
    shapes, names = shapes_of(name, case), json.loads(str(golden(name)[f"{case}/trained"]))
    ends = np.cumsum([np.prod(shapes[key], dtype=int) for key in names])
    values = np.split(golden(name)[f"{case}/{kind}"], ends[:-1])
    return {key: value.reshape(shapes[key]) for key, value in zip(names, values, strict=True)}


def make(tensors: Mapping[str, Any], settings: Mapping[str, Any] | None) -> tuple[nnx.Module, Plan]:
    """Our model of a file."""
    plan = find_plan(tensors, settings, where="the test")
    return build(plan, tensors, where="the test")[0], plan


def check_trained(
    module: nnx.Module, plan: Plan, loss_of: Callable[[Any], Any], name: str, case: str, precision: Precision
) -> None:
    """The authors' loss, every parameter's gradient, and the parameters after their steps of AdamW."""
    loss = golden(name)[f"{case}/loss"]
    expected = Training(loss, by_name(name, case, "gradients"), by_name(name, case, "stepped"))
    check_training(module, plan, loss_of, expected, precision)
