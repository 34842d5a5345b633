"""Pruned tokens: the choice against plain loops, and what must not change by it."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given
from hypothesis import strategies as st

from singlestream.batch import IMAGE, BatchError, Text, make_batch, without_text
from singlestream.config import ConfigError
from singlestream.model.pruning.choose import above, best, same
from singlestream.model.pruning.config import PruningConfig
from singlestream.model.pruning.kept import Kept
from singlestream.model.pruning.merge import first_set, match, merge
from singlestream.model.visibility import Visibility
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
    """From the drop on, against a loop over the unpruned blocks with the survivors in raster order.

    Of tokens that were merged the weights are those of the one: given by each, received in equal parts.
    """
    batch = random_batch(1, rows=1)
    config = replace(config, pruning=PruningConfig(keep=0.5, layers=(2,), method=config.pruning.method))
    encoded, model = _with_weights(config, batch), toy_model(config)
    stream = model.embed(batch)
    sees, still = model.sees(batch, stream), {"depth_rate": jnp.zeros(())}
    blocks = model.encoder.each()
    read, _ = blocks[0](stream.x, sees, **still)
    x, _ = blocks[1].attend(read, sees, **still)
    kept = encoded.extra["kept"][0, 0]
    nowhere = 6
    into = np.where(kept, np.arange(6), nowhere)
    if config.pruning.method == "merge":
        keys = blocks[1].attention.project(blocks[1].before(read, blocks[1].attention_norm))[1].mean(2)[:, 5:]
        states, into = _merged(np.asarray(x[0, 5:]), np.asarray(keys[0]), 3)
        assert (kept == (into == np.arange(6))).all()
        x = x.at[0, 5:].set(states)
    index = np.concatenate([np.arange(5), 5 + np.flatnonzero(kept)])[None].astype(np.int32)
    stands_for = np.concatenate([np.ones(5, int), np.bincount(into, minlength=6)])
    short = dataclasses.replace(sees.at(index), log_size=jnp.log(stands_for[index]))
    left = blocks[1].feed(x[:, index[0]], **still)
    last, weights = blocks[2](left, short, weights=True, **still)
    last = model.encoder.finish(last)
    _close(encoded.text, last[:, :5])
    _close(encoded.image[0, kept], last[0, 5:])
    if config.pruning.method == "drop":
        _close(encoded.hidden[1][0, 5:][~kept], x[0, 5:][~kept])
        _close(encoded.hidden[2][0, 5:][~kept], encoded.hidden[1][0, 5:][~kept], 0)
    whole = np.zeros((2, 11, 11))
    speaks, place = [*range(5), *(5 + into)], {token: i for i, token in enumerate(index[0])}
    for query, key in np.ndindex(11, 11):
        if (by := speaks[query]) in place and (of := speaks[key]) in place:
            whole[:, query, key] = weights[0][:, place[by], place[of]] / stands_for[of]
    _close(encoded.attention["self"][2, 0], whole)


def _merged(x, keys, count):
    """The `count` tokens of even places that are the most like one of an odd place go into it: states, and where to."""
    unit = keys / np.linalg.norm(keys, axis=1, keepdims=True)
    pairs = [(max((unit[a] @ unit[b], b) for b in range(1, len(x), 2)), a) for a in range(0, len(x), 2)]
    into = np.arange(len(x))
    for (_, b), a in sorted(pairs, reverse=True)[:count]:
        into[a] = b
    return np.array([x[into == i].mean(0) if i in into else x[i] for i in range(len(x))]), into


@pytest.mark.parametrize("config", [ALL, MASK], ids=["all", "mask"])
def test_every_layer_is_that_of_plain_loops(config):
    """With the choice in its middle, in float64; of two rows the second has two patches of padding."""
    config, batch = replace(config, dtype="float64"), random_batch(3)
    image = dataclasses.replace(batch.image, segments=np.array([[1] * 6, [1] * 4 + [0] * 2], np.int32))
    batch = make_batch(text=batch.text, image=image)
    with jax.enable_x64(True):
        model = toy_model(config)
        encoded = jax.tree.map(np.asarray, jax.jit(model)(batch))
        x = np.asarray(model.embed(batch).x)
        blocks, norm = (
            jax.tree.map(np.asarray, nnx.to_pure_dict(nnx.state(part)))
            for part in (model.encoder.blocks, model.encoder.norm)
        )
    left = []
    for row, count in enumerate((6, 4)):
        tokens = np.r_[: 5 + count, 11 : x.shape[1]]
        states, kept = _looped(config, blocks, x[row, tokens], count)
        states = _normed(norm, states, config.norm_eps)
        np.testing.assert_allclose(encoded.text[row], states[:5], atol=1e-6, rtol=0)
        np.testing.assert_allclose(encoded.image[row, :count], states[5 : 5 + count], atol=1e-6, rtol=0)
        np.testing.assert_array_equal(encoded.extra["kept"][:, row, :count], kept)
        left.append(sum(kept[-1]) / count)
    assert 0 < min(left) < 1


def _looped(config, blocks, x, count):
    """One example's states before the last LayerNorm, after five words its image tokens; which each drop leaves."""
    x, words, image, there = x.copy(), range(5), range(5, 5 + count), list(range(len(x)))
    pruning, size, kept = config.pruning, config.width // config.num_heads, []
    for number in range(config.num_layers):
        block = jax.tree.map(lambda p, number=number: p[number], blocks)
        read = _normed(block["attention_norm"], x, config.norm_eps)
        qkv = np.einsum("ld,dpe->lpe", read, block["attention"]["kernel"]) + block["attention"]["bias"]
        q, k, v = qkv.reshape(len(x), 3, config.num_heads, size).transpose(1, 2, 0, 3)
        weights, found = np.zeros((config.num_heads, len(x), len(x))), np.zeros((len(x), config.num_heads, size))
        for head, i in np.ndindex(config.num_heads, len(x)):
            seen = [j for j in there if not (config.direction == "prefix" and i not in words and j in words)]
            share = np.exp([q[head, i] @ k[head, j] / math.sqrt(size) for j in seen])
            weights[head, i, seen] = share / share.sum()
            found[i, head] = weights[head, i] @ v[head]
        x[there] += _dense(block["attention"]["out"], found.reshape(len(x), -1))[there]
        if number + 1 in pruning.layers:
            asks = words if pruning.by == "text" else there
            score = {j: np.mean([weights[:, i, j].mean() for i in asks]) for j in image if j in there}
            if pruning.method == "mask":
                stay = {j for j in score if score[j] >= pruning.threshold * np.mean(list(score.values()))}
            else:
                wanted = math.ceil(count * pruning.keep ** ((len(kept) + 1) / len(pruning.layers)))
                stay = set(sorted(score, key=score.get, reverse=True)[:wanted])
            there = [i for i in there if i not in image or i in stay]
            kept.append([j in stay for j in image])
        up = _dense(block["mlp"]["up"], _normed(block["mlp_norm"], x, config.norm_eps))
        x[there] += _dense(block["mlp"]["down"], up * (1 + np.vectorize(math.erf)(up / math.sqrt(2))) / 2)[there]
    return x, kept


def _normed(norm, x, eps):
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + eps) * norm["scale"] + norm["bias"]


def _dense(params, x):
    return x @ params["kernel"] + params["bias"]


def test_tokens_are_ranked_without_noise():
    """The first layer reads the same in training; the dropout of its weights does not change what goes."""
    model = toy_model(replace(DEEP, pruning=PruningConfig(keep=0.5), attention_dropout=0.8))
    run, batch = jax.jit(lambda batch, key: model(batch, key=key)), random_batch(0, rows=8)
    trained, still = run(batch, jax.random.key(0)), run(batch, None)
    np.testing.assert_array_equal(trained.extra["kept"], still.extra["kept"])
    assert np.abs(trained.hidden[0] - still.hidden[0]).max() > 0.1


def test_one_token_less_leaves_the_others_in_their_sets():
    """Whichever patch it is; where earlier mergings took the first set, every other one of the second steps in."""
    where = np.stack([np.zeros(12), *np.divmod(np.arange(12), 4)], -1).astype(np.int32)[None]
    both = [_first_set(np.arange(12) != gone, where) for gone in range(-1, 12)]
    np.testing.assert_array_equal(both[0], where[0].sum(-1) % 2 == 0)
    for gone, first in enumerate(both[1:]):
        assert (first == both[0])[np.arange(12) != gone].all()
    line = np.pad(np.arange(12, dtype=np.int32)[:, None], ((0, 0), (2, 0)))[None]
    np.testing.assert_array_equal(np.flatnonzero(_first_set(np.arange(12) % 2 == 1, line)), [1, 5, 9])


def _first_set(there, where):
    segments = there[None].astype(np.int32)
    number, among = _whole(segments, where).number, same(segments)
    return np.asarray(first_set(number, among, among.sum(-1, dtype=np.int32) // 2))[0]


def test_regions_are_numbered_in_their_example():
    number = _whole(np.array([[1, 1, 0, 2, 2, 2]], np.int32)).number
    assert number[0, [0, 1, 3, 4, 5]].tolist() == [0, 1, 0, 1, 2]


def _whole(segments, where=None):
    """Of image tokens alone."""
    segments = jnp.asarray(segments)
    where = None if where is None else jnp.asarray(where)
    sees = Visibility(segments=segments, part=segments * 0, modality=segments * 0 + IMAGE, where=where)
    return Kept.whole(jnp.zeros((*segments.shape, 1)), sees, segments.shape[1])


def test_weights_of_merged_tokens_are_shared_and_found_again():
    """Tokens 0 and 3 go into 1, and 4 is dropped: places hold 1 and 2."""
    state, x = _whole(np.ones((1, 5), np.int32)), jnp.zeros((1, 5, 1))
    into, stay = np.array([[1, 1, 2, 1, 4]], np.int32), np.array([[False, True, True, False, False]])
    state = state.shorten(x, jnp.asarray(stay), jnp.asarray(into), 2)[1]
    weights = np.array([[[[0.6, 0.4], [0.3, 0.7]]]], np.float32)
    spread = state.spread(jnp.asarray(weights))
    one, other = [0.2, 0.2, 0.4, 0.2, 0], [0.1, 0.1, 0.7, 0.1, 0]
    _close(spread[0, 0], [one, one, other, one, [0] * 5], 1e-7)
    _close(state.gather(spread[None])[0], weights, 1e-7)


def test_merging_keeps_the_sum():
    """Of states times sizes, in each segment; no segment takes of another."""
    rng = np.random.default_rng(0)
    segments = np.array([[1, 1, 1, 1, 2, 2, 2, 0]], np.int32)
    x, keys = rng.normal(size=(1, 8, 3)).astype(np.float32), rng.normal(size=(1, 8, 4)).astype(np.float32)
    size = rng.integers(1, 4, (1, 8)).astype(np.float32)
    count, among = np.where(segments == 1, 2, 1).astype(np.int32), same(segments)
    into = match(keys, among, first_set(np.arange(8, dtype=np.int32)[None], among, count), count)
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
    """With respect to the embedded tokens and the attention weights.

    Of these a key that was dropped gets none, one that was merged that of its token.
    """
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
    of_gone = np.asarray(gradients[1])[1, 0, :, 0, 5:][:, ~np.asarray(kept)[0, 0]]
    assert (of_gone == 0).all() if config.pruning.method == "drop" else (of_gone != 0).all()
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
