"""Gradient descent for experiments that fit something small, compiled as one program."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import optax


def descend(
    loss: Callable[[Any, jax.Array], jax.Array], params: Any, key: jax.Array, *, steps: int, rate: float
) -> tuple[Any, jax.Array]:
    """Adam (Kingma & Ba 2015) on `loss(params, key)`, with a key of its own each step.

    Returns:
        The parameters at the end, and the loss before each step [steps].
    """
    optimizer = optax.adam(rate)

    def step(carry: tuple[Any, Any], key: jax.Array) -> tuple[tuple[Any, Any], jax.Array]:
        params, state = carry
        value, gradient = jax.value_and_grad(loss)(params, key)
        change, state = optimizer.update(gradient, state, params)
        return (optax.apply_updates(params, change), state), value

    (params, _), values = jax.lax.scan(step, (params, optimizer.init(params)), jax.random.split(key, steps))
    return params, values
