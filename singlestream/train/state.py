"""The state of a run: a plain dict of arrays, made under jit so that each leaf is born where it belongs.

{"step": int32[], "params": ..., "opt_state": ..., "objectives": {name: ...}, "ema": like params, where used}
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh

from singlestream.batch import Spec
from singlestream.train.sharding import shard_state

State = dict[str, Any]
MakeModel = Callable[[], nnx.Module]


def split_model(make_model: MakeModel) -> tuple[Any, Any]:
    """The module's definition and the shapes of its parameters as a pure dict, without computing anything."""
    graphdef, params = nnx.split(nnx.eval_shape(make_model))
    return graphdef, nnx.to_pure_dict(params)


def init_state(
    make_model: MakeModel,
    optimizer: optax.GradientTransformation,
    objectives: Mapping[str, Any],
    spec: Spec,
    *,
    ema: bool,
) -> State:
    """The state at step 0."""
    params = nnx.to_pure_dict(nnx.split(make_model())[1])
    state = {
        "step": jnp.zeros((), jnp.int32),
        "params": params,
        "opt_state": optimizer.init(params),
        "objectives": {name: objective.init_state(spec) for name, objective in objectives.items()},
    }
    if ema:
        state["ema"] = params
    # A weakly typed leaf would come back from the first step strongly typed: another type, a second whole compile.
    return jax.tree.map(lambda leaf: jax.lax.convert_element_type(leaf, jnp.asarray(leaf).dtype), state)


def place_init(init: Callable[[], State], mesh: Mesh) -> tuple[Callable[[], State], State]:
    """The jitted initialiser with the table's shardings, and the shapes that it returns."""
    abstract = shard_state(jax.eval_shape(init), mesh)
    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract)
    # It runs once: on a CPU, optimising it takes seconds longer than running it unoptimised.
    quickly = {"xla_backend_optimization_level": 0} if mesh.devices.flat[0].platform == "cpu" else None
    return jax.jit(init, out_shardings=shardings, compiler_options=quickly), abstract


def take_params(fresh: Any, given: Mapping[str, Any], leave: Collection[str] = ()) -> tuple[Any, list[str], list[str]]:
    """Parameters of the same path and shape come from `given` ({path: array}); the rest stays fresh.

    Heads whose names `leave` holds stay fresh, too.

    Returns:
        The parameters, the paths taken, and those that stay fresh.
    """
    from singlestream.train.paths import map_with_path

    taken: list[str] = []
    left: list[str] = []

    def choose(path: str, leaf: jax.Array) -> jax.Array:
        left_out = path.startswith(tuple(f"heads/{name}/" for name in leave))
        if not left_out and path in given and tuple(given[path].shape) == tuple(leaf.shape):
            taken.append(path)
            return jax.device_put(jnp.asarray(given[path], leaf.dtype), leaf.sharding)
        left.append(path)
        return leaf

    return map_with_path(choose, fresh), taken, left
