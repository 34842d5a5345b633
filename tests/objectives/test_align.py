"""Supervised attention against a loop over words, on packed rows and on rows that share a picture."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from singlestream.batch import IMAGE, TEXT, Patches, Text, make_batch
from singlestream.config import ConfigError, ModelConfig, TwoStreamConfig
from singlestream.model.directions import DIRECTIONS, reading_layers
from singlestream.model.visibility import Visibility
from singlestream.objectives.total import total_loss
from tests.model.toy import CONFIG, SPEC, random_batch

from .toy import KEY, FakeModel, build, check_slope, drawn, run

CENTRES = np.array([(x, y) for y in (0.25, 0.75) for x in (0.25, 0.75)])  # (x, y) of four patches


class Looking(FakeModel):
    """A model whose attention is given."""

    def __init__(self, attention, **logits):
        super().__init__(**logits)
        self.attention = jnp.asarray(attention)

    def __call__(self, batch, *, key=None, attention=False):
        encoded = super().__call__(batch, key=key)
        return dataclasses.replace(encoded, attention={"self": self.attention} if attention else None)


def _batch():
    """Row 0: two texts that share a picture; row 1: two examples of two patches each, and padding."""
    rng = np.random.default_rng(0)
    grid = np.full((2, 4, 2), 2, np.int32)
    yx = np.array([[[0, 0], [0, 1], [1, 0], [1, 1]]] * 2, np.int32)
    boxes = np.zeros((2, 6, 5, 4), np.float32)
    boxes[0, 1, 0] = 0, 0, 1, 0.5  # the upper row
    boxes[0, 4, 0], boxes[0, 4, 1] = (0.5, 0.5, 1, 1), (0, 0, 0.5, 0.5)  # two corners
    boxes[0, 2, 0] = 0.3, 0.3, 0.4, 0.4  # no patch has its centre there
    boxes[1, 0, 0] = 0, 0, 0.5, 0.5
    boxes[1, 3, 0], boxes[1, 4, 0] = (0, 0, 1, 1), (0, 0, 1, 1)  # the second is a piece of the same word
    boxes[1, 5, 0] = 0, 0, 1, 1  # padding
    ids = np.array([[2, 7, 8, 2, 9, 3], [7, 3, 2, 8, 10, 0]], np.int32)  # 10 continues a word
    return make_batch(
        text=Text(
            ids=ids,
            segments=np.array([[1] * 6, [1, 1, 2, 2, 2, 0]], np.int32),
            part=np.array([[1, 1, 1, 2, 2, 2], [0] * 6], np.int32),
        ),
        image=Patches(
            pixels=rng.integers(0, 256, (2, 4, 48)).astype(np.uint8),
            yx=yx,
            grid=grid,
            segments=np.array([[1] * 4, [1, 1, 2, 2]], np.int32),
        ),
        targets={"word_boxes": boxes, "answer": np.zeros((2, 2), np.int32)},
    )


def _inside(batch, row, word):
    own = batch.image.segments[row] == batch.text.segments[row, word]
    found = np.zeros(4, bool)
    for x0, y0, x1, y1 in batch.targets["word_boxes"][row, word]:
        found |= (x0 <= CENTRES[:, 0]) & (CENTRES[:, 0] < x1) & (y0 <= CENTRES[:, 1]) & (CENTRES[:, 1] < y1)
    return found & own, own


@pytest.mark.parametrize(("layer", "heads"), [(0, (0, 2)), (1, (1,))])
def test_it_is_the_attention_inside_the_boxes(layer, heads):
    batch, rng = _batch(), np.random.default_rng(1)
    attention = rng.dirichlet(np.ones(10), (2, 2, 3, 10)).astype(np.float32)
    model = Looking(attention, vqa=np.zeros((2, 2, 7), np.float32))
    options = {"layer": layer, "heads": heads}
    metrics, _ = run(build({"align": 1.0, "vqa": 1.0}, align=options), batch, model)
    losses, hits, shares = [], [], []
    for row, word in ((0, 1), (0, 4), (1, 0), (1, 3)):
        true, own = _inside(batch, row, word)
        for head in heads:
            given = attention[layer - 1, row, head, word, 6:]
            shares.append(given[true].sum())
            losses.append(-np.log(given[true].sum()))
            hits.append(true[np.argmax(np.where(own, given, -1))])
    np.testing.assert_allclose(metrics["align/loss"], (sum(losses), len(losses)), rtol=1e-6)
    np.testing.assert_allclose(metrics["align/inside"], (sum(shares), len(losses)), rtol=1e-6)
    assert metrics["align/pointing"] == (sum(hits), len(losses))
    assert len(model.calls) == 1  # vqa reads what align had encoded


def test_its_gradient_is_that_of_differences():
    model = dataclasses.replace(CONFIG, num_layers=1, dtype="float64", num_images=1)
    boxes = np.zeros((2, 5, 5, 4), np.float32)
    boxes[:, 1, 0], boxes[:, 3, 0] = (0, 0, 0.5, 0.5), (0.3, 0, 1, 1)
    batch = random_batch(0, targets={"word_boxes": boxes})
    with jax.enable_x64(True):
        objectives = build({"align": 1.0}, model=model, align={"heads": (0, 1)})
        graph, params = drawn(model, {})

        def loss(params):
            metrics, _ = total_loss(nnx.merge(graph, params), objectives, batch, SPEC, KEY, {"align": {}}, train=True)
            return metrics["align/loss"][0]

        check_slope(loss, params)


def test_what_no_head_can_learn_is_refused():
    for options, message in (
        ({"heads": ()}, "config.objective_options.align.heads=.*expected one or more"),
        ({"heads": (0, 4)}, "config.objective_options.align.heads=.*the model has 4 heads, counted from 0"),
        ({"layer": 4}, "config.objective_options.align.layer=4: the model has 3 such layers"),
        ({"layer": -1}, "config.objective_options.align.layer=-1: must be at least 0"),
    ):
        with pytest.raises(ConfigError, match=message):
            build({"align": 1.0}, model=ModelConfig(num_layers=3, num_heads=4), align=options)
    for changes, message in (
        ({"coattention": False}, "config.model.coattention=False, .*: no word reads the picture"),
        ({"direction": "image_to_text"}, "config.model.direction='image_to_text': no word reads the picture"),
    ):
        with pytest.raises(ConfigError, match=message):
            build({"align": 1.0}, model=TwoStreamConfig.named("lxmert_tiny", **changes))
    with pytest.raises(ConfigError, match="align.layer=3: the model has 2 such layers"):
        build({"align": 1.0}, model=TwoStreamConfig.named("lxmert_tiny"), align={"layer": 3})


APART = {"text_encoder": "lstm", "text_layers": 1, "image_encoder": "cnn", "image_layers": 1, "join": "concat"}


@pytest.mark.parametrize(
    ("layer", "settings", "message"),
    [
        (0, {"num_layers": 0, **APART}, "config.model.num_layers=0: no word .*; there is none"),
        (
            0,
            {"direction": "image_to_text", **APART},
            "config.model.direction='image_to_text', config.model.num_layers=3",
        ),
        (2, {"direction": "bottleneck", "bottlenecks": 2}, "config.model.direction='bottleneck', .*; there is none"),
        (
            2,
            {"direction": "multi_hop", "hops": 3},
            "config.model.hops=3: no word reads the picture there; choose one of 1, 3",
        ),
        (2, {"num_layers": 2, "late_layers": 1}, "config.model.late_layers=1, .*; choose one of 3"),
    ],
)
def test_a_layer_in_which_no_word_reads_the_picture_is_refused(layer, settings, message):
    """The loss would be the same whatever is learned."""
    model = ModelConfig(**{"num_layers": 3, **settings})
    with pytest.raises(ConfigError, match=f"config.objective_options.align.layer={layer} with .*{message}"):
        build({"align": 1.0}, model=model, align={"layer": layer})


OF_DIRECTIONS = {"bottleneck": {"bottlenecks": 1}, "multi_hop": {"hops": 3}, "image_to_text": {"join": "concat"}}


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_layers_in_which_words_read_the_picture_are_those_of_the_mask(direction):
    model = ModelConfig(num_layers=4, direction=direction, pooling="mean", **OF_DIRECTIONS.get(direction, {}))
    row = np.ones((1, 2), np.int32)
    tokens = dict(segments=row, part=0 * row, modality=np.array([[TEXT, IMAGE]], np.int32))
    places = dict(token=np.array([[0, 1]], np.int32), place=np.zeros((1, 2), np.int32))
    sees = Visibility(**tokens, **places, direction=direction, hops=model.hops, depth=4, num_text=1, num_image=1)
    reads = [layer + 1 for layer in range(4) if sees.in_layer(jnp.int32(layer)).mask()[0, 0, 1]]
    assert reading_layers(model) == reads
