"""From ids, pixels and features to the one stream of tokens."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float

from singlestream.batch import IMAGE, TEXT, Array, Batch, BatchError, Patches, Regions, Spec, Stream, Text
from singlestream.model.block import compute_dtype, dense, dropout, layer_norm, param_dtype
from singlestream.model.config import ModelConfig
from singlestream.model.init import initializer
from singlestream.model.positions import build_position


def embedding(config: ModelConfig, num: int, kind: str, *, rngs: nnx.Rngs) -> nnx.Embed:
    """A table [num, D] with the start that `model/init.py` gives to its `kind`."""
    return nnx.Embed(
        num,
        config.width,
        embedding_init=initializer(kind, config),
        dtype=compute_dtype(config),
        param_dtype=param_dtype(config),
        rngs=rngs,
    )


class TextEmbed(nnx.Module):
    """Word piece + position + token type."""

    def __init__(self, config: ModelConfig, spec: Spec, *, rngs: nnx.Rngs):
        self.token = embedding(config, spec.vocab_size, "token", rngs=rngs)
        self.type = embedding(config, config.num_token_types, "type", rngs=rngs)
        self.position = build_position("text", config, rngs=rngs)

    def __call__(self, text: Text) -> Float[Array, "B T D"]:
        x = self.token(text.ids) + self.type(text.types)
        return x if self.position is None else x + self.position(text).astype(x.dtype)


class LinearStem(nnx.Module):
    """One projection of a patch's pixels (ViT)."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        self.project = dense(config, 3 * config.window**2, config.width, rngs=rngs)

    def __call__(self, pixels: Float[Array, "B N C"]) -> Float[Array, "B N D"]:
        return self.project(pixels)


def conv_sides(window: int) -> tuple[int, int]:
    """Sides of what the two convolutions of `ConvStem` make of a window."""
    first = (window - 4) // 2 + 1
    return first, (first - 3) // 2 + 1


class ConvStem(nnx.Module):
    """Two convolutions of 4 x 4 and 3 x 3 with stride 2 over each patch and its margin, then a projection.

    After "Early convolutions help transformers see better" (Xiao et al. 2021), but computed patch by patch, so that a
    patch's token depends on nothing but its own window, whatever else is in the batch.
    """

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        self.window, width = config.window, config.stem_width
        _, side = conv_sides(config.window)
        if side < 1:
            raise ValueError(
                f"config.model.patch_size={config.patch_size} with config.model.patch_margin={config.patch_margin} is "
                "too small for the convolutional stem: a window of 8 pixels or more is needed"
            )
        self.first = dense(config, 4 * 4 * 3, width, rngs=rngs)
        self.second = dense(config, 3 * 3 * width, 2 * width, rngs=rngs)
        self.project = dense(config, side * side * 2 * width, config.width, rngs=rngs)

    def __call__(self, pixels: Float[Array, "B N C"]) -> Float[Array, "B N D"]:
        rows, patches, _ = pixels.shape
        x = pixels.reshape(rows * patches, self.window, self.window, -1)
        x = jax.nn.relu(self.first(_windows(x, 4, stride=2)))
        x = jax.nn.relu(self.second(_windows(x, 3, stride=2)))
        return self.project(x.reshape(rows, patches, -1))


def _windows(x: Float[Array, "M S S C"], kernel: int, *, stride: int) -> Float[Array, "M O O KKC"]:
    """All kernel x kernel windows, unfolded, so that a convolution is one matrix product (faster than XLA's on CPU)."""
    out = (x.shape[1] - kernel) // stride + 1
    last = stride * (out - 1) + 1
    parts = [x[:, i : i + last : stride, j : j + last : stride] for i in range(kernel) for j in range(kernel)]
    return jnp.concatenate(parts, axis=-1)


def _stem(config: ModelConfig, *, rngs: nnx.Rngs) -> nnx.Module:
    if config.image_stem == "regions":
        return dense(config, config.region_dim, config.width, rngs=rngs)
    return (ConvStem if config.image_stem == "conv" else LinearStem)(config, rngs=rngs)


class ImageEmbed(nnx.Module):
    """Patches or regions to vectors: content + position + number of the picture within its example."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        self.config = config
        self.stem = _stem(config, rngs=rngs)
        self.position = build_position("image", config, rngs=rngs)
        self.picture = embedding(config, config.num_images, "type", rngs=rngs) if config.num_images > 1 else None

    def __call__(self, image: Patches | Regions) -> Float[Array, "B N D"]:
        dtype = compute_dtype(self.config)
        content = self._content(image).astype(dtype)
        x = self.stem(content) if content.shape[1] else jnp.zeros((*content.shape[:2], self.config.width), dtype)
        if self.position is not None and isinstance(image, self.position.reads):
            x = x + self.position(image).astype(dtype)
        return x if self.picture is None else x + self.picture(image.index)

    def _content(self, image: Patches | Regions) -> Array:
        wants = Regions if self.config.image_stem == "regions" else Patches
        size = self.config.region_dim if wants is Regions else 3 * self.config.window**2
        content = image.features if isinstance(image, Regions) else image.pixels
        if content.shape[1] == 0:
            return jnp.zeros((*content.shape[:2], size))
        if not isinstance(image, wants) or content.shape[-1] != size:
            raise BatchError(
                f"image: this model reads {wants.__name__} with {size} numbers each (config.model.image_stem="
                f"{self.config.image_stem!r}), got {type(image).__name__} with {content.shape[-1]}"
            )
        return content if wants is Regions else content.astype(jnp.float32) / 127.5 - 1.0


class StreamEmbed(nnx.Module):
    """Text and image as one `Stream`: [text tokens | image tokens], each with the embedding of its modality."""

    def __init__(self, config: ModelConfig, spec: Spec, *, rngs: nnx.Rngs):
        self.dropout_rate = config.dropout
        self.text = TextEmbed(config, spec, rngs=rngs)
        self.image = ImageEmbed(config, rngs=rngs)
        self.modality = embedding(config, 2, "type", rngs=rngs)
        self.norm = layer_norm(config, rngs=rngs) if config.embed_norm else None

    def __call__(self, batch: Batch, *, key: jax.Array | None = None) -> Stream:
        text, image = batch.text, batch.image
        modality = jnp.concatenate(
            [jnp.full(text.ids.shape, TEXT, jnp.int32), jnp.full(image.segments.shape, IMAGE, jnp.int32)], axis=1
        )
        x = jnp.concatenate([self.text(text), self.image(image)], axis=1) + self.modality(modality)
        x = x if self.norm is None else self.norm(x)
        return Stream(
            x=dropout(x, self.dropout_rate, key),
            segments=jnp.concatenate([text.segments, image.segments], axis=1),
            part=jnp.concatenate([text.part, image.part], axis=1),
            modality=modality,
        )
