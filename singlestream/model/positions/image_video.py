"""Frames of a video: a learned table over each frame's grid, and sines and cosines of the frame's number."""

from __future__ import annotations

from jaxtyping import Float

from singlestream.batch import Array, Patches
from singlestream.model.positions import image_learned
from singlestream.model.positions.text_sinusoidal import sinusoidal


class Position(image_learned.Position):
    """Space and time, each by itself and added, as in ViViT (Arnab et al. 2021, section 3.3, factorised).

    Time is `Patches.index`; audio tokens count it in the same frames (`model.audio_embed`).
    """

    def __call__(self, image: Patches) -> Float[Array, "B N D"]:
        space = super().__call__(image)
        return space + sinusoidal(image.index, space.shape[-1]).astype(space.dtype)
