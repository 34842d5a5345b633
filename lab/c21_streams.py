"""One stream and two are alike: with as many parameters, and with as much arithmetic, neither answers better.

Source: Bugliarello et al. 2021, section 5, who find single and dual streams on par under the same conditions; the
streams, Tan & Bansal 2019 (LXMERT) and Li et al. 2019 (VisualBERT).

Test: the three kinds of questions of (20), 2,000 steps, post-LN, pooled from the first word through a layer with tanh.
`single`: four layers of width 32. `two, parameters`: a layer of each side and a cross layer of LXMERT's, whose
feed-forward layers make it as many parameters. `two, compute`: two cross layers, and feed-forward layers that make it
as many FLOPs (`singlestream.train.flops`) for two words and four things. Both figures of each arm are told.

Refuted if: parameters (FLOPs) differ by more than 3%, or the mean share of right answers of two streams differs from
that of one by more than 5 points.

Seen: refuted, both ways. What decides is whether a run finds how `chain` is answered: `single` does in one of three
(0.86, otherwise a guess of 0.49 and 0.50), `two, parameters` in two (0.998 and 0.999, the third 0.64), `two, compute`
in none. So two streams are 7 points above one with as many parameters (5 to 20) and 7 below with as much arithmetic
(-10 to +4), the smaller of the two being the better. `read` is 1.00 everywhere, `pair` 0.80 or more. Three seeds of
2,000 steps cannot tell streams from luck. By count, `two, parameters` has 0.54 of the FLOPs of `single`, `two, compute`
1.79 of its parameters.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import jax
import numpy as np
from flax import nnx

from lab import pairs, small
from lab.experiment import Check, Result
from singlestream.model.two_stream_config import ModelSettings
from singlestream.train.flops import train_flops

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SINGLE = dataclasses.replace(
    small.BASE, num_layers=4, norm="post", text_norm=True, image_norm="sum", pooling="cls", pooler=True
)
MLP_OF_PARAMETERS, MLP_OF_COMPUTE = 110, 150
STREAMS: dict[str, ModelSettings] = {
    "single": SINGLE,
    "two, parameters": dataclasses.replace(small.TWO, mlp_dim=MLP_OF_PARAMETERS, image_mlp_dim=MLP_OF_PARAMETERS),
    "two, compute": dataclasses.replace(
        small.TWO,
        mlp_dim=MLP_OF_COMPUTE,
        image_mlp_dim=MLP_OF_COMPUTE,
        cross_after_text=(1, 1),
        cross_after_image=(1, 1),
    ),
}
ARMS, SEEDS = tuple(STREAMS), (0, 1, 2)
KINDS = ("read", "pair", "chain")
STEPS, RATE = 2000, 2e-3


def sizes(config: ModelSettings) -> Result:
    """Parameters, and FLOPs of the layers for one example in a training step."""
    question = pairs.read(np.random.default_rng(0), 1)
    batch = jax.eval_shape(lambda: pairs.batch_of(question, small.key_of(0)))
    state = nnx.state(nnx.eval_shape(lambda: small.build(config, small.key_of(0))))
    return {
        "parameters": float(sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(state))),
        "flops": train_flops(config, batch),
    }


def run(seed: int, arm: str) -> Result:
    config = STREAMS[arm]
    _, _, shares = small.train(seed, config, KINDS, steps=STEPS, rate=RATE)
    return {**shares, **sizes(config)}


def judge(results: Sequence[dict[str, Result]]) -> list[Check]:
    def ratio(arm: str, figure: str) -> list[float]:
        return [r[arm][figure] / r["single"][figure] for r in results]

    def right(arm: str) -> list[float]:
        return [float(np.mean([r[arm][kind] for kind in KINDS])) for r in results]

    checks = [
        Check("parameters of `two, parameters` over `single`", ratio("two, parameters", "parameters"), 0.97, 1.03),
        Check("FLOPs of `two, compute` over `single`", ratio("two, compute", "flops"), 0.97, 1.03),
        Check("FLOPs of `two, parameters` over `single`", ratio("two, parameters", "flops")),
        Check("parameters of `two, compute` over `single`", ratio("two, compute", "parameters")),
    ]
    for arm in ARMS[1:]:
        less = [own - single for own, single in zip(right(arm), right("single"), strict=True)]
        checks.append(Check(f"{arm}: answered right, less `single`", less, -0.05, 0.05))
    return [*checks, *(Check(f"{arm}: {k}", [r[arm][k] for r in results]) for arm in ARMS for k in KINDS)]


def draw(results: Sequence[dict[str, Result]], axes: Axes) -> None:
    small.draw_bars(results, axes, ARMS, KINDS)
    axes.set(ylabel="answered right", ylim=(0, 1.02))
