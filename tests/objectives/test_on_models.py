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
from singlestream.objectives import itm, mlm
from singlestream.objectives.total import total_loss
from tests.model.toy import CONFIG, SPEC, pack, random_batch

from .toy import KEY, build, check_slope

REGIONS = dataclasses.replace(
    CONFIG, num_layers=1, image_stem="regions", image_positions="boxes", region_dim=6, dtype="float64"
)
OPTIONS = {
    "itc": {"size": 5, "queue": 8},
    "itm": {"hard": True},
    "mlm": {"rate": 0.4},
    "mrm": {"rate": 0.4, "targets": ("features", "classes", "distribution")},
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
        targets={
            "region_class": rng.integers(0, 3, (4, 3, 2), np.int32),
            "region_distribution": rng.dirichlet(np.ones(4), (4, 3)).astype(np.float32),
        },
    )


@pytest.mark.slow
def test_gradients_are_those_of_differences():
    """In float64, along a random direction. `itc` by its temperature, too, where the direction of the others leaves it:
    `distill` has it in its targets, which are held fixed. So is the transport of `wpa`, which has a test of its own.
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

        def sides(way):
            return (terms(jax.tree.map(lambda p, w, by=by: p + by * w, params, way), batch) for by in (step, -step))

        up, down = sides(way)
        of_regions = {f"mrm/{target}_loss" for target in OPTIONS["mrm"]["targets"]}
        assert set(up) == {"itc/loss", "itm/loss", "mlm/loss", "distill/itc_loss", "distill/mlm_loss"} | of_regions
        for name, slope in slopes.items():
            along = sum(jax.tree.leaves(jax.tree.map(lambda g, w: float((g * w).sum()), slope, way)))
            assert abs(along) > 1e-3, name
            np.testing.assert_allclose(along, float(up[name] - down[name]) / (2 * step), rtol=1e-6, err_msg=name)
        way = jax.tree.map(lambda w: 0 * w, way)
        way["heads"]["itc_scale"]["constant"] += 1
        up, down = (float(side["itc/loss"]) for side in sides(way))
        along = float(slopes["itc/loss"]["heads"]["itc_scale"]["constant"].sum())
        assert abs(along) > 1e-3
        np.testing.assert_allclose(along, (up - down) / (2 * step), rtol=1e-6)


def _told(batch):
    """The batch with targets that each token's own content tells, so that they are the same wherever it lies."""
    ids, shown = batch.text.ids, batch.image.pixels.sum(-1, dtype=np.int32)
    boxes = np.sort(np.random.default_rng(0).random((SPEC.vocab_size, 2, 2), np.float32), axis=1)
    word_boxes = np.zeros((*ids.shape, 5, 4), np.float32)
    word_boxes[..., 0, :] = np.where((ids % 2 == 0)[..., None], boxes.reshape(-1, 4)[ids], 0)
    centre = np.stack([shown % 7 / 7, shown % 11 / 11], -1, dtype=np.float32)
    first = (batch.text.positions == 0)[:, None] & (batch.text.segments[:, None] == batch.examples[..., :1])
    targets = {
        "chosen": (ids % 3 == 0) & (batch.text.segments > 0),
        "match": (first * ids[:, None]).sum(-1, dtype=np.int32) % 2,
        "word_boxes": word_boxes,
        "region_class": np.stack([shown % 5 - 1, shown % 4 - 1], -1),
        "region_centre": np.where((shown % 3 == 0)[..., None], -1, centre),
    }
    return batch.replace(targets=targets)


@pytest.mark.slow
def test_gradients_over_patches_are_those_of_differences():
    with jax.enable_x64(True):
        model = dataclasses.replace(CONFIG, num_layers=1, dtype="float64")
        options = {"locate": {"layer": 1, "bins": 4}, "mrm": {"targets": ("pixels",), "rate": 0.4}}
        objectives = build({"locate": 1.0, "mrm": 1.0}, model=model, **options)
        graph, params = _params(model, objectives, 0)
        terms, batch = _terms_fn(graph, objectives, {"locate": {}, "mrm": {}}, params), _told(random_batch(0))
        weights = {f"locate/{name}_loss": w for name, w in (("region", 1), ("centre", 2), ("word", 3))}
        weights["mrm/pixels_loss"] = 4

        def loss(params):
            found = terms(params, batch)
            return sum(weight * found[name] for name, weight in weights.items())

        check_slope(loss, params)


@functools.cache
def _whole_sums():
    config = dataclasses.replace(CONFIG, num_layers=1)
    objectives = build(
        dict.fromkeys(("itc", "wpa", "mrm", "mlm", "itm", "distill", "locate", "align"), 1.0),
        model=config,
        ema_decay=0.9,
        itc={"size": 5},
        mrm={"targets": ("pixels", "classes"), "rate": 1 - 1e-9},  # all of them: not what the layout draws
        locate={"layer": 1},
        align={"heads": (0, 1)},
    )
    graph, params = _params(config, objectives, 0)
    _, average = _params(config, objectives, 1)
    state = {name: objective.init_state(SPEC) for name, objective in objectives.items()}

    @jax.jit
    def sums(batch):
        model, teacher = nnx.merge(graph, params), nnx.merge(graph, average)
        with pytest.MonkeyPatch.context() as patch:  # nor what these draw
            patch.setattr(mlm, "mask_tokens", lambda batch, *_: (batch, batch.targets["chosen"]))
            patch.setattr(itm, "mismatch", lambda batch, *_: (batch, batch.targets["match"]))
            return total_loss(model, objectives, batch, SPEC, KEY, state, train=False, teacher=teacher)[0]

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
    expected, found = (_whole_sums()(_told(batch)) for batch in (alone, packed))
    for name, pair in expected.items():
        np.testing.assert_allclose(found[name], pair, rtol=2e-5, err_msg=name)
    assert expected["itc/loss"][1] == expected["wpa/loss"][1] == expected["itm/loss"][1] == 4
    assert expected["mrm/pixels_loss"][1] == 3 + 6 + 3 + 6
    assert min(count for _, count in expected.values()) > 0


def test_masked_regions_are_the_same_packed_and_padded():
    """Features, classes and distributions of all regions, each example in a row of its own and two in a row."""
    config = dataclasses.replace(REGIONS, dtype="float32")
    options = {"targets": ("features", "classes", "distribution"), "rate": 1 - 1e-9}
    objectives = build({"mrm": 1.0}, model=config, mrm=options)
    graph, params = _params(config, objectives, 0)
    whole = _regions_batch()

    def beside(x, room):
        """Rows 0 and 1, and 2 and 3, side by side, with so much padding after each."""
        x = np.pad(x, ((0, 0), (0, room), *((0, 0),) * (x.ndim - 2)), constant_values=1)
        return x.reshape(2, -1, *x.shape[2:])

    def segments(size, room):
        return np.tile(np.repeat([1, 0, 2, 0], [size, room, size, room]).astype(np.int32), (2, 1))

    packed = make_batch(
        text=Text(ids=beside(whole.text.ids, 2), segments=segments(5, 2), slots=2),
        image=Regions(
            features=beside(whole.image.features, 1), boxes=beside(whole.image.boxes, 1), segments=segments(3, 1)
        ),
        targets={name: beside(target, 1) for name, target in whole.targets.items()},
    )

    @jax.jit
    def sums(batch):
        model = nnx.merge(graph, params)
        return total_loss(model, objectives, batch, SPEC, KEY, {"mrm": {}}, train=False, teacher=model)[0]

    expected, found = sums(whole), sums(packed)
    assert {"mrm/features_loss", "mrm/classes_loss", "mrm/distribution_loss"} <= set(expected)
    for name, pair in expected.items():
        np.testing.assert_allclose(found[name], pair, rtol=2e-5, err_msg=name)
    assert expected["mrm/features_loss"][1] == 12
