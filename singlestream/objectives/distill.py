"""Soft targets from a moving average of the model itself (Li et al. 2021, ALBEF, section 3.3, equations 6 and 7)."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Float

from singlestream.batch import Array
from singlestream.config import ConfigError
from singlestream.objectives import base, itc

HEADS = ("itc", "mlm", "vqa")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Which objectives get soft targets; over how many training examples these take the place of the given ones."""

    heads: tuple[str, ...] = ("itc", "mlm")
    ramp: int = 0

    def __post_init__(self) -> None:
        for name in self.heads or ("",):
            if name not in HEADS:
                raise ValueError(f"config.objective_options.distill.heads: {name!r}, choose of {', '.join(HEADS)}")
        if self.ramp < 0:
            raise ValueError(f"config.objective_options.distill.ramp={self.ramp}: must be at least 0")


class Objective(base.Objective):
    """KL(teacher || model) of what other objectives predict, on the very batches that they read, masks included.

    ALBEF's total, (1 - a) task + a KL with a = 0.4, is the weights 0.6 for the task and 0.4 for this. With a `ramp` the
    task's own loss stands here for as much of the KL as is still to come, `task_loss`, so that a grows from 0 as in the
    authors' code. The teacher is the run's average (`config.train.ema_decay`) without dropout. An evaluation reads that
    average itself, so there the KL is 0.
    """

    needs_average = True

    def __init__(self, options: Options):
        super().__init__(options)
        self.needs = options.heads
        kinds = ("loss", "task_loss") if options.ramp else ("loss",)
        self.terms = {f"{name}_{kind}": 1.0 for name in options.heads for kind in kinds}

    def check(self, config):
        loss = config.objective_options.get("vqa", {}).get("loss", "softmax")
        if "vqa" in self.options.heads and loss != "softmax":
            raise ConfigError(
                f"config.objective_options.vqa.loss={loss!r}: distill compares distributions over the answers, set it "
                "to 'softmax' or leave 'vqa' out of config.objective_options.distill.heads"
            )

    def heads(self, config, spec):
        return {}

    def init_state(self, spec):
        return {"seen": jnp.zeros((), jnp.int32)} if self.options.ramp else {}

    def loss(self, encode, heads, batch, spec, key, state):
        share, state = self._share(batch, state)
        metrics = {}
        for name in self.options.heads:
            total, count = _FOUND[name](encode, batch)
            metrics[f"{name}_loss"] = (share * total, count)
            if self.options.ramp:
                total, count = encode.found[name]["loss"]
                metrics[f"{name}_task_loss"] = ((1 - share) * total, count)
        return metrics, state

    def _share(self, batch, state) -> tuple[Float[Array, ""], dict[str, Array]]:
        """How much of the weight is the KL's by now, and the examples seen with this batch."""
        ramp = self.options.ramp
        if not ramp:
            return jnp.ones(()), state
        seen = jnp.minimum(state["seen"] + batch.example_mask.sum(dtype=jnp.int32), ramp)
        return state["seen"] / jnp.float32(ramp), {"seen": seen}


def _mlm(encode: base.Encode, batch) -> base.Sums:
    masked, chosen = encode.view("mlm", base.made_before)
    wanted, found = (each.heads["mlm"](each(masked)) for each in (encode.teacher, encode))
    return base.divergence(wanted, found, chosen)


def _vqa(encode: base.Encode, batch) -> base.Sums:
    wanted, found = (each.heads["vqa"](each(batch)) for each in (encode.teacher, encode))
    return base.divergence(wanted, found, batch.example_mask & (batch.targets["answer"] >= 0))


def _itc(encode: base.Encode, batch) -> base.Sums:
    """The mean of both directions, against the candidates that `itc` has: its queue, or the batch's own vectors.

    At the model's own temperature, as in the authors' code.
    """
    found = encode.view("itc", base.made_before)
    own = itc.unimodal(encode.teacher, batch)
    candidates = own if len(found.candidates.picture) == len(own.picture) else found.candidates
    wanted = itc.compare(own, candidates, itc.similarity_scale(encode, batch))
    to_image = base.divergence(wanted.text_to_image, found.text_to_image, own.is_text)
    to_text = base.divergence(wanted.image_to_text, found.image_to_text, own.is_text)
    return jax.tree.map(lambda x, y: (x + y) / 2, to_image, to_text)


_FOUND = {"itc": _itc, "mlm": _mlm, "vqa": _vqa}
