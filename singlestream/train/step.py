"""One step of training and one of evaluation: pure functions over the state, compiled once for a mesh."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Int32

from singlestream.batch import Batch, Spec
from singlestream.config import Config
from singlestream.objectives.total import drawn_loss, loss_weights, total_loss
from singlestream.train.metrics import Packed
from singlestream.train.optimizer import make_schedule, trainable
from singlestream.train.sharding import gather
from singlestream.train.state import State

Metrics = dict[str, tuple[jax.Array, jax.Array]]  # name -> (sum, count)
TrainStep = Callable[[State, Batch], tuple[State, Metrics]]
EvalStep = Callable[[State, Batch, jax.Array], Metrics]


def weighted_loss(metrics: Metrics, weights: Mapping[str, float]) -> jax.Array:
    """sum of weight * sum / count over the loss terms that `weights` names (`objectives.total.loss_weights`)."""
    terms = [weight * metrics[name][0] / jnp.maximum(metrics[name][1], 1) for name, weight in weights.items()]
    return sum(terms, jnp.zeros((), jnp.float32))


def make_train_step(
    graphdef: Any,
    objectives: Mapping[str, Any],
    optimizer: optax.GradientTransformation,
    config: Config,
    spec: Spec,
    mesh: Mesh | None = None,
) -> TrainStep:
    """(state, batch) -> (state, metrics).

    Metrics are those of the objectives, and `loss`, `gradient_norm` (before clipping, of what is trained),
    `learning_rate` and `examples`, which are a step's and count 1.
    The randomness of a step is a function of `config.seed` and the step's number: noise, masks, negatives, and with
    `config.train.one_objective` also whose step it is.
    """
    parts, train = config.train.accumulate, config.train
    rates = {name: config.objectives[name] for name in sorted(objectives)}
    weights = loss_weights(objectives, dict.fromkeys(rates, 1.0) if train.one_objective else rates)

    rate = make_schedule(train, train.learning_rate)
    taught = any(objective.needs_average for objective in objectives.values())

    def part_fn(ema: Any, drawn: Any, params: Any, kept: Any, batch: Batch, key: jax.Array) -> tuple[Metrics, Any]:
        model, teacher = nnx.merge(graphdef, params), nnx.merge(graphdef, ema) if taught else None
        if train.one_objective:
            return drawn_loss(drawn, model, objectives, batch, spec, key, kept, teacher=teacher)
        return total_loss(model, objectives, batch, spec, key, kept, train=True, teacher=teacher)

    def step_fn(state: State, batch: Batch) -> tuple[State, Metrics]:
        key = jax.random.fold_in(jax.random.key(config.seed), state["step"])
        drawn = None
        if train.one_objective:
            draw_key, key = jax.random.split(key)
            drawn = draw_objective(draw_key, rates)
        gradients_of = _whole if parts == 1 else _in_parts(parts)
        gathered = gather(state["params"], mesh)
        part_of = functools.partial(part_fn, gather(state["ema"], mesh) if taught else None, drawn)
        before = gather(state["objectives"], mesh)
        grads, metrics, kept = gradients_of(part_of, weights, gathered, before, batch, key)
        updates, opt_state = optimizer.update(grads, state["opt_state"], state["params"])
        params = optax.apply_updates(state["params"], updates)
        new = {"step": state["step"] + 1, "params": params, "opt_state": opt_state, "objectives": kept}
        if "ema" in state:
            new["ema"] = _average(state["ema"], params, state["step"], train.ema_decay)
        trained = jax.tree.map(lambda g, on: g if on else jnp.zeros_like(g), grads, trainable(params, train))
        one = jnp.ones((), jnp.float32)
        metrics["loss"] = (weighted_loss(metrics, weights), one)
        metrics["gradient_norm"] = (optax.tree.norm(trained), one)
        metrics["learning_rate"] = (rate(state["step"]), one)
        metrics["examples"] = (batch.example_mask.sum(dtype=jnp.float32), one)
        return new, metrics

    return step_fn


def draw_objective(key: jax.Array, rates: Mapping[str, float]) -> Int32[jax.Array, ""]:
    """The number of an objective in the order of `rates`, drawn in proportion to them."""
    return jax.random.categorical(key, jnp.log(jnp.array(list(rates.values())))).astype(jnp.int32)


def _whole(
    part_fn: Callable, weights: Mapping[str, float], params: Any, kept: Any, batch: Batch, key: jax.Array
) -> tuple[Any, Metrics, Any]:
    """Gradients, metrics and the objectives' state of a batch computed in one go."""

    def loss_fn(params: Any) -> tuple[jax.Array, tuple[Metrics, Any]]:
        metrics, new = part_fn(params, kept, batch, key)
        return weighted_loss(metrics, weights), (metrics, new)

    grads, (metrics, kept) = jax.grad(loss_fn, has_aux=True)(params)
    return grads, metrics, kept


def _in_parts(num: int) -> Callable:
    """The same in `num` parts one after the other, with the gradient of the whole batch's loss.

    An objective's loss is a sum over a count; the mean of the parts' means would weigh a part with few masked words
    as much as one with many. So the counts come first, in a pass whose forward computation nobody reads (XLA drops
    it), then each part's sums are differentiated over the whole batch's counts. What an objective draws from other
    rows (negatives of `itm`) comes from the part.
    """

    def gradients_of(
        part_fn: Callable, weights: Mapping[str, float], params: Any, kept: Any, batch: Batch, key: Any
    ) -> tuple[Any, Metrics, Any]:
        # Rows i, i + num, ... make part i: under data parallelism every device has its share of every part.
        split = jax.tree.map(lambda x: jnp.swapaxes(x.reshape(-1, num, *x.shape[1:]), 0, 1), batch)
        parts = (split, jax.random.split(key, num))

        def count(kept: Any, part: Any) -> tuple[Any, dict[str, jax.Array]]:
            metrics, kept = part_fn(params, kept, *part)
            return kept, {name: n for name, (_, n) in metrics.items()}

        counts = jax.tree.map(lambda n: n.sum(), jax.lax.scan(count, kept, parts)[1])

        def add(carry: Any, part: Any) -> tuple[Any, Metrics]:
            grads, kept = carry

            def loss_fn(params: Any) -> tuple[jax.Array, tuple[Metrics, Any]]:
                metrics, new = part_fn(params, kept, *part)
                over_all = {name: (total, counts[name]) for name, (total, _) in metrics.items()}
                return weighted_loss(over_all, weights), (metrics, new)

            part_grads, (metrics, kept) = jax.grad(loss_fn, has_aux=True)(params)
            return (jax.tree.map(jnp.add, grads, part_grads), kept), metrics

        zeros = jax.tree.map(jnp.zeros_like, params)
        (grads, kept), metrics = jax.lax.scan(add, (zeros, kept), parts)
        return grads, jax.tree.map(lambda x: x.sum(), metrics), kept

    return gradients_of


def _average(ema: Any, params: Any, step: jax.Array, decay: float) -> Any:
    """Exponential moving average whose decay grows from 0.1: min(decay, (1 + n) / (10 + n)), n steps taken.

    Without the ramp the average of a short run would mostly be its random start.
    """
    n = step.astype(jnp.float32)
    rate = 1 - jnp.minimum(decay, (1 + n) / (10 + n))
    return jax.tree.map(lambda average, p: average + rate * (p - average), ema, params)


def make_eval_step(
    graphdef: Any, objectives: Mapping[str, Any], config: Config, spec: Spec, mesh: Mesh | None = None
) -> EvalStep:
    """(state, batch, number) -> the objectives' metrics, with the averaged parameters where there are some.

    `number` (int32[]) counts the batches of an evaluation: what an objective draws is the same in every evaluation.
    The loss is made of an evaluation's totals (`metrics.Totals.means`): a batch's loss divides by the batch's counts.
    """

    def eval_fn(state: State, batch: Batch, number: jax.Array) -> Metrics:
        key = jax.random.fold_in(jax.random.key(config.seed), number)
        model = nnx.merge(graphdef, gather(state["ema"] if "ema" in state else state["params"], mesh))
        kept = gather(state["objectives"], mesh)
        metrics, _ = total_loss(model, objectives, batch, spec, key, kept, train=False)
        return metrics

    return eval_fn


def compile_train_step(step_fn: TrainStep, state: State, batch: Batch, mesh: Mesh) -> jax.stages.Compiled:
    """(state, batch) -> (state, `Packed` metrics), compiled ahead of time for the shapes and shardings given.

    The state is donated: its memory becomes the next state's.

    Args:
        state: its shapes, from `sharding.shard_state`.
        batch: its shapes, from `sharding.shard_rows`.
    """

    def packed_fn(state: State, batch: Batch) -> tuple[State, Packed]:
        state, metrics = step_fn(state, batch)
        return state, Packed.of(metrics)

    whole = NamedSharding(mesh, PartitionSpec())
    shardings = jax.tree.map(lambda leaf: leaf.sharding, state)
    return jax.jit(packed_fn, donate_argnums=0, out_shardings=(shardings, whole)).lower(state, batch).compile()


def compile_eval_step(eval_fn: EvalStep, state: State, batch: Batch, mesh: Mesh) -> jax.stages.Compiled:
    """(state, batch, number) -> `Packed` metrics, likewise."""
    whole = NamedSharding(mesh, PartitionSpec())
    number = jax.ShapeDtypeStruct((), jnp.int32, sharding=whole)
    packed_fn = jax.jit(lambda *args: Packed.of(eval_fn(*args)), out_shardings=whole)
    return packed_fn.lower(state, batch, number).compile()
