"""Of attention over several windows, the learned gate picks the scale that was planted.

Source: a gate over experts, Jacobs et al. 1991; windows of several widths, Guo et al. 2020, section 3.2; the
library's selection `multi_scale`.

Test: rows of 24 words with random queries, keys and values. Each query holds a tag, one of three; what it should read
is soft attention within one word, within four, or over everything, as its tag says. The gate alone is fitted, 300
steps of Adam on the squared error. Measured on new rows: the gate's weight on the planted scale, which is 1/3 at the
start.

Refuted if: that weight is below 0.9 on average.

Seen: as claimed: 0.987 at each scale.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from lab.experiment import Check, Result
from lab.fit import descend
from singlestream.batch import TEXT
from singlestream.model.attention.config import AttentionConfig
from singlestream.model.attention.scores.scaled_dot import scaled_dot
from singlestream.model.attention.selections.multi_scale import Selection
from singlestream.model.visibility import Visibility

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WINDOWS = (1, 4, 0)  # 0: everything
ROWS, WORDS, SIZE = 16, 24, 16
STEPS = 300
CONFIG = AttentionConfig(selection="multi_scale", windows=WINDOWS)


def scores(q: jax.Array, k: jax.Array, visibility: Visibility) -> jax.Array:
    return scaled_dot(q, k)


def sees() -> Visibility:
    """Rows of words that all see each other."""
    ones = jnp.ones((ROWS, WORDS), jnp.int32)
    place = jnp.broadcast_to(jnp.arange(WORDS, dtype=jnp.int32), ones.shape)
    return Visibility(segments=ones, part=0 * ones, modality=TEXT * ones, place=place, token=place, num_text=WORDS)


def example(key: jax.Array, planted: bool) -> tuple[tuple[jax.Array, jax.Array, jax.Array], jax.Array, jax.Array]:
    """(q, k, v), what is to be read, and the number of the scale [ROWS, WORDS]."""
    scale_key, tag_key, *keys = jax.random.split(key, 5)
    scale = jax.random.randint(scale_key, (ROWS, WORDS), 0, len(WINDOWS))
    tag = scale if planted else jax.random.randint(tag_key, scale.shape, 0, len(WINDOWS))
    q, k, v = (jax.random.normal(key, (ROWS, 1, WORDS, SIZE)) for key in keys)
    # The tag takes numbers of the query that the keys do not answer to.
    q = q.at[..., : len(WINDOWS)].set(jax.nn.one_hot(tag, len(WINDOWS))[:, None])
    k = k.at[..., : len(WINDOWS)].set(0.0)
    place = np.arange(WORDS)
    near = jnp.asarray([np.abs(place[:, None] - place) <= (window or WORDS) for window in WINDOWS])
    wanted = jax.nn.softmax(jnp.where(near[scale, place], scaled_dot(q, k)[:, 0], -jnp.inf), axis=-1) @ v[:, 0]
    return (q, k, v), wanted, scale


@functools.partial(jax.jit, static_argnames="planted")
def fit(key: jax.Array, planted: bool) -> jax.Array:
    """The mean gate of new queries [planted scale, scale of the gate]."""
    fitted, new = jax.random.split(key)
    selection = Selection(CONFIG, 1, SIZE, dtype=jnp.dtype("float32"), rngs=nnx.Rngs(params=key))
    graph, params = nnx.split(selection)
    visibility = sees()

    def loss(params: nnx.State, key: jax.Array) -> jax.Array:
        inputs, wanted, _ = example(key, planted)
        out, _ = nnx.merge(graph, params)(scores, *inputs, visibility)
        return ((out[:, 0] - wanted) ** 2).mean()

    params, _ = descend(loss, params, fitted, steps=STEPS, rate=0.1)
    (q, _, _), _, scale = example(new, planted)
    gates = nnx.merge(graph, params).gates(q)[:, 0]
    share = jax.nn.one_hot(scale, len(WINDOWS)).reshape(-1, len(WINDOWS))
    return share.T @ gates.reshape(-1, len(WINDOWS)) / share.sum(0)[:, None]


def run(seed: int, *, planted: bool = True) -> Result:
    """`planted=False`: the tags say nothing of the scale."""
    return {"gates": np.asarray(fit(jax.random.key(seed), planted), float).tolist()}


def judge(results: Sequence[Result]) -> list[Check]:
    picked = [float(np.diag(r["gates"]).mean()) for r in results]
    worst = [float(np.diag(r["gates"]).min()) for r in results]
    return [
        Check("the gate's weight on the planted scale", picked, least=0.9),
        Check("the same, for the scale where it is least", worst),
    ]


def draw(results: Sequence[Result], axes: Axes) -> None:
    gates = np.median([r["gates"] for r in results], 0)
    labels = [f"within {window}" if window else "everything" for window in WINDOWS]
    for scale, label in enumerate(labels):
        axes.bar(np.arange(len(WINDOWS)) + 0.27 * (scale - 1), gates[:, scale], width=0.25, label=f"gate: {label}")
    axes.set_xticks(range(len(WINDOWS)), labels)
    axes.set(xlabel="planted scale", ylabel="weight of the gate")
    axes.legend()
