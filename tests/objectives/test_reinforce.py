"""REINFORCE: the mean of many draws against the gradient of the expected loss, which a tiny case lists in full."""

from __future__ import annotations

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from singlestream.batch import Encoded, Regions, Text, make_batch
from singlestream.config import Config, ConfigError, ModelConfig
from singlestream.model.attention.config import AttentionConfig
from singlestream.model.attention.selections.sampled import sampled
from singlestream.objectives.reinforce import Objective, Options
from singlestream.objectives.total import total_loss
from singlestream.objectives.vqa import Objective as Vqa
from singlestream.objectives.vqa import Options as VqaOptions
from tests.model.toy import CONFIG, HEADS, SPEC, pack, random_batch, replace

from .toy import KEY, build, drawn

MODEL = ModelConfig(direction="prefix", attention=AttentionConfig(selection="sampled"))
DRAWN = replace(CONFIG, attention=MODEL.attention)
ENTROPY, ANSWERS, DRAWS = 0.7, 3, 100_000
# Two texts of one token that share a picture of two, of whose tokens the second text's neighbour sees what is not 0.
LABELS = np.array([[1, 2]], np.int32)
SEEN = np.array([[[1, 0, 1, 1], [0, 1, 1, 1], [0, 0, 1, 1], [0, 0, 1, 1]]], bool)[:, None]
RNG = np.random.default_rng(0)
PARAMS = {"scores": RNG.normal(size=(1, 1, 4, 4)), "values": RNG.normal(size=(4, ANSWERS))}
READOUT = RNG.normal(size=(2, 4))


def batch():
    text = Text(ids=np.array([[7, 8]], np.int32), part=np.array([[1, 2]], np.int32))
    return make_batch(text=text, image=Regions(features=np.zeros((1, 2, 1), np.float32)), targets={"answer": LABELS})


def logits_of(weights, values):
    """[B, K, answers]: what a text reads, and a part of what the picture's tokens read, so that all draws matter."""
    read = jnp.einsum("bhqk,kc->bqc", weights, values)
    return jnp.einsum("kq,bqc->bkc", READOUT * np.array([[1, 0, 1, 1], [0, 1, 1, 1]]), jnp.tanh(read))


class Drawing:
    """A model of one layer and one head."""

    def __init__(self, params, key):
        self.weights = sampled(params["scores"], SEEN, key=key)
        logits = logits_of(jax.lax.stop_gradient(self.weights), params["values"])
        self.heads = {"vqa": lambda encoded: logits}

    def __call__(self, batch, *, attention=False):
        none = jnp.zeros((1, 2, 1))
        return Encoded(text=none, image=none, pooled=none, attention={"self": self.weights[None]})


def mean_loss(params, key, baseline):
    model, terms = Drawing(params, key), []
    state = {"baseline": jnp.float32(baseline)}
    for objective in (Vqa(VqaOptions()), Objective(Options(entropy=ENTROPY))):
        metrics, _ = objective.loss(model, model.heads, batch(), SPEC, key, state)
        terms.append(metrics["loss"][0] / metrics["loss"][1])
    return terms[0] + terms[1]


def expected_loss(params):
    """The mean over all 3 x 3 x 2 x 2 outcomes, less the weighted mean entropy of each example's 3 draws."""
    log_p = jax.nn.log_softmax(jnp.where(SEEN, params["scores"], -1e30), axis=-1)[0, 0]
    total = 0.0
    for outcome in itertools.product(*(np.flatnonzero(row) for row in SEEN[0, 0])):
        logits = logits_of(np.eye(4)[list(outcome)][None, None], params["values"])
        nll = -jnp.take_along_axis(jax.nn.log_softmax(logits), LABELS[..., None], -1).mean()
        total += jnp.exp(sum(log_p[i, key] for i, key in enumerate(outcome))) * nll
    spread = -jnp.where(SEEN[0, 0], jnp.exp(log_p) * log_p, 0).sum(-1)
    of_examples = (spread[0] + spread[2] + spread[3]) / 3 + (spread[1] + spread[2] + spread[3]) / 3
    return total - ENTROPY * of_examples / 2


@pytest.mark.slow
@pytest.mark.parametrize("baseline", [0.0, -1.5])
def test_the_mean_of_many_draws_is_the_gradient_of_the_expected_loss(baseline):
    """Each of 28 numbers within 5 of its standard errors: by chance not so in fewer than one of 10^4 seeds."""
    with jax.enable_x64(True):
        keys = jax.random.split(jax.random.key(0), DRAWS)
        found = jax.jit(jax.vmap(jax.grad(mean_loss), in_axes=(None, 0, None)))(PARAMS, keys, baseline)
        expected = jax.jit(jax.grad(expected_loss))(PARAMS)
        for name, draws in found.items():
            error = np.asarray(draws.std(0)) / np.sqrt(DRAWS)
            assert (np.abs(draws.mean(0) - expected[name]) <= 5 * error + 1e-12).all(), name
            assert np.abs(expected[name]).max() > 20 * error.max(), f"{name}: the draws say too little"


@functools.cache
def _slopes():
    """batch -> the gradient of a small model's parameters; without a key what is drawn is the best key."""
    model = replace(DRAWN, num_layers=1)
    objectives = build({"reinforce": 1.0, "vqa": 1.0}, model=model)
    graph, params = drawn(model, {"vqa": HEADS["vqa"]})
    state = {name: objective.init_state(SPEC) for name, objective in objectives.items()}

    def loss(params, batch):
        metrics, _ = total_loss(nnx.merge(graph, params), objectives, batch, SPEC, KEY, state, train=False)
        return metrics["reinforce/loss"][0]

    return functools.partial(jax.jit(jax.grad(loss)), params)


def test_padding_and_packing_change_nothing():
    """Four questions alone in their rows, and side by side in fewer, with padding between: the same gradient."""
    examples = [random_batch(seed, rows=1, text=2 + seed, grid=(1 + seed % 2, 3)) for seed in range(4)]
    alone = pack(list(zip(examples, range(4), strict=True)), text_slot=5, num_patches=6, rows=4, slots=1)
    packed = pack(list(zip(examples, (0, 1, 2, 2), strict=True)), text_slot=8, num_patches=7, rows=3, slots=2)
    alone = alone.replace(targets={"answer": np.array([[3], [1], [0], [6]], np.int32)})
    packed = packed.replace(targets={"answer": np.array([[3, 2], [1, 2], [0, 6]], np.int32)})  # 2: of no example
    expected, found = (_slopes()(each) for each in (alone, packed))
    largest = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(expected))
    assert largest > 0.1
    close = functools.partial(np.testing.assert_allclose, rtol=2e-5, atol=1e-5 * largest)
    jax.tree.map(close, found, expected)


def test_the_baseline_follows_the_rewards_of_questions_that_count():
    model = Drawing(jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), PARAMS), jax.random.key(0))
    objective = Objective(Options(decay=0.75))
    first = objective.init_state(SPEC)
    np.testing.assert_allclose(first["baseline"], -np.log(SPEC.num_answers), rtol=1e-6)
    logits = model.heads["vqa"](None)
    reward = np.asarray(jax.nn.log_softmax(logits))[0, 0, LABELS[0, 0]]
    given = batch().replace(example_mask=np.array([[True, False]]))
    metrics, after = objective.loss(model, model.heads, given, SPEC, jax.random.key(0), first)
    np.testing.assert_allclose(after["baseline"], 0.75 * first["baseline"] + 0.25 * reward, rtol=1e-5)
    assert metrics["loss"] == (0, 1)
    nothing = batch().replace(example_mask=np.zeros((1, 2), bool))
    assert objective.loss(model, model.heads, nothing, SPEC, jax.random.key(0), first)[1] == first


def test_what_it_cannot_reward_is_refused():
    with pytest.raises(ConfigError, match="it needs vqa, with config.objective_options.vqa.loss='softmax'"):
        build({"reinforce": 1.0}, model=MODEL)
    with pytest.raises(ConfigError, match="it needs vqa, with"):
        build({"reinforce": 1.0, "vqa": 1.0}, model=MODEL, vqa={"loss": "binary"})
    with pytest.raises(ConfigError, match="selection='sampled', which draws what it reads; it is 'soft'"):
        build({"reinforce": 1.0, "vqa": 1.0})
    with pytest.raises(ConfigError, match="reinforce does not go with config.model.image_cls=True"):
        build({"reinforce": 1.0, "vqa": 1.0}, model=ModelConfig(image_cls=True, attention=MODEL.attention))
    with pytest.raises(ConfigError, match="reinforce.decay=1.0: must be in"):
        build({"reinforce": 1.0, "vqa": 1.0}, model=MODEL, reinforce={"decay": 1.0})


def test_a_draw_that_nothing_rewards_is_refused():
    with pytest.raises(
        ConfigError, match="draws what it reads, and its scores learn by the objective 'reinforce' alone"
    ):
        Config(model=MODEL, objectives={"vqa": 1.0, "reinforce": 0.0})


def test_vqa_is_read_from_the_same_draws():
    """A step encodes a batch once, with attention, so that what is rewarded is what was answered."""
    objectives = build({"reinforce": 1.0, "vqa": 1.0}, model=DRAWN)
    graph, params = drawn(DRAWN, {"vqa": HEADS["vqa"]})
    batch, calls = random_batch(0, targets={"answer": np.array([[1], [2]], np.int32)}), []

    def step(params, key):
        model = nnx.merge(graph, params)

        class Counted:
            heads = model.heads

            def __call__(self, batch, **asked):
                calls.append(asked)
                return model(batch, **asked)

        state = {name: objective.init_state(SPEC) for name, objective in objectives.items()}
        return total_loss(Counted(), objectives, batch, SPEC, key, state, train=True)

    metrics, state = jax.eval_shape(step, params, jax.random.key(0))
    assert len(calls) == 1 and calls[0]["attention"] and calls[0]["key"] is not None
    assert set(metrics) == {"vqa/loss", "vqa/accuracy", "reinforce/loss", "reinforce/baseline"}
    assert state["reinforce"]["baseline"].dtype == np.float32
