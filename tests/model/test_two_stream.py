from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given
from hypothesis import strategies as st

from singlestream.batch import Batch, BatchError, Patches, Regions, Spec, Text, make_batch, without_image
from singlestream.model.heads import HeadConfig
from singlestream.model.two_stream import TwoStream
from singlestream.model.two_stream_config import SIZES, TwoStreamConfig
from tests.model.toy import drawn, room

FEATURES, WORDS, REGIONS = 5, 6, 4  # numbers of a region, and the most words and regions of an example
SPEC = Spec(vocab_size=30)
SHARED = TwoStreamConfig.named(
    "lxmert_tiny",
    width=12,
    num_heads=3,
    mlp_dim=16,
    image_width=12,
    image_mlp_dim=16,
    cross_width=12,
    region_dim=FEATURES,
)
PAIRED = TwoStreamConfig(
    **dict(
        width=12, num_layers=3, num_heads=3, mlp_dim=16, image_width=10, image_layers=2, image_heads=2, image_mlp_dim=9
    ),
    **dict(cross="paired", cross_width=8, cross_heads=2, cross_after_text=(1, 2), cross_after_image=(0, 1)),
    **dict(box_numbers=5, region_norm="sum", fusion="product", region_dim=FEATURES, num_tasks=3),
)
HEADS = {
    "vqa": HeadConfig(kind="answers", size=7),
    "mlm": HeadConfig(kind="vocabulary", size=30, source="text"),
    "obj": HeadConfig(kind="transform", size=6, source="image"),
    "attr": HeadConfig(kind="transform", size=4, source="image", shares="obj"),
    "normed": HeadConfig(kind="weight_norm", size=3),
}


@functools.cache
def toy_model(config: TwoStreamConfig) -> TwoStream:
    """The model of a configuration, with parameters that were drawn."""
    graph, params = drawn(lambda: TwoStream(config, SPEC, heads=HEADS, rngs=nnx.Rngs(0)))
    return nnx.merge(graph, jax.tree.map(jnp.asarray, params))


@functools.cache
def _jitted(config: TwoStreamConfig):
    graph, params = nnx.split(toy_model(config))

    def run(params, batch: Batch):
        model = nnx.merge(graph, params)
        encoded = model(batch, attention=True)
        return encoded, {name: head(encoded) for name, head in model.heads.items()}

    return functools.partial(jax.jit(run), params)


def run(batch: Batch, config: TwoStreamConfig):
    return jax.tree.map(np.asarray, _jitted(config)(batch))


def example(seed: int, words: int, regions: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Text and image of one example."""
    rng = np.random.default_rng(seed)
    corners = np.sort(rng.uniform(size=(regions, 2, 2)), axis=1).reshape(regions, 4)
    text = {"ids": rng.integers(5, 30, words), "types": rng.integers(0, 2, words), "positions": np.arange(words)}
    return text, {"features": rng.normal(size=(regions, FEATURES)), "boxes": corners}


def pack(examples, rows: int, slots: int, where) -> Batch:
    """Examples laid into rows, one segment each, at their places `where[i] = (row, slot)`; the rest is padding."""
    rng = np.random.default_rng(9)
    text = {name: rng.integers(5, 9, (rows, slots * WORDS)).astype(np.int32) for name in ("ids", "positions")}
    text |= {name: np.zeros((rows, slots * WORDS), np.int32) for name in ("types", "segments")}
    image = {name: rng.normal(size=(rows, slots * REGIONS, n)) for name, n in (("features", FEATURES), ("boxes", 4))}
    image = {name: value.astype(np.float32) for name, value in image.items()}
    image["segments"] = np.zeros((rows, slots * REGIONS), np.int32)
    for (words, regions), (row, slot) in zip(examples, where, strict=True):
        for values, source, width in ((text, words, WORDS), (image, regions, REGIONS)):
            count = len(next(iter(source.values())))
            for name, value in {**source, "segments": np.full(count, slot + 1)}.items():
                values[name][row, slot * width : slot * width + count] = value
    return room(make_batch(text=Text(**text), image=Regions(**image)), slots)


def _close(actual, expected, tolerance=1e-5):
    np.testing.assert_allclose(actual, expected, atol=tolerance)


@pytest.mark.parametrize(
    "config",
    [
        pytest.param(SHARED, id="shared", marks=pytest.mark.slow),
        pytest.param(PAIRED, id="paired"),
        pytest.param(dataclasses.replace(PAIRED, direction="text_to_image"), id="one way", marks=pytest.mark.slow),
    ],
)
@given(
    data=st.data(),
    sizes=st.lists(st.tuples(st.integers(2, WORDS), st.integers(1, REGIONS)), min_size=2, max_size=4),
)
def test_an_examples_outputs_do_not_depend_on_its_batch(data, config, sizes):
    """Alone, or packed with others of other sizes under any padding: equal to 1e-5."""
    examples = [example(i, *size) for i, size in enumerate(sizes)]
    rows = data.draw(st.lists(st.integers(0, 1), min_size=len(examples), max_size=len(examples)))
    where = [(row, sum(r == row for r in rows[:i])) for i, row in enumerate(rows)]
    encoded, logits = run(pack(examples, 2, 4, where), config)
    for one, (row, k), (words, regions) in zip(examples, where, sizes, strict=True):
        own, own_logits = run(pack([one], 1, 1, [(0, 0)]), config)
        text, image = slice(WORDS * k, WORDS * k + words), slice(REGIONS * k, REGIONS * k + regions)
        _close(encoded.pooled[row, k], own.pooled[0, 0])
        _close(encoded.text[row, text], own.text[0, :words])
        _close(encoded.image[row, image], own.image[0, :regions])
        for name in HEADS:
            source = HEADS[name].source
            place = {"text": text, "image": image, "pooled": slice(k, k + 1)}[source]
            count = place.stop - place.start
            _close(logits[name][row, place], own_logits[name][0, :count])


def _batch(seed: int = 0, rows: int = 2) -> Batch:
    examples = [example(seed + i, WORDS - i, REGIONS - i) for i in range(rows)]
    return pack(examples, rows, 1, [(i, 0) for i in range(rows)])


@pytest.mark.parametrize("config", [SHARED, PAIRED], ids=["shared", "paired"])
def test_attention_weights_by_name(config):
    batch = _batch()
    encoded, _ = run(batch, config)
    words, regions = batch.text.segments > 0, batch.image.segments > 0
    own, cross = (4, 2) if config is SHARED else (3, 2)
    images = 3 if config is SHARED else 2
    assert encoded.attention["text"].shape == (own, 2, 3, WORDS, WORDS)
    assert encoded.attention["image"].shape == (images, 2, config.image_heads, REGIONS, REGIONS)
    assert encoded.attention["text_to_image"].shape == (cross, 2, config.cross_heads, WORDS, REGIONS)
    assert encoded.attention["image_to_text"].shape == (cross, 2, config.cross_heads, REGIONS, WORDS)
    for name, queries, keys in (("text_to_image", words, regions), ("image_to_text", regions, words)):
        weights = np.asarray(encoded.attention[name]).transpose(1, 3, 4, 0, 2)  # [B, Q, K, layers, H]
        _close(weights[queries].sum(1), 1)
        assert (weights.swapaxes(1, 2)[~keys] == 0).all()
    assert len(encoded.hidden["text"]) == config.num_layers + config.num_cross
    assert len(encoded.hidden["image"]) == config.image_layers + config.num_cross


@pytest.mark.parametrize("config", [SHARED, PAIRED], ids=["shared", "paired"])
def test_without_image_the_picture_does_not_matter(config):
    batch = _batch()
    other = batch.replace(image=_batch(5).image)
    _close(run(without_image(batch), config)[0].text, run(without_image(other), config)[0].text, 0)
    assert np.abs(np.asarray(run(batch, config)[0].pooled) - np.asarray(run(other, config)[0].pooled)).max() > 1e-3


def _gradients(config: TwoStreamConfig, batch: Batch):
    graph, params = nnx.split(toy_model(config))

    def loss(params):
        encoded = (model := nnx.merge(graph, params))(batch)
        return sum(jnp.sin(head(encoded)).sum() for head in model.heads.values())

    return jax.jit(jax.value_and_grad(loss))(nnx.to_pure_dict(params))


@pytest.mark.slow
def test_ways_to_run_the_layers_agree():
    """The same parameters scanned, unrolled, rematerialised: outputs and gradients."""
    expected = _gradients(PAIRED, _batch())
    found = _gradients(dataclasses.replace(PAIRED, layers="scan", remat="dots"), _batch())
    jax.tree.map(lambda a, b: _close(a, b, 2e-4), found, expected)


@pytest.mark.slow
def test_fixed_layers_and_first_rows_get_no_gradient():
    after = dict(cross_after_image=(1, 2), fixed_layers=1, fixed_image_layers=1, fixed_first_rows=True)
    _, gradients = _gradients(dataclasses.replace(PAIRED, **after), _batch())
    for stack in ("text", "image"):
        for leaf in jax.tree.leaves(gradients[stack]["blocks"]):
            assert not np.asarray(leaf[0]).any()
        kernel = np.asarray(gradients[stack]["blocks"]["mlp"]["up"]["kernel"])
        assert (np.abs(kernel[1:]).max((1, 2)) > 0).all()
    assert not any(np.asarray(leaf).any() for leaf in jax.tree.leaves(gradients["embed"]["image"]))
    few = dict(num_layers=1, image_layers=1, cross_after_text=(1,), cross_after_image=(1,))
    _, gradients = _gradients(dataclasses.replace(PAIRED, **few, fixed_first_rows=True), _batch())
    text = gradients["embed"]["text"]
    for table in (text["type"], text["position"]):
        rows = np.asarray(table["embedding"])
        assert not rows[0].any() and rows[1].any()


def test_without_coattention_the_streams_do_not_meet():
    config = dataclasses.replace(PAIRED, coattention=False)
    batch = _batch()
    encoded, _ = run(batch, config)
    other, _ = run(batch.replace(image=_batch(5).image), config)
    np.testing.assert_array_equal(encoded.text, other.text)
    assert len(encoded.hidden["text"]) == config.num_layers and "text_to_image" not in encoded.attention


@pytest.mark.parametrize("config", [SHARED, PAIRED], ids=["shared", "paired"])
@pytest.mark.parametrize("direction", ["text_to_image", "image_to_text"])
def test_one_stream_alone_may_read_the_other(config, direction):
    """It does as where both read: after the first cross layer its states are the same. The other knows nothing."""
    one_way = dataclasses.replace(config, direction=direction, fusion="product")
    both = toy_model(dataclasses.replace(config, fusion="product"))
    graph, abstract = nnx.split(nnx.eval_shape(lambda: TwoStream(one_way, SPEC, heads=HEADS, rngs=nnx.Rngs(0))))
    have = nnx.to_pure_dict(nnx.state(both))
    reads, alone = ("text", "image") if direction == "text_to_image" else ("image", "text")
    if config is PAIRED:
        del have["cross"][alone]["attention"]
    assert jax.tree.structure(have) == jax.tree.structure(nnx.to_pure_dict(abstract))
    encode = jax.jit(lambda params, batch: nnx.merge(graph, params)(batch, attention=True))
    batch, whole = _batch(), jax.jit(lambda model, batch: model(batch))(both, _batch())
    found = encode(have, batch)
    first = {"text": config.cross_after_text[0] + 1, "image": config.cross_after_image[0] + 1}
    segments = {"text": np.asarray(batch.text.segments) > 0, "image": np.asarray(batch.image.segments) > 0}
    crossed = found.hidden[reads][first[reads] - 1][segments[reads]]
    _close(crossed, whole.hidden[reads][first[reads] - 1][segments[reads]])
    assert (
        np.abs(np.asarray(found.hidden[alone][first[alone] - 1] - whole.hidden[alone][first[alone] - 1])).max() > 1e-3
    )
    changed = _batch().replace(**{reads: getattr(_batch(5), reads)})
    np.testing.assert_array_equal(getattr(encode(have, changed), alone), getattr(found, alone))
    changed = _batch().replace(**{alone: getattr(_batch(5), alone)})
    assert np.abs(np.asarray(getattr(encode(have, changed), reads) - getattr(found, reads))).max() > 1e-3
    names = {"text": "text_to_image", "image": "image_to_text"}
    assert not np.asarray(found.attention[names[alone]]).any() and np.asarray(found.attention[names[reads]]).any()
    assert one_way.words_read_image == (reads == "text") and one_way.picture_reads_text == (reads == "image")


def test_directions_that_read_nothing_are_refused():
    with pytest.raises(ValueError, match=r"config\.model\.direction='text_to_image': with .*coattention=False"):
        dataclasses.replace(SHARED, direction="text_to_image", coattention=False)
    with pytest.raises(ValueError, match=r"config\.model\.direction='image_to_text': the text's first state"):
        toy_model(dataclasses.replace(SHARED, direction="image_to_text"))


@pytest.mark.parametrize("kind", ["gated", "decision"])
def test_pooled_vectors_are_joined_as_those_of_a_single_stream(kind):
    config, batch = dataclasses.replace(PAIRED, fusion=kind, num_tasks=0), _batch()
    model = toy_model(config)
    encoded, logits = run(batch, config)
    firsts = [states[:, :1] for states in (encoded.text, encoded.image)]  # one example a row, which begins it
    text, image = (
        jax.nn.relu(part(x)) for part, x in zip((model.pooler.text, model.pooler.image), firsts, strict=True)
    )
    pooled, extra = model.pooler.join(text, image)
    _close(encoded.pooled, pooled)
    assert encoded.extra.keys() == extra.keys() == {{"gated": "modality_weights", "decision": "decisions"}[kind]}
    jax.tree.map(_close, encoded.extra, extra)
    if kind == "decision":
        each = [
            model.heads["vqa"](dataclasses.replace(encoded, pooled=x, extra={}))
            for x in np.moveaxis(encoded.extra[kind + "s"], 2, 0)
        ]
        _close(logits["vqa"], sum(each) / 2)


def test_a_task_token_is_a_row_of_its_own_table():
    batch = _batch(rows=1)
    ids = np.array(batch.text.ids)
    ids[0, 1] = SPEC.vocab_size + 2
    moved = dataclasses.replace(batch.text, ids=ids)
    model = toy_model(PAIRED)
    table, norm = model.embed.text.task.embedding[...], model.embed.text.norm
    for types in (0, 1):  # neither type nor position counts
        text = dataclasses.replace(moved, types=np.full_like(ids, types), positions=batch.text.positions + types)
        _close(model.embed.text(text)[0, 1], norm(table[2]))


@pytest.mark.parametrize("config", [SHARED, PAIRED], ids=["shared", "paired"])
def test_dropout_of_weights_reaches_every_attention(config):
    """About half of the weights that a layer would apply are 0, in each direction of each layer."""
    model, batch = toy_model(dataclasses.replace(config, attention_dropout=0.5)), _batch()
    found = jax.jit(lambda key: model(batch, key=key, attention=True).attention)(jax.random.key(1))
    for weights in found.values():
        dropped = np.asarray(weights == 0).mean((1, 2, 3, 4))
        assert (dropped > 0).all() and (dropped < 1).all()


def test_dropout_follows_the_key():
    config = dataclasses.replace(SHARED, dropout=0.3)
    model, batch = toy_model(config), _batch()
    encode = jax.jit(lambda key: model(batch, key=key).pooled)
    one, again, other = (np.asarray(encode(jax.random.key(k))) for k in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert not np.allclose(one, other)


def test_what_a_batch_lacks_is_named():
    model, batch = toy_model(PAIRED), _batch()
    text = batch.text
    for changed, message in (
        (
            {"ids": text.ids + 30},
            r"text.ids holds .* expected 0 to 32 \(the size of the vocabulary is 30, with .* 3 more",
        ),
        ({"types": text.types + 2}, "config.model.num_token_types is 2"),
        ({"positions": text.positions + 512}, "config.model.max_text_length is 512"),
        ({"part": text.part + 1}, "the picture reads its text, so texts cannot share one"),
    ):
        with pytest.raises(BatchError, match=message):
            model(batch.replace(text=dataclasses.replace(text, **changed)))
    with pytest.raises(BatchError, match=r"image.words: no two-stream model reads words of regions, leave them out"):
        words = np.zeros((*batch.image.segments.shape, 1), np.int32)
        model(batch.replace(image=dataclasses.replace(batch.image, words=words)))
    with pytest.raises(BatchError, match="reads Regions with 5 numbers each .* got Regions with 0"):
        model(make_batch(text=Text(ids=text.ids)))
    place = np.zeros((2, 1, 2), np.int32)
    with pytest.raises(BatchError, match="reads Regions with 5 numbers each .* got Patches with 48"):
        patches = Patches(pixels=np.zeros((2, 1, 48), np.uint8), yx=place, grid=place + 1)
        model(make_batch(text=Text(ids=text.ids), image=patches))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cross": "both"}, "config.model.cross='both': choose one of shared, paired"),
        ({"cross": "shared"}, "cross='shared' needs one width, got width=12, image_width=10, cross_width=8"),
        ({"image_heads": 3}, "image_width=10 is not divisible by config.model.image_heads=3"),
        ({"width": 13}, "config.model.width=13 is not divisible"),
        ({"box_numbers": 7}, "config.model.box_numbers=7: must be 4, or 5 with the area"),
        ({"cross_after_text": (2, 1)}, r"cross_after_text=\(2, 1\): must rise, from 0 or more to 3 or less"),
        ({"cross_after_image": (0,)}, "must name one place each for every cross layer"),
        ({"fixed_layers": 2}, "config.model.fixed_layers=2: at most 1, as many layers as run before"),
        ({"num_tasks": -1}, "config.model.num_tasks=-1: must be at least 0"),
    ],
)
def test_bad_settings_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(PAIRED, **changes)


def test_heads_that_do_not_fit_are_named():
    for heads, message in (
        ({"a": HeadConfig(size=2, source="second_last")}, "choose one of text, image, pooled, pairs"),
        ({"a": HeadConfig(size=2, source="text", layer=1)}, "layer=1: heads of a two-stream model read the final"),
        ({"a": HeadConfig(kind="transform", size=2, shares="b")}, "head a: shares='b', expected a head that differs"),
    ):
        with pytest.raises(ValueError, match=message):
            nnx.eval_shape(lambda heads=heads: TwoStream(PAIRED, SPEC, heads=heads, rngs=nnx.Rngs(0)))
    with pytest.raises(ValueError, match="goes with kind='transform'"):
        HeadConfig(size=2, shares="b")
    with pytest.raises(ValueError, match="no two-stream size 'huge': choose one of lxmert"):
        TwoStreamConfig.named("huge")


# Parameters of the published models without heads: LXMERT as transformers' LxmertModel of a default configuration
# counts them; ViLBERT as the authors' BertModel of `bert_base_6layer_6conect.json`.
@pytest.mark.parametrize(("size", "count"), [("lxmert", 207_936_768), ("vilbert", 246_726_656)])
def test_published_sizes(size, count):
    spec = Spec(vocab_size=30522)
    model = nnx.eval_shape(lambda: TwoStream(TwoStreamConfig.named(size), spec, rngs=nnx.Rngs(0)))
    assert sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(nnx.state(model))) == count
    assert set(SIZES) >= {size}
