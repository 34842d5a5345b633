"""The sizes that are timed. Neither jax nor torch is imported here: both sides read it."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """One model and one batch. Pictures are square; ViLT adds a token of its own, ours gets one more text token."""

    width: int
    layers: int
    heads: int
    mlp: int
    patch: int  # pixels
    side: int  # patches
    text: int  # tokens that ViLT reads
    batch: int
    target: float  # our pairs/s over torch's, float32

    answers: int = 3129  # of VQAv2, as in ViLT's published head
    vocabulary: int = 30522

    @property
    def patches(self) -> int:
        return self.side**2

    @property
    def tokens(self) -> int:
        return self.text + self.patches + 1

    @property
    def projections(self) -> tuple[tuple[int, int], ...]:
        """(inputs, outputs) of a layer's: query, key and value in one, output, feed-forward up and down."""
        width = self.width
        return (width, 3 * width), (width, width), (width, self.mlp), (self.mlp, width)


CASES = {
    "base": Case(width=768, layers=12, heads=12, mlp=3072, patch=32, side=12, text=40, batch=4, target=1.5),
    "small": Case(
        width=128, layers=4, heads=4, mlp=512, patch=16, side=7, text=24, batch=64, target=1.0, answers=32,
        vocabulary=512,
    ),
}  # fmt: skip
