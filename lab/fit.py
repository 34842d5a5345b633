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
    return descend_over(loss, params, jax.random.split(key, steps), optax.adam(rate))


def descend_over(
    loss: Callable[[Any, Any], jax.Array], params: Any, each: Any, optimizer: optax.GradientTransformation
) -> tuple[Any, jax.Array]:
    """A step on `loss(params, x)` for each x of `each`: arrays with a leading axis of steps."""

    def step(carry: tuple[Any, Any], x: Any) -> tuple[tuple[Any, Any], jax.Array]:
        params, state = carry
        value, gradient = jax.value_and_grad(loss)(params, x)
        change, state = optimizer.update(gradient, state, params)
        return (optax.apply_updates(params, change), state), value

    (params, _), values = jax.lax.scan(step, (params, optimizer.init(params)), each)
    return params, values
