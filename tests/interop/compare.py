"""How near the models here have to be to their references, whichever those are. Needs no torch."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from singlestream.batch import Batch, make_batch
from singlestream.interop.build import build, unbuild
from singlestream.interop.plan import Plan

STEPS = 3  # of AdamW


@dataclasses.dataclass(frozen=True)
class Precision:
    """What both sides compute in, the largest differences of outputs and of gradients, and the steps that are taken.

    An output's difference is relative to its largest value; a gradient's to the larger of its tensor's largest value
    and 1e-3 of the model's. `compiler` are options for gradients without steps.
    """

    dtype: str
    outputs: float
    gradients: float
    steps: int
    compiler: Mapping[str, Any] | None = None

    def enabled(self) -> contextlib.AbstractContextManager[Any]:
        return jax.enable_x64(self.dtype == "float64")


# Other tests compile quickly (conftest.py); what float32 rounds hangs on how it is compiled.
AS_USED = {"xla_backend_optimization_level": 3, "xla_cpu_use_fusion_emitters": True}
SINGLE = Precision("float32", outputs=2e-5, gradients=1e-4, steps=0, compiler=AS_USED)
DOUBLE = Precision("float64", outputs=1e-10, gradients=1e-8, steps=STEPS)


@dataclasses.dataclass(frozen=True)
class Training:
    """What a reference's training gave: its loss, gradients of the parameters that it reaches, these after steps."""

    loss: float | np.ndarray
    gradients: Mapping[str, np.ndarray]
    stepped: Mapping[str, np.ndarray]


class Held(np.ndarray):
    """An array as a file's tensor."""

    def read(self) -> np.ndarray:
        return np.asarray(self)


def held(weights: Mapping[str, np.ndarray], dtype: Any = None) -> dict[str, Held]:
    """Tensors of a file, floats in another dtype where one is given."""
    arrays = {key: np.asarray(value) for key, value in weights.items()}
    return {key: (a.astype(dtype) if dtype and a.dtype.kind == "f" else a).view(Held) for key, a in arrays.items()}


# ---- batches, and what a model makes of them -------------------------------------------------------------------------


def beside(first: Any, second: Any) -> Any:
    """The tokens of two batches as those of one, whose rows hold both examples, in segments 1 and 2."""
    second = dataclasses.replace(second, segments=2 * second.segments)
    return jax.tree.map(lambda a, b: np.concatenate([a, b], 1), first, second)


def paired(batch: Batch) -> Batch:
    """Rows 2i and 2i + 1 side by side, as a head of pairs reads them."""
    even, odd = jax.tree.map(lambda x: x[::2], batch.inputs), jax.tree.map(lambda x: x[1::2], batch.inputs)
    return make_batch(**{name: beside(even[name], odd[name]) for name in batch.inputs})


def outputs(module: Any, batch: Batch) -> tuple[Any, dict[str, Any]]:
    """States, and every head's logits."""
    encoded = module(batch)
    return encoded, {name: head(encoded) for name, head in module.heads.items()}


def jitted(function: Callable[..., Any], module: nnx.Module, *args: Any) -> Any:
    """`function(module, *args)`, compiled; the parameters are arguments, so that none is folded."""
    graph, params = nnx.split(module)
    return jax.jit(lambda params, *args: function(nnx.merge(graph, params), *args))(params, *args)


def cross_entropy(logits: Any, target: np.ndarray) -> Any:
    """Mean over the targets that are not negative."""
    kept = target >= 0
    chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), np.where(kept, target, 0)[..., None], -1)[..., 0]
    return -jnp.where(kept, chosen, 0).sum() / kept.sum()


def binary(logits: Any, target: np.ndarray) -> Any:
    """Binary cross-entropy, one by one."""
    return -(target * jax.nn.log_sigmoid(logits) + (1 - target) * jax.nn.log_sigmoid(-logits))


# ---- comparisons -----------------------------------------------------------------------------------------------------


def close(actual: Any, expected: Any, tolerance: float, name: str = "") -> None:
    """Within `tolerance` of the largest value."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape, f"{name}: {actual.shape}, expected {expected.shape}"
    error = np.abs(actual - expected).max() / np.abs(expected).max()
    assert error < tolerance, f"{name}: relative to the largest value {error:.2e}"


def same_logits(actual: Any, expected: Any, tolerance: float, name: str) -> None:
    """Close, and largest at the same place."""
    close(actual, expected, tolerance, name)
    assert (np.asarray(actual).argmax(-1) == np.asarray(expected).argmax(-1)).all(), name


def check_states(
    hidden: Sequence[Any], expected: Sequence[Any], seen: np.ndarray, tolerance: float, name: str = "layer"
) -> None:
    """Every layer's states [B, L, ...] where `seen` [B, L]; a reference may have less tokens, the first ones."""
    assert len(hidden) == len(expected)
    for i, (states, reference) in enumerate(zip(hidden, expected, strict=True)):
        length = reference.shape[1]
        read = seen[:, :length]
        close(np.asarray(states)[:, :length][read], np.asarray(reference)[read], tolerance, f"{name} {i}")


def check_heads(
    module: Any, logits: Mapping[str, Any], expected: Mapping[str, Any], seen: Mapping[str, Any], tolerance: float
) -> None:
    """Logits of tokens where those are seen, of the others each row's first."""
    for name, reference in expected.items():
        source, mine = module.heads[name].head.source, np.asarray(logits[name])
        mine, reference = (mine[seen[source]], reference[seen[source]]) if source in seen else (mine[:, 0], reference)
        same_logits(mine, reference, tolerance, name)


def check_written(module: nnx.Module, plan: Plan, tensors: Mapping[str, np.ndarray]) -> None:
    """Every tensor of the file comes back, bit for bit."""
    written = dict(unbuild(plan, module))
    assert written.keys() == tensors.keys()
    for key, value in written.items():
        np.testing.assert_array_equal(value, tensors[key], err_msg=key)


# ---- training --------------------------------------------------------------------------------------------------------


def check_training(
    module: nnx.Module, plan: Plan, loss_of: Callable[[Any], Any], expected: Training, precision: Precision
) -> None:
    """The loss, every parameter's gradient, and the parameters after the precision's steps of AdamW.

    The rules carry gradients as they carry parameters: every layout moves numbers about, and computes nothing.
    """
    graph, state = nnx.split(module)
    params = nnx.to_pure_dict(state)
    gradients_of = jax.value_and_grad(lambda params: loss_of(nnx.merge(graph, params)))
    if precision.steps:
        counted = reached(module, plan, expected.gradients)
        value, gradients, params = take_steps(gradients_of, params, counted, precision.steps)
    else:
        value, gradients = jax.jit(gradients_of, compiler_options=precision.compiler)(params)
    np.testing.assert_allclose(value, expected.loss, rtol=precision.gradients)
    check_gradients(dict(unbuild(plan, nnx.merge(graph, gradients))), plan, expected.gradients, precision.gradients)
    if precision.steps:
        mine = dict(unbuild(plan, nnx.merge(graph, params)))
        for key, reference in expected.stepped.items():
            np.testing.assert_allclose(mine[key], reference, atol=1e-8, rtol=0, err_msg=key)


def check_gradients(
    mine: Mapping[str, np.ndarray], plan: Plan, expected: Mapping[str, np.ndarray], tolerance: float
) -> None:
    """By the file's names; 0 where the reference's loss does not reach."""
    whole = max(np.abs(gradient).max() for gradient in expected.values())
    assert expected.keys() <= mine.keys()
    for key in mine.keys() - passed_on(plan):
        reference = expected.get(key, np.zeros_like(mine[key]))
        error = np.abs(mine[key] - reference).max() / max(np.abs(reference).max(), 1e-3 * whole)
        assert error < tolerance, f"{key}: {error:.1e}"


def take_steps(gradients_of: Callable[[Any], Any], params: Any, counted: Any, steps: int) -> tuple[Any, Any, Any]:
    """Loss and gradients of the first step, and the parameters after the last."""
    optimizer = optax.adamw(1e-3, b1=0.9, b2=0.999, eps=1e-8, weight_decay=0.01)

    @jax.jit
    def step(params: Any, moments: Any) -> Any:
        found = gradients_of(params)
        updates, moments = optimizer.update(found[1], moments, params)
        return found, optax.apply_updates(params, jax.tree.map(jnp.multiply, updates, counted)), moments

    first, params, moments = step(params, jax.jit(optimizer.init)(params))
    for _ in range(steps - 1):
        _, params, moments = step(params, moments)
    return *first, params


def reached(module: nnx.Module, plan: Plan, names: Mapping[str, Any]) -> Any:
    """Our parameters, 1 where the reference's loss reaches, else 0: torch leaves those alone, optax lets them decay.

    By name and not by gradient, since one may be 0 in truth and a rounding error on one side.
    """
    shapes = {key: value.shape for key, value in unbuild(plan, module) if key not in passed_on(plan)}
    ones = {key: np.full(shape, float(key in names)) for key, shape in shapes.items()}
    return nnx.to_pure_dict(nnx.split(build(plan, held(ones), where="the test")[0])[1])


def passed_on(plan: Plan) -> set[str]:
    """Keys of a file that are no parameters of their own."""
    return {copy.key for copy in plan.rules.copies} | {constant.key for constant in plan.rules.constants}
