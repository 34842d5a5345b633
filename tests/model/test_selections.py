"""Each selection against its definition, one query at a time; its gradients; what it refuses."""

from __future__ import annotations

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from singlestream.batch import ALL, AUDIO, EXTRA, IMAGE, TEXT, BatchError
from singlestream.model.attention import turns
from singlestream.model.attention.config import AttentionConfig
from singlestream.model.attention.module import Attention
from singlestream.model.attention.relative.bias import BUCKETS
from singlestream.model.attention.selections.graph import joined
from singlestream.model.attention.selections.gumbel import gumbel
from singlestream.model.attention.selections.hard import hard
from singlestream.model.attention.selections.sampled import sampled
from singlestream.model.attention.selections.topk import topk
from singlestream.model.single_stream import SingleStream
from singlestream.model.two_stream_config import TwoStreamConfig
from singlestream.model.visibility import Visibility
from tests.model.test_relative import t5_bucket
from tests.model.test_two_stream import REGIONS, SHARED, WORDS, example
from tests.model.test_two_stream import pack as two_stream_rows
from tests.model.test_two_stream import toy_model as two_stream
from tests.model.toy import CONFIG, SPEC, random_batch, replace
from tests.objectives.toy import check_slope

HEADS, SIZE = 2, 4
# (segment, part, modality, place, (picture, row, column)) of each token: in the first row a text with two pictures and
# a smaller example, in the second two texts that share a picture. (0, ...) is padding.
NONE, PAD = (-1, -1, -1), (0, 0, TEXT, 0, (-1, -1, -1))
FIRST = [(1, 0, TEXT, i, NONE) for i in range(5)] + [(2, 0, TEXT, i, NONE) for i in range(3)] + [PAD]
FIRST += [(1, 0, IMAGE, 0, (0, y, x)) for y in range(2) for x in range(3)]
FIRST += [(1, 0, IMAGE, 0, (1, 0, x)) for x in range(2)] + [(2, 0, IMAGE, 0, (0, y, 0)) for y in range(3)]
SECOND = [(1, 1, TEXT, i, NONE) for i in range(4)] + [(1, 2, TEXT, i, NONE) for i in range(5)]
SECOND += [(1, 0, IMAGE, 0, (0, y, x)) for y in range(3) for x in range(3)] + [PAD, PAD]
ROWS = [FIRST, SECOND]
LENGTH = len(FIRST)
EDGES = np.array(
    [[[0, 4], [3, 1], [9, 14], [0, 5], [-1, -1]], [[2, 0], [10, 17], [4, 8], [-1, -1], [-1, -1]]], np.int32
)


@functools.cache
def visibility(direction="prefix"):
    columns = {name: np.array([[token[i] for token in row] for row in ROWS], np.int32) for i, name in enumerate(KNOWN)}
    numbers = np.broadcast_to(np.arange(LENGTH, dtype=np.int32), (2, LENGTH))
    return Visibility(**columns, token=numbers, edges=EDGES, direction=direction, num_text=9, examples=2)


KNOWN = ("segments", "part", "modality", "place", "where")


def attention(rate=0.0, **settings):
    """Attention of a kind with parameters off their start, as (graph, numpy parameters)."""
    module = Attention(AttentionConfig(**settings), HEADS, SIZE, rate=rate, dtype=np.dtype("float64"), rngs=nnx.Rngs(0))
    graph, state = nnx.split(module)
    rng = np.random.default_rng(1)
    return graph, jax.tree.map(lambda x: rng.normal(size=x.shape), nnx.to_pure_dict(state))


def inputs(seed=0):
    return tuple(np.random.default_rng(seed).normal(size=(3, 2, LENGTH, HEADS, SIZE)))


def loops(q, k, v, seen, weigh, extra=lambda *pair: 0.0):
    """Weights [B, H, Q, K] and what is read, by `weigh(row, head, query, keys, scores)` of the keys that are seen.

    To a score comes `extra(row, head, query, key)`.
    """
    out, weights = np.zeros(q.shape), np.zeros((2, HEADS, LENGTH, LENGTH))
    for b, h, i in np.ndindex(2, HEADS, LENGTH):
        keys = np.flatnonzero(seen[b, i])
        if len(keys):
            scores = np.array([q[b, i, h] @ k[b, j, h] / np.sqrt(SIZE) + extra(b, h, i, j) for j in keys])
            weights[b, h, i, keys] = weigh(b, h, i, keys, scores)
            out[b, i, h] = weights[b, h, i] @ v[b, :, h]
    return out, weights


def softmax(scores, counts=None):
    found = np.exp(scores - scores.max()) * (1 if counts is None else counts)
    return found / found.sum()


def first_best(scores, number):
    """True for so many of the best, of equal ones the first."""
    return np.isin(np.arange(len(scores)), np.argsort(-scores, kind="stable")[:number])


# ---- the definitions: (row, head, query, keys, scores, parameters) -> weights ----------------------------------------


def is_near(b, i, j, window, shape="square"):
    one, other = ROWS[b][i], ROWS[b][j]
    if one[2] == TEXT == other[2]:
        return abs(one[3] - other[3]) <= window
    if one[2] == IMAGE == other[2]:
        (picture, y, x), (other_picture, v, u) = one[4], other[4]
        distance = max(abs(y - v), abs(x - u)) if shape == "square" else abs(y - v) + abs(x - u)
        return picture == other_picture and distance <= window
    return True


def by_window(b, i, keys, scores, window, shape="square"):
    return softmax(scores, [window == 0 or is_near(b, i, j, window, shape) for j in keys])


def by_edges(b, h, i, keys, scores, *_):
    joined = {tuple(sorted(edge)) for edge in EDGES[b].tolist()}
    across = [ROWS[b][i][2] != ROWS[b][j][2] for j in keys]
    return softmax(scores, [i == j or a or tuple(sorted((i, j))) in joined for j, a in zip(keys, across, strict=True)])


def by_distance_graph(b, h, i, keys, scores, params, q, k, window=1):
    def strength(j):
        one, other, side = ROWS[b][i], ROWS[b][j], 2 * window + 1
        steps = np.subtract((other[3], *other[4]), (one[3], *one[4]))
        near = np.clip(steps, -window, window) + window
        number = side + side**2
        if one[2] == TEXT == other[2]:
            number = near[0]
        elif one[2] == IMAGE == other[2] and one[4][0] == other[4][0]:
            number = side + side * near[2] + near[3]
        return 1 / (1 + np.exp(-params["selection"]["logits"][h, number]))

    return softmax(scores, [strength(j) for j in keys])


def by_learned_graph(b, h, i, keys, scores, params, q, k):
    logits = [q[b, i, h] @ params["selection"]["kernel"][:, h] @ k[b, j, h] / np.sqrt(SIZE) for j in keys]
    return softmax(scores, 1 / (1 + np.exp(-np.array(logits))))


def by_scales(b, h, i, keys, scores, params, q, k):
    gate = softmax(q[b, i, h] @ params["selection"]["kernel"][:, h] + params["selection"]["bias"][h])
    return sum(g * by_window(b, i, keys, scores, window) for g, window in zip(gate, (1, 2, 0), strict=True))


def best_one(b, h, i, keys, scores, *_):
    return first_best(scores, 1)


DEFINITIONS = {
    "hard": ({}, best_one),
    "gumbel": ({"temperature": 0.5}, best_one),
    "sampled": ({}, best_one),
    "topk": ({"keep": 3.0}, lambda b, h, i, keys, s, *_: softmax(s, first_best(s, 3))),
    "topk share": ({"keep": 0.3}, lambda b, h, i, keys, s, *_: softmax(s, first_best(s, math.ceil(0.3 * len(keys))))),
    "local": ({"window": 1}, lambda b, h, i, keys, s, *_: by_window(b, i, keys, s, 1)),
    "multi_scale": ({"windows": (1, 2, 0)}, by_scales),
    "graph grid": ({}, lambda b, h, i, keys, s, *_: by_window(b, i, keys, s, 1, "cross")),
    "graph edges": ({"graph": "edges"}, by_edges),
    "graph distance": ({"graph": "distance", "window": 1}, by_distance_graph),
    "graph learned": ({"graph": "learned"}, by_learned_graph),
    "routed": ({"keep": 1.0, "block": 2}, None),
    "routed share": ({"keep": 0.4, "block": 3}, None),
    "routed bias": ({"keep": 1.0, "block": 2, "relative": "bias"}, None),
}
SMOOTH = [name for name in DEFINITIONS if name.partition(" ")[0] not in ("hard", "gumbel", "sampled")]


def settings(name):
    return {"selection": name.partition(" ")[0], **DEFINITIONS[name][0]}


def by_distance(b, h, i, j, table):
    """What `relative="bias"` adds to the score of two tokens; test_relative.py holds the buckets."""
    one, other = ROWS[b][i], ROWS[b][j]
    if one[2] == TEXT == other[2] and one[:2] == other[:2]:
        return table[h, t5_bucket(other[3] - one[3])]
    if one[2] == IMAGE == other[2] and (one[0], one[4][0]) == (other[0], other[4][0]):
        down, right = (t5_bucket(other[4][axis] - one[4][axis]) for axis in (1, 2))
        return table[h, BUCKETS + BUCKETS * down + right]
    return table[h, BUCKETS + BUCKETS**2 + 3 * one[2] + other[2]]


def routed_loops(q, k, v, seen, params, keep, block, relative="none"):
    """Blocks as lists of tokens; each reads itself and those whose coarse keys it likes best.

    A block's coarse query and key are means, and they stand where the first token of the block does.
    """

    def extra(b, h, i, j):
        return 0.0 if relative == "none" else by_distance(b, h, i, j, params["relative"]["table"])

    def coarse(b, h, mine, other):
        return q[b, mine, h].mean(0) @ k[b, other, h].mean(0) / np.sqrt(SIZE) + extra(b, h, mine[0], other[0])

    out, weights = np.zeros(q.shape), np.zeros((2, HEADS, LENGTH, LENGTH))
    for b, row in enumerate(ROWS):
        groups = {}
        for i, (segment, part, modality, *_) in enumerate(row):
            groups.setdefault((segment, modality, part), []).append(i)
        cut = [g[n : n + block] for s, g in sorted(groups.items()) if s[0] for n in range(0, len(g), block)]
        for mine in cut:
            others = [c for c in cut if c is not mine and seen[b, mine[0], c[0]]]
            wanted = min(len(others), int(keep)) if keep >= 1 else math.ceil(keep * len(others))
            share = sum(
                softmax(np.array([coarse(b, h, mine, other) for other in others])) if others else np.zeros(0)
                for h in range(HEADS)
            )
            read = sum((c for c, best in zip(others, first_best(share, wanted), strict=True) if best), mine)
            allowed = np.zeros((LENGTH, LENGTH), bool)
            allowed[np.ix_(mine, read)] = True
            some = loops(q, k, v, seen & allowed, lambda b, h, i, keys, scores: softmax(scores), extra)
            out[b, mine], weights[b][:, mine] = some[0][b, mine], some[1][b][:, mine]
    return out, weights


@functools.cache
def runner(name, direction="prefix"):
    graph, params = attention(**settings(name))

    @jax.jit
    def run(params, q, k, v):
        return nnx.merge(graph, params)(q, k, v, visibility(direction), weights=True)

    return run, params


@pytest.mark.parametrize("name", DEFINITIONS)
def test_a_selection_is_its_definition(name):
    with jax.enable_x64(True):
        run, params = runner(name)
        q, k, v = inputs()
        out, weights = run(params, q, k, v)
        seen, weigh = np.asarray(visibility().mask()), DEFINITIONS[name][1]
        if weigh is None:
            expected = routed_loops(q, k, v, seen, params, **DEFINITIONS[name][0])
        else:
            expected = loops(q, k, v, seen, lambda *given: weigh(*given, params, q, k))
        there = np.asarray(visibility().segments) > 0
        np.testing.assert_allclose(np.asarray(out)[there], expected[0][there], atol=1e-6)
        np.testing.assert_allclose(
            np.asarray(weights).swapaxes(1, 2)[there], expected[1].swapaxes(1, 2)[there], atol=1e-6
        )
        assert np.isfinite(out).all()


@pytest.mark.parametrize("name", SMOOTH)
def test_gradients_are_those_of_differences(name):
    with jax.enable_x64(True):
        run, params = runner(name)
        there = np.asarray(visibility().segments)[..., None, None] > 0

        def loss(given):
            return jnp.where(there, jnp.sin(run(*given)[0]), 0).sum()

        check_slope(loss, (params, *inputs()))


@pytest.mark.parametrize("name", ["topk", "routed"])
def test_queries_in_turn_are_queries_at_once(name, monkeypatch):
    """Stretches of 6 of the 20 queries, or of 3 of the 17 blocks: values, weights and gradients."""
    with jax.enable_x64(True):
        graph, params = attention(**settings(name))
        there = np.asarray(visibility().segments)[..., None, None] > 0

        def loss(q, k, v):
            out, weights = nnx.merge(graph, params)(q, k, v, visibility(), weights=True)
            return jnp.where(there, jnp.sin(out), 0).sum(), jnp.where(there.swapaxes(1, 2), weights, 0)

        def measure():
            return jax.jit(jax.value_and_grad(lambda given: loss(*given), has_aux=True))(inputs())

        at_once = measure()
        monkeypatch.setattr(turns, "QUERIES", 6)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12), measure(), at_once)


# ---- one key a query: what is drawn, and what gradient it has --------------------------------------------------------

SCORES = np.random.default_rng(2).normal(size=(1, 1, 2, 4))
SEEN = np.array([[[[True, True, False, True], [False, True, True, True]]]])
WAY = np.random.default_rng(3).normal(size=SCORES.shape)
SHARE = np.where(SEEN, np.exp(SCORES), 0) / np.where(SEEN, np.exp(SCORES), 0).sum(-1, keepdims=True)


def slope(weights, scores=SCORES):
    """The gradient of the weights' sum along WAY, with respect to the scores."""
    return jax.jit(jax.grad(lambda scores: (weights(scores) * WAY).sum()))(scores)


def softmax_slope(share, way=WAY):
    return share * (way - (share * way).sum(-1, keepdims=True))


def test_hard_has_the_gradient_of_the_softmax():
    with jax.enable_x64(True):
        found = hard(jnp.asarray(SCORES), SEEN)
        np.testing.assert_array_equal(
            found, np.where(SEEN, SCORES, -9) == np.where(SEEN, SCORES, -9).max(-1)[..., None]
        )
        np.testing.assert_allclose(slope(lambda scores: hard(scores, SEEN)), softmax_slope(SHARE), atol=1e-12)


def test_gumbel_has_the_gradient_of_its_own_softmax():
    with jax.enable_x64(True):
        key, heat = jax.random.key(0), 0.5
        noisy = np.exp((SCORES + jax.random.gumbel(key, SCORES.shape, np.float64)) / heat) * SEEN
        share = noisy / noisy.sum(-1, keepdims=True)
        found = gumbel(jnp.asarray(SCORES), SEEN, temperature=heat, key=key)
        np.testing.assert_array_equal(found, share == share.max(-1, keepdims=True))
        expected = softmax_slope(share) / heat
        np.testing.assert_allclose(
            slope(lambda scores: gumbel(scores, SEEN, temperature=heat, key=key)), expected, atol=1e-12
        )


@pytest.mark.parametrize("draw", [functools.partial(gumbel, temperature=2.0), sampled], ids=["gumbel", "sampled"])
def test_keys_are_drawn_from_the_softmax(draw):
    """Of 10,000 draws each key's number is within 5 standard deviations: of 8 numbers one is not in 1 of 10^5 seeds."""
    keys = jax.random.split(jax.random.key(0), 10_000)
    found = np.asarray(jax.jit(jax.vmap(lambda key: draw(jnp.asarray(SCORES, jnp.float32), SEEN, key=key)))(keys))
    assert (found.sum(-1) == 1).all() and set(np.unique(found)) == {0, 1}
    assert (np.abs(found.mean(0) - SHARE) <= 5 * np.sqrt(SHARE * (1 - SHARE) / len(keys))).all()


def test_sampled_carries_the_gradients_of_log_p_and_of_the_entropy():
    with jax.enable_x64(True):
        chosen = np.asarray(sampled(jnp.asarray(SCORES), SEEN, key=jax.random.key(1)))

        def numbers(scores, way):
            share = np.where(SEEN, np.exp(scores), 0)
            share /= share.sum(-1, keepdims=True)
            logs = np.log(share, where=SEEN, out=np.zeros_like(share))
            entropy = -(share * logs).sum(-1, keepdims=True) / (SEEN.sum(-1, keepdims=True) - 1)
            return (way * np.where(chosen > 0, logs, np.where(SEEN, entropy, 0))).sum()

        expected, step = np.zeros_like(SCORES), 1e-6
        for place in np.ndindex(SCORES.shape):
            moved = np.zeros_like(SCORES)
            moved[place] = step
            expected[place] = (numbers(SCORES + moved, WAY) - numbers(SCORES - moved, WAY)) / (2 * step)
        found = slope(lambda scores: sampled(scores, SEEN, key=jax.random.key(1)))
        np.testing.assert_allclose(found, expected, atol=1e-8)


def test_what_is_read_of_a_draw_moves_its_value_alone():
    with jax.enable_x64(True):
        graph, params = attention(selection="sampled")
        q, k, v = inputs()

        @jax.jit
        @functools.partial(jax.grad, argnums=(0, 1, 2))
        def gradients(q, k, v):
            return jnp.sin(nnx.merge(graph, params)(q, k, v, visibility(), key=jax.random.key(0))[0]).sum()

        of_q, of_k, of_v = gradients(q, k, v)
        assert not np.any(of_q) and not np.any(of_k) and np.any(of_v)


# ---- the rest --------------------------------------------------------------------------------------------------------


def test_of_equal_scores_the_first_are_kept():
    scores = jnp.array([[[[1.0, 2.0, 1.0, 1.0, 0.0, 1.0]]]])
    mask = jnp.array([[[[False, True, True, True, True, True]]]])
    assert np.flatnonzero(topk(scores, mask, 2.0)).tolist() == [1, 2]
    assert np.flatnonzero(topk(scores, mask, 0.6)).tolist() == [1, 2, 3]
    assert np.flatnonzero(topk(scores, mask, 9.0)).tolist() == [1, 2, 3, 4, 5]


def test_the_gates_are_a_share_of_each_scale():
    with jax.enable_x64(True):
        graph, params = attention(selection="multi_scale")
        q = inputs()[0].swapaxes(1, 2)
        found = nnx.merge(graph, params).selection.gates(q)
        logits = np.einsum("bhqc,chs->bhqs", q, params["selection"]["kernel"]) + params["selection"]["bias"][:, None]
        np.testing.assert_allclose(found, np.exp(logits) / np.exp(logits).sum(-1, keepdims=True), atol=1e-12)


@pytest.mark.parametrize("graph", ["distance", "learned"])
def test_the_learned_graphs_strengths_can_be_read(graph):
    """Of the second head, which is given one logit: that of a patch and the one on its right, or of two contents."""
    with jax.enable_x64(True):
        module, params = attention(selection="graph", graph=graph)
        (name, given), q, k = *params["selection"].items(), *np.zeros((2, 2, HEADS, LENGTH, SIZE))
        given = np.zeros_like(given)
        given[(1, 5 + 2 * 5 + 2 + 1) if graph == "distance" else (0, 1, 3)] = 3.0
        q[:, :, 9, 0], k[:, :, 10, 3] = 1.0, 2.0
        selection = nnx.merge(module, {"selection": {name: given}}).selection
        found = np.asarray(selection.strength(q, k, visibility()))
    seen = np.asarray(visibility().mask())[0]
    patches = (9, 10, 12, 13, 15) if graph == "distance" else (9,)
    assert np.argwhere(seen & (found[0] != 0.5)).tolist() == [[1, i, i + 1] for i in patches]
    assert found[0, 1, 9, 10] == pytest.approx(1 / (1 + np.exp(-3.0)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"window": 3},
            "window=3 does not go with config.model.attention.selection='soft', which does not read it: gra",
        ),
        ({"selection": "gumbel", "temperature": 0.0}, "temperature=0.0: must be above 0"),
        (
            {"selection": "topk", "keep": 1.5},
            "keep=1.5: must be a whole number from 1 on, or a share of at least 0.001",
        ),
        ({"selection": "routed", "keep": 0.0005}, "config.model.attention.keep=0.0005: must be a whole number"),
        ({"selection": "routed", "block": 0}, "block=0: must be at least 1"),
        ({"selection": "multi_scale", "windows": ()}, "must hold at least one window"),
        ({"selection": "graph", "graph": "tree"}, "graph='tree': choose one of distance, edges, grid, learned"),
    ],
)
def test_bad_settings_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        AttentionConfig(**changes)


OF_REGIONS = {"image_stem": "regions", "image_positions": "boxes", "num_images": 1}


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        ({"selection": "local"}, OF_REGIONS, "selection='local' does not go with config.model.image_stem='regions'"),
        ({"selection": "multi_scale"}, OF_REGIONS, "rows and columns of patches, which regions have not"),
        ({"selection": "graph"}, OF_REGIONS, "graph='grid' does not go with config.model.image_stem='regions'"),
        (
            {"selection": "graph", "graph": "edges"},
            {"decoder_layers": 1},
            "does not go with config.model.decoder_layers",
        ),
        ({"selection": "routed"}, {"direction": "causal"}, "does not go with config.model.direction='causal'"),
    ],
)
def test_a_model_that_cannot_have_a_selection_says_why(kind, changes, message):
    with pytest.raises(ValueError, match=message):
        replace(CONFIG, attention=AttentionConfig(**kind), **changes)


def test_two_streams_read_no_places():
    with pytest.raises(ValueError, match="or with two streams, which read regions"):
        TwoStreamConfig(attention=AttentionConfig(selection="local"))


def test_edges_come_with_the_batch():
    """Taken away, they are missed by name; given, they join tokens both ways."""
    config = replace(CONFIG, attention=AttentionConfig(selection="graph", graph="edges"))
    batch = random_batch(0, rows=1)
    model = nnx.eval_shape(lambda: SingleStream(config, SPEC, rngs=nnx.Rngs(0)))
    modality = np.array([[TEXT] * 5 + [IMAGE] * 6], np.int32)

    def seen(**targets):
        given = batch.replace(targets=targets)
        stream = nnx.eval_shape(lambda model: model.embed(given), model)
        stream = jax.tree.map(lambda x: np.ones(x.shape, x.dtype), stream)
        return model.sees(given, dataclasses.replace(stream, modality=modality))

    with pytest.raises(BatchError, match=r"reads int32\[1, any, 2\].*there are none"):
        seen()
    with pytest.raises(BatchError, match=r"got int64\[1, 2\]"):
        seen(edges=np.zeros((1, 2), np.int64))
    found = np.asarray(joined(seen(edges=np.array([[[5, 7], [-1, -1]]], np.int32))))
    across = modality[0][:, None] != modality[0]
    assert found[0][across].all()
    assert np.argwhere(found[0] & ~across & ~np.eye(11, dtype=bool)).tolist() == [[5, 7], [7, 5]]
    found = np.asarray(joined(seen(edges=np.array([[[2, ALL], [-1, -1]]], np.int32))))
    to_all = [[i, 2] for i in (0, 1)] + [[2, i] for i in (0, 1, 3, 4)] + [[i, 2] for i in (3, 4)]
    assert np.argwhere(found[0] & ~across & ~np.eye(11, dtype=bool)).tolist() == to_all


@pytest.mark.parametrize("other", [EXTRA, AUDIO], ids=["bottleneck", "sound"])
def test_edges_cut_off_no_class_token_and_nothing_beside_words_and_patches(other):
    """Which no edge can name: two patches without an edge are joined to it, and not to each other."""
    modality = np.array([[IMAGE, IMAGE, IMAGE, other, other]], np.int32)
    where = np.array([[[-1] * 3, [0, 0, 0], [0, 0, 1], [-1] * 3, [-1] * 3]], np.int32)
    ones, numbers = np.ones((1, 5), np.int32), np.arange(5, dtype=np.int32)[None]
    edges = np.full((1, 1, 2), -1, np.int32)
    sees = Visibility(
        segments=ones, part=0 * ones, modality=modality, where=where, token=numbers, edges=edges, examples=1
    )
    assert np.argwhere(~np.asarray(joined(sees))[0]).tolist() == [[1, 2], [2, 1]]


@pytest.mark.parametrize(
    "kind",
    [AttentionConfig(selection="routed", keep=1.0, block=2), AttentionConfig(selection="graph", graph="edges")],
    ids=["routed", "edges"],
)
def test_two_streams_take_a_selection(kind):
    """Beside another example or alone in its row: the same. And what it selects decides."""
    one_layer = dict(num_layers=1, image_layers=1, cross_after_text=(1,), cross_after_image=(1,))
    graph, params = nnx.split(two_stream(dataclasses.replace(SHARED, **one_layer, attention=kind)))
    text = jax.jit(lambda params, batch: nnx.merge(graph, params)(batch).text)
    one, other = example(0, 4, 3), example(1, 6, 2)
    batch = two_stream_rows([other, one, one, one], 3, 2, [(0, 0), (0, 1), (1, 0), (2, 0)])
    # Words 1 and 3 of the example and its regions 0 and 2, by their numbers in each row; in the last the words alone.
    first = 2 * WORDS  # region of a row
    edges = [[[WORDS + 1, WORDS + 3], [first + REGIONS, first + REGIONS + 2]], [[1, 3], [first, first + 2]]]
    edges = np.array([*edges, [[1, 3], [-1, -1]]], np.int32)
    found = np.asarray(text(params, batch.replace(targets={"edges": edges})))
    np.testing.assert_allclose(found[0, WORDS : WORDS + 4], found[1, :4], atol=1e-5)
    assert (np.abs(found[1, :4] - found[2, :4]).max() > 1e-4) == (kind.selection == "graph")
