"""What goes together: every combination is refused with a sentence, or builds, and takes a step."""

from __future__ import annotations

import re
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx

from singlestream.model.attention.config import AttentionConfig
from singlestream.model.build import build_model
from singlestream.model.config import ModelConfig
from singlestream.model.two_stream_config import TwoStreamConfig
from tests.model.combination_checks import batch_for, check_model
from tests.model.combinations import AXES, OF_ATTENTION, SIZES, attention_of, config_of, refusal, table
from tests.model.pairs import all_pairs, cover, few, pairs_of
from tests.model.toy import SPEC

PAGE = Path(__file__).parents[2] / "docs" / "attention.md"
ROWS = cover(AXES, refusal)


# ---- what is refused -------------------------------------------------------------------------------------------------


def test_what_is_refused_names_two_keys_and_every_pair_of_the_rest_is_there():
    """Two values that do not go together are refused whatever stands beside them, and nothing else is."""
    refused, accepted = set(), set()
    for pair in all_pairs(AXES):
        sentence = refusal(dict(pair))
        (refused if sentence else accepted).add(frozenset(pair))
        assert not sentence or len(set(re.findall(r"config\.model\.[\w.]+(?==)", sentence))) > 1, sentence
    assert accepted == set().union(*map(pairs_of, ROWS))
    rng = np.random.default_rng(0)
    for _ in range(3000):
        row = {axis: values[rng.integers(len(values))] for axis, values in AXES.items()}
        assert bool(refusal(row)) == bool(pairs_of(row) & refused), row


def test_the_page_says_what_is_refused():
    """Written by `python -m tests.model.all_combinations --table`."""
    assert table() in PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AttentionConfig(implementation="plain", score="dot"), "score='dot': there is a choice only for"),
        (lambda: AttentionConfig(implementation="plain", head_scale=True), "does not go with .*head_scale=True"),
        (lambda: AttentionConfig(selection="graph", window=3), "window=3 does not go with .*graph='grid', which does"),
        (
            lambda: config_of({"relative": "rope", "direction": "both"}),
            "relative='rope' does not go with config.model.direction='both': no token reads another one of its own",
        ),
        (lambda: config_of({"selection": "local", "direction": "text_to_image"}), "selection='local' does not go with"),
        (lambda: config_of({"selection": "graph edges", "direction": "both"}), "graph='edges' does not go with"),
    ],
)
def test_what_changes_nothing_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_encoders_of_one_modality_read_within_it():
    """There rope and windows have their use, whatever the direction of the layers after them; hops leave none."""
    front = {"text_encoder": "transformer", "text_layers": 1}
    for kind in ({"relative": "rope"}, {"selection": "local"}):
        across = SIZES | {"num_layers": 1, "direction": "both", "pooling": "mean"}
        attention = AttentionConfig(**kind)
        ModelConfig(**across, **front, attention=attention)
        with pytest.raises(ValueError, match="direction='multi_hop': no token reads another one of its own modality"):
            ModelConfig(**across | {"direction": "multi_hop"}, hops=1, attention=attention)


# ---- what is not -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_every_pair_builds_and_is_traced():
    for row in ROWS:
        check_model(config_of(row))


# ---- two streams -----------------------------------------------------------------------------------------------------

OF_TWO = {**OF_ATTENTION, "cross": ("shared", "paired"), "fusion": ("none", "product"), "region_norm": ("apart", "sum")}


def two_of(row):
    sizes = {name: SIZES[name] for name in ("width", "num_heads", "mlp_dim", "max_text_length", "region_dim")}
    sizes |= {"num_layers": 1, "image_layers": 1, "cross_after_text": (1,), "cross_after_image": (1,)}
    sizes |= {"image_width": 8, "image_heads": 2, "image_mlp_dim": 8, "cross_width": 8, "cross_heads": 2}
    given = {name: row[name] for name in ("cross", "fusion", "region_norm") if name in row}
    return TwoStreamConfig(**sizes, **given, attention=attention_of(row))


def refusal_of_two(row):
    try:
        two_of(row)
    except ValueError as error:
        return str(error)
    return ""


OF_REGIONS = {"image": ("regions", "boxes")}


def test_two_streams_take_what_a_stream_of_regions_takes():
    for pair in all_pairs(OF_ATTENTION):
        assert refusal_of_two(dict(pair)) == refusal(dict(pair) | OF_REGIONS)


@pytest.mark.slow
def test_two_streams_build_and_are_traced():
    batch = batch_for(config_of(OF_REGIONS))
    for row in few(cover(OF_TWO, refusal_of_two)):
        config = two_of(row)
        encoded = nnx.eval_shape(
            lambda config=config: build_model(config, SPEC, heads={}, rngs=nnx.Rngs(0))(
                batch, key=jax.random.key(0), attention=True
            )
        )
        shapes = {name: weights.shape for name, weights in encoded.attention.items()}
        own = 2 if config.cross == "shared" else 1  # its cross layers read within the streams, too
        assert shapes == {
            "text": (own, 2, 2, 5, 5),
            "image": (own, 2, 2, 6, 6),
            "text_to_image": (1, 2, 2, 5, 6),
            "image_to_text": (1, 2, 2, 6, 5),
        }
