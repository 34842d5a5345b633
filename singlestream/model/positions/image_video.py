"""Frames of a video: a learned table over each frame's grid, and sines and cosines of the frame's number."""

from __future__ import annotations

from jaxtyping import Float, Int32

from singlestream.batch import Array, Patches
from singlestream.model.positions import image_learned
from singlestream.model.positions.text_sinusoidal import sinusoidal

# Not the 10,000 of texts: of a clip's few frames most of those waves would tell next to nothing apart, and what changes
# from frame to frame would be lost beside what a patch shows.
BASE = 100.0


def frame_time(frames: Float[Array, "*S"] | Int32[Array, "*S"], width: int) -> Float[Array, "*S D"]:
    """What tells a moment of a clip, counted in frames."""
    return sinusoidal(frames, width, BASE)


class Position(image_learned.Position):
    """Space and time, each by itself and added, as in ViViT (Arnab et al. 2021, section 3.3, factorised).

    Time is `Patches.index`; audio tokens count it in the same frames (`model.audio_embed`).
    """

    def __call__(self, image: Patches) -> Float[Array, "B N D"]:
        space = super().__call__(image)
        return space + frame_time(image.index, space.shape[-1]).astype(space.dtype)
