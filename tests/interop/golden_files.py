"""What the tests against authors' code share: numbers drawn by name, golden files, and comparisons with them.

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

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from singlestream.interop.build import build, find_plan, unbuild
from singlestream.interop.plan import Plan

GOLDEN = Path(__file__).parent / "golden"
STEPS = 3


class Held(np.ndarray):
    """An array as a file's tensor."""

    def read(self) -> np.ndarray:
        return np.asarray(self)


@functools.cache
def golden(name: str) -> Mapping[str, np.ndarray]:
    with np.load(GOLDEN / f"{name}.npz") as file:
        return dict(file)


def part(name: str, prefix: str) -> dict[str, np.ndarray]:
    """What a golden file holds under a prefix."""
    return {key.removeprefix(prefix): value for key, value in golden(name).items() if key.startswith(prefix)}


def shapes_of(name: str, case: str) -> dict[str, tuple[int, ...]]:
    """Of every tensor of the authors' file."""
    return {key: tuple(shape) for key, shape in json.loads(str(golden(name)[f"{case}/shapes"])).items()}


def by_name(name: str, case: str, kind: str) -> dict[str, np.ndarray]:
    """`gradients` of the parameters that the loss reaches, or those parameters `stepped`."""
    shapes, names = shapes_of(name, case), json.loads(str(golden(name)[f"{case}/trained"]))
    ends = np.cumsum([np.prod(shapes[key], dtype=int) for key in names])
    values = np.split(golden(name)[f"{case}/{kind}"], ends[:-1])
    return {key: value.reshape(shapes[key]) for key, value in zip(names, values, strict=True)}


def held(weights: Mapping[str, np.ndarray], dtype: Any) -> dict[str, Held]:
    """Tensors of a file; integers stay what they are."""
    arrays = {key: np.asarray(value) for key, value in weights.items()}
    return {key: (a.astype(dtype) if a.dtype.kind == "f" else a).view(Held) for key, a in arrays.items()}


def make(tensors: Mapping[str, Any], settings: Mapping[str, Any] | None) -> tuple[nnx.Module, Plan]:
    """Our model of a file."""
    plan = find_plan(tensors, settings, where="the test")
    return build(plan, tensors, where="the test")[0], plan


def check_written(module: nnx.Module, plan: Plan, tensors: Mapping[str, np.ndarray]) -> None:
    """Every tensor of the file comes back, bit for bit."""
    written = dict(unbuild(plan, module))
    assert written.keys() == tensors.keys()
    for key, value in written.items():
        np.testing.assert_array_equal(value, tensors[key], err_msg=key)


def close(actual: Any, expected: Any, tolerance: float, name: str) -> None:
    """Within `tolerance` of the largest value."""
    actual = np.asarray(actual)
    assert actual.shape == expected.shape, f"{name}: {actual.shape}, expected {expected.shape}"
    error = np.abs(actual - expected).max() / np.abs(expected).max()
    assert error < tolerance, f"{name}: relative to the largest value {error:.2e}"


def same_logits(actual: Any, expected: Any, tolerance: float, name: str) -> None:
    """Close, and largest at the same place."""
    close(actual, expected, tolerance, name)
    assert (np.asarray(actual).argmax(-1) == expected.argmax(-1)).all(), name


def cross_entropy(logits: Any, target: np.ndarray) -> Any:
    """Mean over the targets that are not negative."""
    kept = target >= 0
    chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), np.where(kept, target, 0)[..., None], -1)[..., 0]
    return -jnp.where(kept, chosen, 0).sum() / kept.sum()


def binary(logits: Any, target: np.ndarray) -> Any:
    """Binary cross-entropy, one by one."""
    return -(target * jax.nn.log_sigmoid(logits) + (1 - target) * jax.nn.log_sigmoid(-logits))


def reached(plan: Plan, name: str, case: str) -> Any:
    """Our parameters, 1 where the authors' loss reaches, else 0: torch leaves those alone, optax lets them decay.

    By name and not by gradient, since one may be 0 in truth and a rounding error on one side.
    """
    trained, copies = json.loads(str(golden(name)[f"{case}/trained"])), {copy.key for copy in plan.rules.copies}
    shapes = {key: shape for key, shape in shapes_of(name, case).items() if key not in copies}
    ones = {key: np.full(shape, float(key in trained)) for key, shape in shapes.items()}
    return nnx.to_pure_dict(nnx.split(build(plan, held(ones, np.float64), where="the test")[0])[1])


def check_training(
    module: nnx.Module,
    plan: Plan,
    loss_of: Callable[[nnx.Module], Any],
    name: str,
    case: str,
    *,
    tolerance: float,
    steps: int = 0,
) -> None:
    """The loss, every parameter's gradient, and the parameters after steps of AdamW.

    A gradient is within `tolerance` of the larger of its tensor's largest value and 1e-3 of the model's. The rules
    carry gradients as they carry parameters: every layout moves numbers about, and computes nothing.
    """
    graph, state = nnx.split(module)
    optimizer = optax.adamw(1e-3, b1=0.9, b2=0.999, eps=1e-8, weight_decay=0.01)

    @jax.jit
    def step(params: Any, moments: Any) -> Any:
        value, gradients = jax.value_and_grad(lambda params: loss_of(nnx.merge(graph, params)))(params)
        updates, moments = optimizer.update(gradients, moments, params)
        updates = jax.tree.map(jnp.multiply, updates, counted)
        return value, gradients, optax.apply_updates(params, updates), moments

    counted = reached(plan, name, case)
    params = nnx.to_pure_dict(state)
    value, gradients, params, moments = step(params, optimizer.init(params))
    np.testing.assert_allclose(value, golden(name)[f"{case}/loss"], rtol=tolerance)
    mine = dict(unbuild(plan, nnx.merge(graph, gradients)))
    expected = by_name(name, case, "gradients")
    whole = max(np.abs(gradient).max() for gradient in expected.values())
    passed_on = {copy.key for copy in plan.rules.copies} | {constant.key for constant in plan.rules.constants}
    assert expected.keys() <= mine.keys()
    for key in mine.keys() - passed_on:
        reference = expected.get(key, np.zeros_like(mine[key]))  # what the authors' loss does not reach
        error = np.abs(mine[key] - reference).max() / max(np.abs(reference).max(), 1e-3 * whole)
        assert error < tolerance, f"{key}: {error:.1e}"
    for _ in range(steps - 1):
        _, _, params, moments = step(params, moments)
    if steps:
        mine = dict(unbuild(plan, nnx.merge(graph, params)))
        for key, reference in by_name(name, case, "stepped").items():
            np.testing.assert_allclose(mine[key], reference, atol=1e-8, rtol=0, err_msg=key)
