"""Periodic positions make equal tokens one period apart equal, exactly.

Source: periodic positional encoding, Fan et al. 2022 (FaceFormer), section 3.2; that equal inputs stay equal in every
layer follows from experiment 9.

Test: texts of 12 random words in which the words at places 1, 5 and 9 are the same; a model of the library with
positions of period 4. Measured: the largest difference among the three, in the embedding and after two layers, and
the same with learned positions and with sines that do not repeat.

Refuted if: the embeddings differ in any bit, the states after two layers by more than 1e-5, or those of the other
encodings by less than 0.1 (in units of the states' root mean square).

Seen: as claimed of the embeddings, to the last bit. After two layers the same words differ by the rounding of sums in
another order, 1e-7; learned positions set them apart by 3, sines by 1.5.
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

from lab.c09_permutation import CONFIG, VOCABULARY
from lab.experiment import Check, Result
from singlestream.batch import Batch, Spec, Text, make_batch
from singlestream.model.config import ModelConfig
from singlestream.model.single_stream import SingleStream

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LENGTH, PERIOD, FIRST = 12, 4, 1
ENCODINGS = ("periodic", "learned", "sinusoidal")


def repeated(rng: np.random.Generator) -> Batch:
    """Four texts, each with one word that comes again every period."""
    ids = rng.integers(0, VOCABULARY, (4, LENGTH), np.int32)
    ids[:, FIRST::PERIOD] = ids[:, FIRST : FIRST + 1]
    return make_batch(text=Text(ids=ids))


@functools.partial(jax.jit, static_argnames="config")
def apart(config: ModelConfig, batch: Batch, key: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The largest difference among the repeated words, in the embedding and in the states."""
    model = SingleStream(config, Spec(vocab_size=VOCABULARY), rngs=nnx.Rngs(params=key))

    def among(x: jax.Array) -> jax.Array:
        same = x[:, FIRST::PERIOD]
        return jnp.abs(same - same[:, :1]).max() / jnp.sqrt((x**2).mean())

    return among(model.embed.of_text(batch.text)), among(model(batch).text)


def run(seed: int, *, period: int = PERIOD) -> Result:
    batch = repeated(np.random.default_rng(seed))
    result: Result = {}
    for name in ENCODINGS:
        config = dataclasses.replace(CONFIG, text_positions=name, text_period=period)
        embedded, final = apart(config, batch, jax.random.key(seed))
        result |= {f"{name}_embedded": float(embedded), f"{name}_final": float(final)}
    return result


def judge(results: Sequence[Result]) -> list[Check]:
    return [
        Check("periodic: difference of the embeddings", [r["periodic_embedded"] for r in results], most=0.0),
        Check("periodic: difference after two layers", [r["periodic_final"] for r in results], most=1e-5),
        Check("learned: difference after two layers", [r["learned_final"] for r in results], least=0.1),
        Check("sines: difference after two layers", [r["sinusoidal_final"] for r in results], least=0.1),
    ]


def draw(results: Sequence[Result], axes: Axes) -> None:
    for shift, part, label in ((-0.1, "embedded", "embedding"), (0.1, "final", "after two layers")):
        values = [[max(r[f"{name}_{part}"], 1e-8) for r in results] for name in ENCODINGS]
        places = np.repeat(np.arange(len(ENCODINGS)) + shift, len(results))
        axes.plot(places, np.ravel(values), "o", label=label)
    axes.set_xticks(range(len(ENCODINGS)), ENCODINGS)
    axes.set(yscale="log", ylabel="difference of equal words (1e-8: none)", xlabel="positions")
    axes.legend()
