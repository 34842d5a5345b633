"""Audio tokens to vectors of the stream."""

from __future__ import annotations

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float

from singlestream.batch import Array, Audio
from singlestream.model.block import compute_dtype, dense
from singlestream.model.config import ModelConfig
from singlestream.model.positions.image_video import frame_time


class AudioEmbed(nnx.Module):
    """A projection of each window of the log-mel spectrogram (Gong et al. 2021, AST, section 2.1) + its time.

    Time is counted in frames of the video, by `frame_time` of `positions/image_video.py`, so that what
    is seen and what is heard at one moment get one vector. The projection's bias tells the modality.
    """

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        self.config = config
        self.stem = dense(config, config.audio_dim, config.width, rngs=rngs)

    def __call__(self, audio: Audio) -> Float[Array, "B A D"]:
        dtype = compute_dtype(self.config)
        # The middle of a window; that of frame i is i.
        frames = (jnp.asarray(audio.time) + 0.5) / self.config.audio_per_frame - 0.5
        time = frame_time(frames, self.config.width).astype(dtype)
        return self.stem(jnp.asarray(audio.features).astype(dtype)) + time
