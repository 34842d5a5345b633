"""Without positions the encoder is equivariant to permutations of words and of patches; positions break it.

Source: the reason for position encodings, Vaswani et al. 2017, section 3.5; the property, Lee et al. 2019 (Set
Transformer), property 1.

Test: a single-stream model of the library with random parameters, 8 words and 9 patches. Words are permuted, and what
the patches show, while their places stay; the states must come out permuted alike. Measured: the largest difference,
in units of the states' root mean square, without positions, with learned ones, and with sines.

Refuted if: without positions a state differs by more than 1e-4, or with either encoding none does by more than 0.1.

Seen: as claimed; without positions what is left is rounding, 1e-6.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from lab.experiment import Check, Result
from singlestream.batch import Batch, Patches, Spec, Text, make_batch
from singlestream.model.config import ModelConfig
from singlestream.model.single_stream import SingleStream

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Of the text and of the image.
ENCODINGS = {"none": ("none", "none"), "learned": ("learned", "learned"), "sines": ("sinusoidal", "sincos2d")}
CONFIG = ModelConfig(
    width=32, num_layers=2, num_heads=2, mlp_dim=64, patch_size=4, image_grid=(3, 3), embed_std=0.5, layers="scan"
)
WORDS, VOCABULARY = 8, 50


def rows(ids: np.ndarray, pixels: np.ndarray) -> Batch:
    """Four rows of a text and a picture, of words [4, WORDS] and what patches show [4, 9, C]."""
    yx = np.stack(np.meshgrid(np.arange(3), np.arange(3), indexing="ij"), -1).reshape(1, 9, 2)
    yx = np.repeat(yx, 4, 0).astype(np.int32)
    return make_batch(text=Text(ids=ids), image=Patches(pixels=pixels, yx=yx, grid=np.full_like(yx, 3)))


@functools.partial(jax.jit, static_argnames="config")
def states(config: ModelConfig, batch: Batch, key: jax.Array) -> tuple[jax.Array, jax.Array]:
    """What a model with parameters drawn from `key` makes of words and patches."""
    encoded = SingleStream(config, Spec(vocab_size=VOCABULARY), rngs=nnx.Rngs(params=key))(batch)
    return encoded.text, encoded.image


def difference(encoding: str, seed: int) -> float:
    """How far the states of a permuted input are from the permuted states."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, VOCABULARY, (4, WORDS), np.int32)
    pixels = rng.integers(0, 256, (4, 9, 3 * CONFIG.window**2)).astype(np.uint8)
    words, patches = rng.permutation(WORDS), rng.permutation(9)
    text, image = ENCODINGS[encoding]
    config = dataclasses.replace(CONFIG, text_positions=text, image_positions=image)
    batches = rows(ids, pixels), rows(ids[:, words], pixels[:, patches])
    before, after = (states(config, batch, jax.random.key(seed)) for batch in batches)
    moved = jnp.concatenate([before[0][:, words], before[1][:, patches]], 1)
    return float(jnp.abs(jnp.concatenate(after, 1) - moved).max() / jnp.sqrt((moved**2).mean()))


def run(seed: int, *, without: str = "none") -> Result:
    """`without`: the encoding of the model that is meant to have none."""
    return {name: difference(name, seed) for name in ("learned", "sines")} | {"none": difference(without, seed)}


def judge(results: Sequence[Result]) -> list[Check]:
    return [
        Check("no positions: largest difference", [r["none"] for r in results], most=1e-4),
        Check("learned positions: largest difference", [r["learned"] for r in results], least=0.1),
        Check("sines: largest difference", [r["sines"] for r in results], least=0.1),
    ]


def draw(results: Sequence[Result], axes: Axes) -> None:
    for place, name in enumerate(ENCODINGS):
        axes.plot([place] * len(results), [max(r[name], 1e-8) for r in results], "o", color="#1d4ed8")
    axes.set_xticks(range(len(ENCODINGS)), list(ENCODINGS))
    axes.set(yscale="log", xlabel="positions", ylabel="difference from permuted states", xlim=(-0.5, 2.5))
