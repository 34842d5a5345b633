"""Tasks on a small model: gradients against differences, and rows laid out in other ways."""

from __future__ import annotations

import dataclasses
import functools

import jax
import numpy as np
from flax import nnx

from singlestream.batch import Spec
from singlestream.objectives.total import total_loss
from tests.model.toy import CONFIG, pack, random_batch

from .toy import KEY, build, check_slope, drawn

SPEC = Spec(vocab_size=40, num_answers=2)


@functools.cache
def sums_fn(dtype="float32"):
    """Parameters, and (parameters, batch) -> metrics of the three objectives on the real model."""
    config = dataclasses.replace(CONFIG, dtype=dtype)
    settings = {"spec": SPEC, "model": config}
    several = {"several": True}
    objectives = build({"classify": 1.0, "nlvr": 1.0}, data={"apart": 2}, classify=several, **settings)
    objectives |= build({"choose": 1.0}, data={"texts_per_row": 2, "copies": True}, **settings)
    heads = {name: head for each in objectives.values() for name, head in each.heads(config, SPEC).items()}
    graph, params = drawn(config, heads, spec=SPEC)
    state = {name: {} for name in objectives}

    def sums(params, batch):
        return total_loss(nnx.merge(graph, params), objectives, batch, SPEC, KEY, state, train=False)[0]

    return params, jax.jit(sums)


def _laid(places, *, text_slot, num_patches, rows):
    """Two pairs of examples, a pair about one picture, side by side in the given rows."""
    batches = [random_batch(seed, rows=1, text=2 + seed, grid=(1 + seed % 2, 3)) for seed in range(4)]
    laid = pack(
        list(zip(batches, places, strict=True)), text_slot=text_slot, num_patches=num_patches, rows=rows, slots=4
    )
    picture, answer = np.zeros_like(laid.picture), np.full_like(laid.picture, -1)
    taken = [0] * rows
    for number, row in enumerate(places):
        picture[row, taken[row]], answer[row, taken[row]] = 1 + number // 2, (0, 1, 1, 0)[number]
        taken[row] += 1
    return laid.replace(picture=picture, targets={"answer": answer})


def test_padding_and_packing_change_nothing():
    params, sums = sums_fn()
    apart = sums(params, _laid((0, 0, 1, 1), text_slot=5, num_patches=6, rows=2))
    together = sums(params, _laid((1, 1, 1, 1), text_slot=8, num_patches=7, rows=3))
    for name, pair in apart.items():
        np.testing.assert_allclose(together[name], pair, rtol=2e-5, err_msg=name)
    counts = {name: float(count) for name, (_, count) in apart.items() if name.endswith("loss")}
    assert counts == {"classify/loss": 4, "nlvr/loss": 2, "choose/loss": 2}


def test_gradients_are_those_of_differences():
    with jax.enable_x64(True):
        params, sums = sums_fn("float64")
        batch = _laid((0, 0, 0, 0), text_slot=5, num_patches=6, rows=1)

        def loss(params):
            found = sums(params, batch)
            return sum((1 + i / 7) * found[f"{name}/loss"][0] for i, name in enumerate(("classify", "nlvr", "choose")))

        check_slope(loss, params)
