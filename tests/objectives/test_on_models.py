"""Pre-training objectives on small models: gradients against differences, and rows laid out in other ways."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from singlestream.batch import Regions, Text, make_batch
from singlestream.model.build import build_model
from singlestream.objectives.total import total_loss
from tests.model.toy import CONFIG, SPEC, pack, random_batch

from .toy import KEY, build

REGIONS = dataclasses.replace(
    CONFIG, num_layers=1, image_stem="regions", image_positions="boxes", region_dim=6, dtype="float64"
)
OPTIONS = {
    "itc": {"size": 5, "queue": 8},
    "itm": {"hard": True},
    "mlm": {"rate": 0.4},
    "mrm": {"rate": 0.4, "targets": ("features",)},
    "distill": {"ramp": 0},
}
WEIGHTS = {"itc": 1.0, "itm": 1.0, "mlm": 1.0, "mrm": 1.0, "distill": 0.4}


def _params(model, objectives, seed):
    """The definition of the model with the objectives' heads, and random parameters."""
    heads = {name: head for objective in objectives.values() for name, head in objective.heads(model, SPEC).items()}
    graph, state = nnx.split(nnx.eval_shape(lambda: build_model(model, SPEC, heads=heads, rngs=nnx.Rngs(0))))
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        offset = 1.0 if path[-1].key == "scale" else 0.0
        return jnp.asarray(offset + 0.3 * rng.normal(size=leaf.shape), leaf.dtype)

    return graph, jax.tree_util.tree_map_with_path(draw, nnx.to_pure_dict(state))


def _terms_fn(graph, objectives, state, teacher):
    """(parameters, batch) -> each loss as a mean."""

    def terms(params, batch):
        model, average = nnx.merge(graph, params), nnx.merge(graph, teacher)
        metrics, _ = total_loss(model, objectives, batch, SPEC, KEY, state, train=False, teacher=average)
        return {name: total / count for name, (total, count) in metrics.items() if name.endswith("loss")}

    return terms


def _regions_batch():
    rng = np.random.default_rng(0)
    boxes = np.sort(rng.random((4, 3, 2, 2), np.float32), axis=2).reshape(4, 3, 4)
    return make_batch(
        text=Text(ids=rng.integers(5, SPEC.vocab_size, (4, 5), np.int32)),
        image=Regions(features=rng.normal(size=(4, 3, 6)).astype(np.float32), boxes=boxes),
    )


def test_gradients_are_those_of_differences():
    """In float64, along a random direction, which leaves the temperature of `itc` where it is: `distill` has it in its
    targets, too, and these are held fixed. So is the transport of `wpa`, which has a test of its own.
    """
    with jax.enable_x64(True):
        objectives = build(WEIGHTS, model=REGIONS, ema_decay=0.9, **OPTIONS)
        graph, params = _params(REGIONS, objectives, 0)
        _, teacher = _params(REGIONS, objectives, 1)
        _, way = _params(REGIONS, objectives, 2)
        way["heads"]["itc_scale"]["constant"] *= 0
        state = {name: objective.init_state(SPEC) for name, objective in objectives.items()}
        batch, step = _regions_batch(), 1e-5
        terms = jax.jit(_terms_fn(graph, objectives, state, teacher))
        slopes = jax.jit(jax.jacrev(_terms_fn(graph, objectives, state, teacher)))(params, batch)
        up, down = (terms(jax.tree.map(lambda p, w, by=by: p + by * w, params, way), batch) for by in (step, -step))
        assert set(up) == {
            "itc/loss",
            "itm/loss",
            "mlm/loss",
            "mrm/features_loss",
            "distill/itc_loss",
            "distill/mlm_loss",
        }
        for name, slope in slopes.items():
            along = sum(jax.tree.leaves(jax.tree.map(lambda g, w: float((g * w).sum()), slope, way)))
            assert abs(along) > 1e-3, name
            np.testing.assert_allclose(along, float(up[name] - down[name]) / (2 * step), rtol=1e-6, err_msg=name)


@functools.cache
def _whole_sums():
    objectives = build(
        {"itc": 1.0, "wpa": 0.1, "mrm": 1.0},
        model=CONFIG,
        itc={"size": 5},
        mrm={"targets": ("pixels",), "rate": 1 - 1e-9},  # all of them: what is drawn depends on the layout
    )
    graph, params = _params(CONFIG, objectives, 0)
    state = {name: objective.init_state(SPEC) for name, objective in objectives.items()}

    @jax.jit
    def sums(batch):
        return total_loss(nnx.merge(graph, params), objectives, batch, SPEC, KEY, state, train=False)[0]

    return sums


@pytest.mark.parametrize("places", [(0, 0, 1, 1), (0, 1, 2, 2)])
def test_padding_and_packing_change_nothing(places):
    """Four examples alone in their rows, and side by side in fewer, in an order of their own, with padding between."""
    batches = [random_batch(seed, rows=1, text=2 + seed, grid=(1 + seed % 2, 3)) for seed in range(4)]
    alone = pack(list(zip(batches, range(4), strict=True)), text_slot=5, num_patches=6, rows=4, slots=1)
    order = [2, 0, 3, 1]
    packed = pack(
        [(batches[i], row) for i, row in zip(order, places, strict=True)], text_slot=8, num_patches=7, rows=3, slots=2
    )
    expected, found = (_whole_sums()(batch) for batch in (alone, packed))
    for name, pair in expected.items():
        np.testing.assert_allclose(found[name], pair, rtol=2e-5, err_msg=name)
    assert expected["itc/loss"][1] == expected["wpa/loss"][1] == 4 and expected["mrm/pixels_loss"][1] == 3 + 6 + 3 + 6
