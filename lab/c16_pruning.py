"""Half of the image tokens can go after training: accuracy and grounding hold as long as the named thing is kept, which
the text's attention decides.

Source: FastV, Chen et al. 2024, section 4.1; SparseVLM, Zhang et al. 2025, section 3.2; the library's
`config.model.pruning`.

Test: a single stream of two layers and width 32 is trained for 1,000 steps on `sparse` (the mark of the red one) with
four things and eight empty regions (`lab/pairs.py`), the arm `whole` on all twelve tokens, `half` with the six that the
text attends to least dropped after the first layer. Afterwards each answers 1,024 new questions with 12, 9, 6, 3 and 1
of the image tokens kept. Measured: the share of right answers (1/4 is a guess), of questions whose named thing is still
there, and of those where the head of the second layer that points best (chosen on half, told on the other half) points
at it. Dropped at random, the named thing would be there in 3/12 of the questions with 3 tokens kept.

Refuted if: with 6 of 12 tokens `whole` answers more than 2 points less than with all, or points right in more than 5
points less, or keeps the named thing in less than 95%, or with 3 tokens in less than 50%, or `half` answers less than
95% with 6. What is right with one token beyond
what is kept, and guesses for the rest, is told: the first layer may have read it before it went.

Seen: as claimed, and further: every question is answered right with one token of twelve, for the named thing is always
the one kept. That is an easy question, one word and one thing. Grounding does not fall, it rises: the second layer's
best head points at the named thing in 0.31 of the questions with all tokens (0.21 to 0.42) and in 0.59 with three; with
fewer tokens there are fewer to be wrong about. The bound on pointing was written after these runs. Of a task's size it
says little: on Scenes, in a run that was never trained for it, dropping half costs 4.6 points and merging half none
(benchmarks/results/pruning.md).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from lab import pairs, small
from lab.experiment import Check, Result
from singlestream.model.config import ModelConfig
from singlestream.model.maps import text_to_image
from singlestream.model.pruning.config import PruningConfig

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ARMS, SEEDS = ("whole", "half"), (0, 1, 2)
KIND, STEPS = "sparse", 1000
TOKENS = (12, 9, 6, 3, 1)
WORD = 1  # the word that names
FIGURES = ("right", "kept", "pointing")


def config_of(tokens: int) -> ModelConfig:
    pruning = PruningConfig(keep=tokens / TOKENS[0])
    return dataclasses.replace(small.BASE, layers="unrolled", pruning=pruning)


@functools.partial(jax.jit, static_argnames="config")
def measure(params: Any, config: ModelConfig, question: pairs.Question) -> tuple[jax.Array, ...]:
    """Of each question: answered right [R], the named thing is still there [R], each head points at it [R, H]."""
    key, named = small.key_of(1), question.named[:, WORD]
    encoded, logits = small.answers(small.merge(config, params), question, key, attention=True)
    maps = text_to_image(encoded.attention or {}, batch=pairs.batch_of(question, key))[-1, :, :, WORD]
    there = encoded.extra["kept"][-1] if config.pruning.active else jnp.ones(question.things.shape[:2], bool)
    kept = jnp.take_along_axis(there, named[:, None], 1)[:, 0]
    return logits.argmax(-1) == question.answer, kept, maps.argmax(-1) == named[:, None]


def curve(params: Any) -> Result:
    """{figure: shares of new questions by the number of tokens kept}."""
    question = pairs.sparse(np.random.default_rng(7), small.NEW)
    found: Result = {figure: [] for figure in FIGURES}
    for tokens in TOKENS:
        right, kept, points = (np.asarray(x, float) for x in measure(params, config_of(tokens), question))
        best = points[::2].mean(0).argmax()
        for figure, value in zip(FIGURES, (right, kept, points[1::2, best]), strict=True):
            found[figure].append(float(value.mean()))
    return found


def run(seed: int, arm: str) -> Result:
    config = config_of(TOKENS[0] if arm == "whole" else TOKENS[2])
    params, _, _ = small.train(seed, config, (KIND,), steps=STEPS)
    return curve(params)


def judge(results: Sequence[dict[str, Result]]) -> list[Check]:
    def of(arm: str, figure: str, tokens: int) -> list[float]:
        return [r[arm][figure][TOKENS.index(tokens)] for r in results]

    def lost(figure: str) -> list[float]:
        return [a - b for a, b in zip(of("whole", figure, 12), of("whole", figure, 6), strict=True)]

    # What is kept is answered, and of the rest one in four is guessed.
    explained = [kept + (1 - kept) / pairs.MARKS for kept in of("whole", "kept", 1)]
    beyond = [right - most for right, most in zip(of("whole", "right", 1), explained, strict=True)]
    return [
        Check("whole: answered right with 12 tokens", of("whole", "right", 12), least=0.95),
        Check("whole: right answers lost with 6", lost("right"), most=0.02),
        Check("whole: right pointing lost with 6", lost("pointing"), most=0.05),
        Check("whole: the named thing is kept with 6", of("whole", "kept", 6), least=0.95),
        Check("whole: the named thing is kept with 3", of("whole", "kept", 3), least=0.5),
        Check("whole: right with 1 token beyond what it kept", beyond),
        Check("half: answered right with 6", of("half", "right", 6), least=0.95),
        *(
            Check(f"{arm}: {figure} with {tokens}", of(arm, figure, tokens))
            for arm in ARMS
            for figure in ("right", "pointing")
            for tokens in (12, 6, 3, 1)
        ),
    ]


def draw(results: Sequence[dict[str, Result]], axes: Axes) -> None:
    for arm, style in zip(ARMS, ("-", "--"), strict=True):
        for figure, colour in zip(FIGURES, ("#1d4ed8", "#047857", "#b45309"), strict=True):
            values = np.array([r[arm][figure] for r in results])
            axes.plot(TOKENS, np.median(values, 0), style, color=colour, marker=".", label=f"{arm}: {figure}")
            axes.fill_between(TOKENS, values.min(0), values.max(0), color=colour, alpha=0.15)
    axes.set(xlabel="image tokens kept after the first layer", ylabel="share of questions", ylim=(0, 1.02))
    axes.set_xticks(TOKENS)
    axes.legend(fontsize="small")
