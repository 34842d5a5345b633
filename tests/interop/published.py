"""Models of transformers with random weights, and ours made of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from flax import nnx

from singlestream.interop.build import build, find_plan, unbuild
from singlestream.interop.plan import Plan


@dataclasses.dataclass(frozen=True)
class Held:
    """A tensor of a file, held in memory."""

    array: np.ndarray

    shape = property(lambda self: self.array.shape)
    dtype = property(lambda self: self.array.dtype)

    def read(self) -> np.ndarray:
        return self.array


def state(model: torch.nn.Module) -> dict[str, Held]:
    return {key: Held(value.detach().numpy().copy()) for key, value in model.state_dict().items()}


def randomise(model: torch.nn.Module, seed: int) -> torch.nn.Module:
    """Every parameter drawn anew, LayerNorms and biases too, so that none of them is a neutral element."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in model.named_parameters():
            scale = 0.1 if value.ndim > 1 else 0.2
            offset = 1.0 if "norm" in name.lower() and name.endswith("weight") else 0.0
            value.copy_(offset + scale * torch.randn(value.shape, generator=generator, dtype=value.dtype))
    return model.eval()


def ours(model: torch.nn.Module) -> tuple[nnx.Module, Plan]:
    """Our model of theirs."""
    tensors = state(model)
    plan = find_plan(tensors, model.config.to_dict(), where="the test")
    return build(plan, tensors, where="the test")[0], plan


def close(actual: Any, expected: Any, *, tolerance: float) -> None:
    """Within `tolerance` of the largest value."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape, (actual.shape, expected.shape)
    error = np.abs(actual - expected).max() / np.abs(expected).max()
    assert error < tolerance, f"relative to the largest value {error:.2e}"


def to_numpy(tensors: Mapping[str, torch.Tensor]) -> dict[str, np.ndarray]:
    return {name: value.detach().numpy() for name, value in tensors.items()}


def tree_by_path(tree: Any) -> dict[str, np.ndarray]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(keys, simple=True, separator="/"): np.asarray(leaf) for keys, leaf in leaves}


def with_params(module: nnx.Module, params: Any) -> nnx.Module:
    return nnx.merge(nnx.split(module)[0], params)


def params_of(module: nnx.Module) -> Any:
    return nnx.to_pure_dict(nnx.split(module)[1])


def check_gradients(
    model: torch.nn.Module, loss: torch.Tensor, module: nnx.Module, plan: Plan, loss_fn: Any, *, tolerance: float
) -> None:
    """Each parameter's gradient within `tolerance` of the larger of its largest value and 1e-3 of the model's.

    The rules carry gradients as they carry parameters: every layout moves numbers about, and computes nothing.
    """
    model.zero_grad()
    loss.backward()
    value, gradients = jax.jit(jax.value_and_grad(lambda params: loss_fn(with_params(module, params))))(
        params_of(module)
    )
    np.testing.assert_allclose(value, loss.item(), rtol=tolerance)
    mine = dict(unbuild(plan, with_params(module, gradients)))
    theirs = {name: p.grad.numpy() for name, p in model.named_parameters() if p.grad is not None}
    whole = max(np.abs(gradient).max() for gradient in theirs.values())
    for name, expected in theirs.items():
        scale = max(np.abs(expected).max(), 1e-3 * whole)
        error = np.abs(mine[name] - expected).max() / scale
        assert error < tolerance, f"{name}: {error:.1e}"


def check_steps(
    model: torch.nn.Module, loss: Any, module: nnx.Module, plan: Plan, loss_fn: Any, *, steps: int = 3
) -> None:
    """Three steps of AdamW on both sides, in float64: parameters within 1e-8."""
    settings = dict(weight_decay=0.01, eps=1e-8)
    theirs = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.999), **settings)
    for _ in range(steps):
        theirs.zero_grad()
        loss().backward()
        theirs.step()
    optimizer = optax.adamw(1e-3, b1=0.9, b2=0.999, **settings)

    @jax.jit
    def step(params: Any, state: Any) -> tuple[Any, Any]:
        gradients = jax.grad(lambda params: loss_fn(with_params(module, params)))(params)
        updates, state = optimizer.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    params = params_of(module)
    state_ = optimizer.init(params)
    for _ in range(steps):
        params, state_ = step(params, state_)
    mine = dict(unbuild(plan, with_params(module, params)))
    used = {name for name, p in model.named_parameters() if p.grad is not None}  # torch leaves the others as they are
    for name, expected in model.named_parameters():
        if name in used:
            np.testing.assert_allclose(mine[name], expected.detach().numpy(), atol=1e-8, rtol=0, err_msg=name)


def cross_entropy(logits: Any, labels: np.ndarray) -> Any:
    """Mean over the labels that are not -100, as torch's."""
    kept = labels != -100
    chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), np.where(kept, labels, 0)[..., None], -1)[..., 0]
    return -jnp.where(kept, chosen, 0).sum() / kept.sum()
