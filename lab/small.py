"""Small models of the library, trained on `pairs` in one compiled program."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from lab import pairs
from lab.experiment import Result
from lab.fit import descend_over
from lab.pairs import Question
from singlestream.batch import Encoded
from singlestream.model.config import ModelConfig
from singlestream.model.heads import HeadConfig
from singlestream.model.maps import image_to_text, text_to_image
from singlestream.model.single_stream import SingleStream
from singlestream.model.two_stream import TwoStream
from singlestream.model.two_stream_config import ModelSettings, TwoStreamConfig

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH = 32
BASE = ModelConfig(
    width=WIDTH,
    num_layers=2,
    num_heads=2,
    mlp_dim=4 * WIDTH,
    image_stem="regions",
    image_positions="boxes",
    region_dim=sum(pairs.SIZES),
    max_text_length=8,
    embed_std=0.5,
    pooling="mean",
    layers="scan",  # compiles in half the time
)
HEADS = {"answer": HeadConfig(size=pairs.MARKS)}  # linear: nothing meets in it
TWO = TwoStreamConfig(
    width=WIDTH,
    num_layers=1,
    num_heads=2,
    mlp_dim=4 * WIDTH,
    image_width=WIDTH,
    image_layers=1,
    image_heads=2,
    image_mlp_dim=4 * WIDTH,
    cross_width=WIDTH,
    cross_heads=2,
    cross_after_text=(1,),
    cross_after_image=(1,),
    region_dim=sum(pairs.SIZES),
    max_text_length=8,
    norm_eps=1e-6,
    embed_std=0.5,
)
ROWS = 96  # in a step, of all kinds alike
NEW = 1024  # of each kind, afterwards


def key_of(seed: int) -> jax.Array:
    """A key whose numbers compile in half the time of the default's."""
    return jax.random.key(seed, impl="unsafe_rbg")


def build(config: ModelSettings, key: jax.Array) -> SingleStream | TwoStream:
    """The model of these settings, with its linear head of answers."""
    rngs = nnx.Rngs(params=key)
    if isinstance(config, ModelConfig):
        return SingleStream(config, pairs.SPEC, heads=HEADS, rngs=rngs)
    return TwoStream(config, pairs.SPEC, heads=HEADS, rngs=rngs)


def answers(model: Any, question: Question, key: jax.Array, **asked: Any) -> tuple[Encoded, jax.Array]:
    """What the model encodes, and its logits [R, MARKS]."""
    encoded = model(pairs.batch_of(question, key), **asked)
    return encoded, model.heads["answer"](encoded)[:, 0]


def loss(model: Any, question: Question, key: jax.Array) -> jax.Array:
    """Mean cross-entropy of the right answer."""
    logits = answers(model, question, key)[1]
    return optax.softmax_cross_entropy_with_integer_labels(logits, question.answer).mean()


@functools.partial(jax.jit, static_argnames=("config", "rate"))
def fit(key: jax.Array, config: ModelSettings, seen: Question, new: Question, rate: float) -> tuple[Any, ...]:
    """Adam on `seen` [steps, R, ...], its rate rising at first and falling to 0 as a cosine does.

    Returns:
        The parameters at the end, the loss before each step, and whether new questions are answered right [R].
    """
    start, noise, later = jax.random.split(key, 3)
    graph, params = nnx.split(build(config, start))
    steps = seen.answer.shape[0]

    def cost(params: Any, each: tuple[Question, jax.Array]) -> jax.Array:
        return loss(nnx.merge(graph, params), *each)

    fall = optax.warmup_cosine_decay_schedule(0.0, rate, min(100, steps // 4), steps)
    optimizer = optax.flatten(optax.adam(fall))  # one array: compiles sooner
    params, losses = descend_over(cost, params, (seen, jax.random.split(noise, steps)), optimizer)
    right = answers(nnx.merge(graph, params), new, later)[1].argmax(-1) == new.answer
    return params, losses, right


def train(
    seed: int, config: ModelSettings, kinds: tuple[str, ...], *, steps: int, rate: float = 3e-3
) -> tuple[Any, np.ndarray, Result]:
    """Trains on new questions of all kinds in every step.

    Returns:
        The parameters, the loss before each step, and {kind: share of new questions that are answered right}.
    """
    rng = np.random.default_rng(seed)
    every = pairs.questions(rng, kinds, steps * (ROWS // len(kinds)))
    seen = Question(*(_by_step(x, len(kinds), steps) for x in every))
    params, losses, right = fit(key_of(seed), config, seen, pairs.questions(rng, kinds, NEW), rate)
    shares = np.asarray(right, float).reshape(len(kinds), NEW).mean(1)
    return params, np.asarray(losses), dict(zip(kinds, shares.tolist(), strict=True))


def _by_step(x: np.ndarray, kinds: int, steps: int) -> np.ndarray:
    """One kind after the other to [steps, R, ...] with all of them in each step."""
    each = x.reshape(kinds, steps, -1, *x.shape[1:]).swapaxes(0, 1)
    return each.reshape(steps, -1, *x.shape[1:])


@functools.partial(jax.jit, static_argnames="config")
def untrained(key: jax.Array, config: ModelSettings) -> Any:
    """Parameters at the start."""
    return nnx.state(build(config, key))


def merge(config: ModelSettings, params: Any) -> Any:
    """The model of these settings with these parameters."""
    return nnx.merge(nnx.graphdef(nnx.eval_shape(lambda: build(config, key_of(0)))), params)


@functools.partial(jax.jit, static_argnames="config")
def _interaction(params: Any, config: ModelSettings, crossed: Question) -> jax.Array:
    model = merge(config, params)
    logits = jax.vmap(lambda question: answers(model, question, key_of(0))[1])(crossed)
    (both, left), (right, none) = logits.reshape(2, 2, *logits.shape[1:])
    return jnp.abs(both + none - left - right).mean() / jnp.abs(both - none).mean()


def interaction(params: Any, config: ModelSettings, kind: str, of: str) -> float:
    """How far a model's logits are from a sum over two parts of a question; 0 where they are one.

    |L(a, b) + L(a', b') - L(a, b') - L(a', b)| as a share of |L(a, b) - L(a', b')|, each the mean over questions.

    Args:
        kind: of question.
        of: the two parts: `words`, the first and the second; `things`, the first half and the second; `sides`, the
            text and the picture.
    """
    first, second = (pairs.KINDS[kind](np.random.default_rng(seed), NEW // 4) for seed in (0, 1))
    each = [pairs.crossed(first, a, b, of) for a in (first, second) for b in (first, second)]
    return float(_interaction(params, config, Question(*(np.stack(field) for field in zip(*each, strict=True)))))


def thinned(losses: np.ndarray, number: int = 50) -> list[float]:
    """A curve of so many means."""
    return [float(part.mean()) for part in np.array_split(losses.astype(float), number)]


class Pointing(NamedTuple):
    """Share of right ones for each way [layers, H], of words that ask and of things that ask."""

    text_to_image: jax.Array
    image_to_text: jax.Array


@functools.partial(jax.jit, static_argnames="config")
def _hits(params: Any, config: ModelSettings, question: Question) -> Pointing:
    key = key_of(1)
    attention = answers(merge(config, params), question, key, attention=True)[0].attention or {}
    batch = pairs.batch_of(question, key)
    right = question.named[..., None] == jnp.arange(question.things.shape[1])  # [R, T, N]

    def share(maps: jax.Array, right: jax.Array) -> jax.Array:
        hit = jnp.take_along_axis(right[None, :, None], maps.argmax(-1, keepdims=True), -1)[..., 0]
        named = right.any(-1)
        return (hit & named[:, None]).sum((1, 3)) / named.sum()

    return Pointing(
        share(text_to_image(attention, batch=batch), right),
        share(image_to_text(attention, batch=batch), right.swapaxes(1, 2)),
    )


def pointing(params: Any, config: ModelSettings, kind: str) -> Result:
    """Of each way, the share of strongest weights that lie on what is named, or on what names it.

    The head is chosen on half of the new questions, and its share is that of the other half.
    """
    halves = (pairs.KINDS[kind](np.random.default_rng([7, half]), NEW // 2) for half in (0, 1))
    chosen, told = (_hits(params, config, half) for half in halves)
    ways = zip(Pointing._fields, chosen, told, strict=True)
    return {way: float(own.ravel()[np.argmax(choice)]) for way, choice, own in ways}


def draw_bars(results: Sequence[dict[str, Result]], axes: Axes, arms: Sequence[str], figures: Sequence[str]) -> None:
    """The median of each figure as a bar, beside each other for each arm, and every seed as a point."""
    width = 0.8 / len(figures)
    for i, figure in enumerate(figures):
        places = np.arange(len(arms)) + width * (i - (len(figures) - 1) / 2)
        values = np.array([[result[arm][figure] for arm in arms] for result in results])
        bars = axes.bar(places, np.median(values, 0), width=0.9 * width, label=figure, alpha=0.7)
        for row in values:
            axes.plot(places, row, ".", color=bars.patches[0].get_facecolor()[:3], markersize=5)
    axes.set_xticks(range(len(arms)), [arm.replace("_", "\n") for arm in arms])
    axes.legend(loc="lower right")
