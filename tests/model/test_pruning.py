"""Pruned tokens: the choice against plain loops, and what must not change by it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from singlestream.batch import BatchError, Text, make_batch, without_text
from singlestream.config import ConfigError
from singlestream.model.pruning.choose import above, best, same
from singlestream.model.pruning.config import PruningConfig
from singlestream.model.pruning.merge import match, merge
from singlestream.predict import Model
from tests.model.toy import CONFIG, SPEC, check_alone, random_batch, replace, run, toy_model

DEEP = replace(CONFIG, num_layers=3)
DROP = replace(DEEP, pruning=PruningConfig(keep=0.4, layers=(1, 2)))
ALL = replace(DROP, pruning=PruningConfig(keep=0.5, layers=(1,), by="all"), direction="prefix")
MERGE = replace(DEEP, pruning=PruningConfig(keep=0.4, layers=(1, 2), method="merge"), direction="prefix")
MASK = replace(DEEP, pruning=PruningConfig(threshold=0.9, layers=(1, 2), method="mask"), image_cls=True)
KINDS = {"drop": DROP, "all": ALL, "merge": MERGE, "mask": MASK}


def _close(actual, expected, tolerance=1e-5):
    np.testing.assert_allclose(actual, expected, atol=tolerance)


def _with_weights(config, batch):
    model = toy_model(config)
    return jax.tree.map(np.asarray, jax.jit(lambda batch: model(batch, attention=True))(batch))


@pytest.mark.parametrize("config", KINDS.values(), ids=KINDS)
@given(
    data=st.data(),
    sizes=st.lists(
        st.tuples(st.integers(2, 6), st.sampled_from([(1, 1), (2, 3), (3, 2), (1, 5)])), min_size=2, max_size=5
    ),
)
def test_an_examples_tokens_are_chosen_whatever_lies_beside_it(data, config, sizes):
    rows = data.draw(st.lists(st.integers(0, 1), min_size=len(sizes), max_size=len(sizes)))
    check_alone(config, sizes, rows)


def test_the_best_of_each_segment_stay():
    rng = np.random.default_rng(0)
    segments = np.array([[1, 1, 1, 1, 2, 2, 2, 0], [3, 3, 1, 1, 1, 1, 1, 1]], np.int32)
    score, count = rng.integers(0, 4, segments.shape).astype(np.float32), np.where(segments == 1, 2, 1).astype(np.int32)
    stay = np.asarray(best(score, same(segments), count)) & (segments > 0)
    bold = np.asarray(above(score, same(segments), 0.8)) & (segments > 0)
    for row in range(2):
        for segment in set(segments[row]) - {0}:
            own = np.flatnonzero(segments[row] == segment)
            order = sorted(own, key=lambda i: (-score[row, i], i))
            assert set(np.flatnonzero(stay[row] & (segments[row] == segment))) == set(order[: count[row, own[0]]])
            wanted = own[score[row, own] >= 0.8 * score[row, own].mean()]
            assert set(np.flatnonzero(bold[row] & (segments[row] == segment))) == set(wanted)


def test_what_stays_is_what_texts_attend_to():
    """Two drops of 6 patches to a share of 0.4: to ceil(6 sqrt(0.4)) = 4, then ceil(6 * 0.4) = 3."""
    batch = random_batch(0)
    encoded = _with_weights(DROP, batch)
    weights, kept = encoded.attention["self"], encoded.extra["kept"]
    assert kept.sum(-1).tolist() == [[4, 4], [3, 3]]
    there = np.ones((2, 6), bool)
    for layer, count in enumerate((4, 3)):
        score = np.where(there, weights[layer, :, :, :5, 5:].mean((1, 2)), -1)
        for row in range(2):
            assert set(np.flatnonzero(kept[layer, row])) == set(np.argsort(-score[row])[:count])
        there = kept[layer]
    for layer in (1, 2):
        gone = np.pad(~kept[layer - 1], ((0, 0), (5, 0)))
        assert (weights[layer].swapaxes(1, 2)[gone] == 0).all()
        assert (weights[layer].transpose(0, 3, 1, 2)[gone] == 0).all()
        _close(weights[layer][:, :, :5].sum(-1), 1)


@pytest.mark.parametrize("config", [DROP, MERGE], ids=["drop", "merge"])
def test_a_shorter_sequence_is_the_one_in_which_the_others_are_hidden(config):
    """The layers after the drop, against a loop over the unpruned blocks with the survivors in raster order."""
    batch = random_batch(1, rows=1)
    config = replace(config, pruning=PruningConfig(keep=0.5, layers=(2,), method=config.pruning.method))
    encoded, model = _with_weights(config, batch), toy_model(config)
    stream = model.embed(batch)
    sees = model.sees(batch, stream)
    blocks, x = model.encoder.each(), stream.x
    for block in blocks[:2]:
        read, (x, _) = x, block(x, sees, depth_rate=jnp.zeros(()))
    size, kept = np.ones(6), encoded.extra["kept"][0, 0]
    if config.pruning.method == "merge":
        keys = blocks[1].attention.project(blocks[1].before(read, blocks[1].attention_norm))[1].mean(2)[:, 5:]
        states, size = _merged(np.asarray(x[0, 5:]), np.asarray(keys[0]), 3)
        assert (kept == (size > 0)).all()
        x = x.at[0, 5:].set(states)
    index = np.concatenate([np.arange(5), 5 + np.flatnonzero(kept)])[None].astype(np.int32)
    sizes = np.concatenate([np.ones(5), size[kept]])[None]
    short = dataclasses.replace(sees.at(index), log_size=jnp.log(sizes))
    last, _ = blocks[2](x[:, index[0]], short, depth_rate=jnp.zeros(()))
    last = model.encoder.finish(last)
    _close(encoded.text, last[:, :5])
    _close(encoded.image[0, kept], last[0, 5:])
    if config.pruning.method == "drop":
        _close(encoded.hidden[2][0, 5:][~kept], encoded.hidden[1][0, 5:][~kept], 0)


def _merged(x, keys, count):
    """The `count` tokens of even places that are the most like one of an odd place go into it."""
    unit = keys / np.linalg.norm(keys, axis=1, keepdims=True)
    pairs = [(max((unit[a] @ unit[b], b) for b in range(1, len(x), 2)), a) for a in range(0, len(x), 2)]
    total, size = x.copy(), np.ones(len(x))
    for (_, b), a in sorted(pairs, reverse=True)[:count]:
        total[b], size[b], size[a] = total[b] + x[a], size[b] + 1, 0
    return total / np.maximum(size, 1)[:, None], size


def test_merging_keeps_the_sum():
    """Of states times sizes, in each segment; no segment takes of another."""
    rng = np.random.default_rng(0)
    segments = np.array([[1, 1, 1, 1, 2, 2, 2, 0]], np.int32)
    x, keys = rng.normal(size=(1, 8, 3)).astype(np.float32), rng.normal(size=(1, 8, 4)).astype(np.float32)
    size = rng.integers(1, 4, (1, 8)).astype(np.float32)
    into = match(keys, same(segments), np.where(segments == 1, 2, 1).astype(np.int32))
    states, sizes = (np.asarray(a) for a in merge(x, size, into))
    for segment, goes in ((1, 2), (2, 1)):
        own = segments[0] == segment
        _close((states * sizes[..., None])[0, own].sum(0), (x * size[..., None])[0, own].sum(0))
        assert (sizes[0, own] == 0).sum() == goes and sizes[0, own].sum() == size[0, own].sum()


def test_keeping_everything_changes_no_bit():
    batch = random_batch(0)
    jax.tree.map(np.testing.assert_array_equal, run(batch, DEEP), run(batch, replace(DEEP, pruning=PruningConfig())))
    whole = replace(DEEP, pruning=PruningConfig(threshold=1e-9, method="mask"))  # runs the pruned way, hides nothing
    _close(run(batch, DEEP)[0].pooled, run(batch, whole)[0].pooled)


def test_a_trained_model_can_be_pruned():
    model, batch = Model(module=toy_model(DEEP), processor=None, config=None, spec=SPEC), random_batch(0)
    pruned = model.pruned(keep=0.4, layers=(1, 2))
    _close(pruned(batch).pooled, run(batch, DROP)[0].pooled)
    assert "kept" not in model(batch).extra  # it is as it was
    for settings, message in (({"kep": 0.5}, "no setting kep"), ({"keep": 0.5, "layers": (3,)}, "num_layers=3")):
        with pytest.raises(ConfigError, match=message):
            model.pruned(**settings)


@pytest.mark.parametrize("config", [ALL, MERGE], ids=["drop", "merge"])
def test_texts_share_a_pruned_picture(config):
    """With slots or without, and with room for one picture; merging, which asks no text, is that of each text alone."""
    one, two = random_batch(0, rows=1), random_batch(1, rows=1)
    ids, part = np.concatenate([one.text.ids, two.text.ids], 1), np.repeat(np.array([[1, 2]], np.int32), 5, axis=1)
    slots, bare = (
        run(make_batch(text=Text(ids=ids, part=part, slots=slots), image=one.image, pictures=pictures), config)[0]
        for slots, pictures in ((2, 1), (1, 0))
    )
    _close(slots.pooled, bare.pooled)
    if config.pruning.method == "merge":
        _close(bare.pooled[0, 1], run(two.replace(image=one.image), config)[0].pooled[0, 0])


def test_more_pictures_than_promised_are_refused():
    image = random_batch(0, rows=1).image
    image = type(image)(
        pixels=image.pixels, yx=image.yx, grid=image.grid, segments=np.array([[1, 1, 1, 2, 2, 2]], np.int32)
    )
    with pytest.raises(BatchError, match="pictures=1 promises"):
        make_batch(text=Text(ids=np.ones((1, 2), np.int32)), image=image, pictures=1)


def test_without_text_all_tokens_choose():
    assert run(without_text(random_batch(0)), DROP)[0].extra["kept"].sum(-1).tolist() == [[4, 4], [3, 3]]


@pytest.mark.parametrize("config", [DROP, MERGE], ids=["drop", "merge"])
def test_gradients_are_those_of_differences(config):
    """With respect to the embedded tokens and the attention weights, of which those of a key that is gone get none."""
    pruning = PruningConfig(keep=0.5, method=config.pruning.method)
    config = replace(config, dtype="float64", num_layers=2, pruning=pruning)
    with jax.enable_x64(True):
        model, batch = toy_model(config), random_batch(2, rows=1)

        def loss(x, perturbation):
            stream = dataclasses.replace(model.embed(batch), x=x)
            encoded = model(batch, embedded=stream, perturbation={"self": perturbation})
            return jnp.sin(encoded.pooled).sum() + jnp.sin(encoded.image).sum(), encoded.extra["kept"]

        rng = np.random.default_rng(0)
        at = (rng.normal(size=(1, 11, 24)), np.zeros((2, 1, 2, 11, 11)))
        grads = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))
        (_, kept), gradients = grads(*at)
        step = [rng.normal(size=each.shape) for each in at]
        up, down = (grads(*(x + sign * 1e-6 * s for x, s in zip(at, step, strict=True)))[0][0] for sign in (1, -1))
        expected = sum(float((g * s).sum()) for g, s in zip(gradients, step, strict=True))
        np.testing.assert_allclose((up - down) / 2e-6, expected, rtol=1e-5)
    gone = ~np.asarray(kept)[0, 0]
    assert (np.asarray(gradients[1])[1:, ..., 5:][..., gone] == 0).all()
    assert np.abs(gradients[1]).max(axis=(1, 2, 3, 4)).min() > 0


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"layers": "scan"}, "cannot be scanned"),
        ({"num_layers": 1}, "some layer must come after"),
        ({"late_layers": 1}, "late_layers=1"),
        ({"direction": "causal"}, "later words"),
        ({"direction": "bottleneck", "bottlenecks": 2}, "by='all'"),
        ({"pruning": {"keep": 0.0}}, r"keep=0.0: must be in \[0.001, 1\]"),
        ({"pruning": {"keep": 0.0009}}, r"config.model.pruning.keep=0.0009: must be in \[0.001, 1\]"),
        ({"pruning": {"threshold": 2.0, "method": "mask"}}, "must be in"),
        ({"pruning": {"threshold": 0.5}}, "goes by keep"),
        ({"pruning": {"keep": 0.5, "method": "mask"}}, "by a threshold"),
        ({"pruning": {"keep": 0.4, "method": "merge"}}, "at most halves"),
        ({"pruning": {"keep": 0.5, "method": "merge", "by": "all"}}, "how alike"),
        ({"pruning": {"layers": (2, 1)}}, "each above the last"),
        ({"pruning": {"method": "cut"}}, "choose one of drop, merge, mask"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        pruning = PruningConfig(**changes.pop("pruning", {"keep": 0.5}))
        replace(DEEP, pruning=pruning, **changes)
