"""Gates of channels, computed from words and picture together, rise for the property that the words name.

Source: squeeze and excitation, Hu et al. 2018, section 3; over two modalities, MMTM, Joze et al. 2020, section 3.2;
the library's `config.model.channel_gate`.

Test: pictures of 6 patches with 8 channels of colour and 8 of shape; a word that names one of the two. A fixed
reading of the mean patch should give what it gives of the named property's channels alone: the other half is noise to
it. The gate alone is fitted, 400 steps of Adam. Measured on new pictures: the mean gate of a patch's named channels
less that of the others (0 at the start, at most 2).

Refuted if: the difference is below 0.5.

Seen: as claimed: gates of 1.0 for the channels that are named, of 0.01 for the others.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from flax import nnx

from lab.experiment import Check, Result
from lab.fit import descend
from singlestream.batch import IMAGE, TEXT
from singlestream.model.channel_gate import ChannelGate
from singlestream.model.config import ModelConfig
from singlestream.model.visibility import Visibility

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ROWS, PATCHES, CHANNELS = 64, 6, 8  # channels of each property
WIDTH = 2 * CHANNELS
CONFIG = ModelConfig(width=WIDTH, num_heads=1, mlp_dim=WIDTH, channel_gate=2)
STEPS = 400


def sees() -> Visibility:
    """Rows of one word and its patches."""
    modality = jnp.broadcast_to(jnp.asarray([TEXT] + [IMAGE] * PATCHES, jnp.int32), (ROWS, 1 + PATCHES))
    return Visibility(segments=1 + 0 * modality, part=0 * modality, modality=modality, num_text=1)


def example(key: jax.Array, words: jax.Array, told: bool) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The stream, the channels that are named [ROWS, WIDTH], and those that are to be read."""
    name_key, patch_key = jax.random.split(key)
    name = jax.random.bernoulli(name_key, shape=(ROWS,)).astype(jnp.int32)
    patches = jax.random.normal(patch_key, (ROWS, PATCHES, WIDTH))
    stream = jnp.concatenate([words[name][:, None], patches], 1)
    named = (jnp.arange(WIDTH) // CHANNELS == name[:, None]).astype(jnp.float32)
    return stream, named, named if told else jnp.full_like(named, 0.5)


@functools.partial(jax.jit, static_argnames="told")
def fit(key: jax.Array, told: bool) -> tuple[jax.Array, jax.Array]:
    """The mean gate of named channels and of the others, on new pictures."""
    word_key, read_key, fitted, new = jax.random.split(key, 4)
    words, reading = jax.random.normal(word_key, (2, WIDTH)), jax.random.normal(read_key, (WIDTH,))
    graph, params = nnx.split(ChannelGate(CONFIG, rngs=nnx.Rngs(params=key)))
    visibility = sees()

    def loss(params: nnx.State, key: jax.Array) -> jax.Array:
        stream, _, wanted = example(key, words, told)
        gated, _ = nnx.merge(graph, params)(stream, visibility)
        answer = (wanted * stream[:, 1:].mean(1)) @ reading
        return ((gated[:, 1:].mean(1) @ reading - answer) ** 2).mean()

    params, _ = descend(loss, params, fitted, steps=STEPS, rate=0.02)
    stream, named, _ = example(new, words, told)
    gates = nnx.merge(graph, params)(stream, visibility)[1][:, 1:].mean(1)
    return (gates * named).sum() / named.sum(), (gates * (1 - named)).sum() / (1 - named).sum()


def run(seed: int, *, told: bool = True) -> Result:
    """`told=False`: what is to be read does not hang on the word."""
    named, others = fit(jax.random.key(seed), told)
    return {"named": float(named), "others": float(others)}


def judge(results: Sequence[Result]) -> list[Check]:
    return [
        Check("gate of named channels less that of the others", [r["named"] - r["others"] for r in results], least=0.5),
        Check("gate of named channels (should be 1)", [r["named"] for r in results]),
        Check("gate of the others (should be 0)", [r["others"] for r in results]),
    ]


def draw(results: Sequence[Result], axes: Axes) -> None:
    for place, name in enumerate(("named", "others")):
        axes.plot([place] * len(results), [r[name] for r in results], "o", color="#1d4ed8")
    axes.set_xticks([0, 1], ["named by the word", "not named"])
    axes.set(ylabel="mean gate of the channels", xlim=(-0.5, 1.5), ylim=(0, 2))
    axes.axhline(1, color="#334155", linestyle="--")
