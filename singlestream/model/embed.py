"""From ids, pixels and features to the one stream of tokens."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Float, Int32

from singlestream.batch import AUDIO, EXTRA, IMAGE, TEXT, Array, Batch, BatchError, Patches, Regions, Spec, Stream, Text
from singlestream.model.audio_embed import AudioEmbed
from singlestream.model.block import compute_dtype, dense, layer_norm, param_dtype
from singlestream.model.config import ModelConfig
from singlestream.model.init import initializer
from singlestream.model.noise import dropout
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


def embed_norm(config: ModelConfig, wanted: bool, *, rngs: nnx.Rngs) -> nnx.LayerNorm | None:
    """A LayerNorm of the embeddings, where wanted."""
    return layer_norm(config, rngs=rngs, eps=config.embed_norm_eps or config.norm_eps) if wanted else None


class TextEmbed(nnx.Module):
    """Word piece + position + token type, and where the model has it a LayerNorm."""

    def __init__(self, config: ModelConfig, spec: Spec, *, rngs: nnx.Rngs):
        self.token = embedding(config, spec.vocab_size, "token", rngs=rngs)
        self.type = embedding(config, config.num_token_types, "type", rngs=rngs)
        self.position = build_position("text", config, rngs=rngs)
        self.norm = embed_norm(config, config.text_norm, rngs=rngs)

    def __call__(self, text: Text) -> Float[Array, "B T D"]:
        x = self.look_up(text)
        return x if self.norm is None else self.norm(x)

    def look_up(self, text: Text) -> Float[Array, "B T D"]:
        """The sum, before the LayerNorm."""
        x = self.token(text.ids) + self.type(text.types)
        return x if self.position is None else x + self.position(text).astype(x.dtype)

    def of_words(self, words: Int32[Array, "B N A"]) -> Float[Array, "B N D"]:
        """The mean of the position vectors of each region's words (`Regions.words`); 0 where it has none.

        VisualBERT's position of a region whose words are known (Li et al. 2019, section 3.2), beside the regions' own.
        """
        places = jnp.maximum(words, 0).reshape(words.shape[0], -1)
        vectors = self.position(Text(ids=places, positions=places)).reshape(*words.shape, -1)
        counted = (words >= 0).astype(vectors.dtype)
        total = jnp.einsum("bna,bnad->bnd", counted, vectors)
        return total / jnp.maximum(counted.sum(-1, keepdims=True), 1)


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
    """Patches or regions to vectors: content + position, with the LayerNorms that `config.image_norm` asks for."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        self.config = config
        self.stem = _stem(config, rngs=rngs)
        self.position = build_position("image", config, rngs=rngs)
        each = config.image_norm == "each"
        self.content_norm = embed_norm(config, each, rngs=rngs)
        self.position_norm = embed_norm(config, each, rngs=rngs)
        self.norm = embed_norm(config, config.image_norm != "none", rngs=rngs)

    def __call__(self, image: Patches | Regions, token_type: Float[Array, " D"] | None = None) -> Float[Array, "B N D"]:
        """The vectors; `token_type` is added before the last LayerNorm."""
        dtype = compute_dtype(self.config)
        content = self._content(image).astype(dtype)
        x = self.stem(content) if content.shape[1] else jnp.zeros((*content.shape[:2], self.config.width), dtype)
        x = x if self.content_norm is None else self.content_norm(x)
        if self.position is not None and isinstance(image, self.position.reads):
            position = self.position(image).astype(dtype)
            x = x + (position if self.position_norm is None else self.position_norm(position))
        x = x if token_type is None else x + token_type
        return x if self.norm is None else self.norm(x)

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
        return content if wants is Regions else content.astype(param_dtype(self.config)) / 127.5 - 1.0


class Modality(nnx.Module):
    """What `config.modality` adds to the tokens of each modality, and of each picture of an example."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        self.kind, self.first = config.modality, config.first_image_type
        sizes = {"both": 2, "pictures": 1 + config.num_images, "image": config.num_token_types}
        self.table = embedding(config, sizes[self.kind], "type", rngs=rngs) if self.kind in sizes else None
        several = config.num_images > 1 and self.kind in ("both", "token_types", "none")
        several &= config.image_positions != "video"  # it tells frames apart
        self.picture = embedding(config, config.num_images, "type", rngs=rngs) if several else None

    def text(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        return x + self.table(jnp.zeros((), jnp.int32)) if self.kind in ("both", "pictures") else x

    def image(self, x: Float[Array, "B N D"], index: Int32[Array, "B N"]) -> Float[Array, "B N D"]:
        if self.kind == "both":
            x = x + self.table(jnp.ones((), jnp.int32))
        elif self.table is not None:
            x = x + self.table(index + (1 if self.kind == "pictures" else self.first))
        return x if self.picture is None else x + self.picture(index)


class ClassToken(nnx.Module):
    """A learned token beside the patches of each example, with a position of its own (ViT's [CLS])."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        shape, dtype = (config.width,), param_dtype(config)
        self.token = nnx.Param(initializer("token", config)(rngs.params(), shape, dtype))
        self.position = nnx.Param(initializer("position", config)(rngs.params(), shape, dtype))

    def __call__(self, examples: Int32[Array, "B K 2"], dtype: jnp.dtype) -> Float[Array, "B K D"]:
        token = (self.token[...] + self.position[...]).astype(dtype)
        return jnp.broadcast_to(token, (*examples.shape[:2], token.shape[-1]))


class Bottlenecks(nnx.Module):
    """E learned tokens for each example, of neither modality (MBT, Nagrani et al. 2021, section 3.2)."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        shape = (config.bottlenecks, config.width)
        self.token = nnx.Param(initializer("token", config)(rngs.params(), shape, param_dtype(config)))

    def __call__(self, examples: Int32[Array, "B K 2"], dtype: jnp.dtype) -> Float[Array, "B KE D"]:
        token, (rows, count) = self.token[...].astype(dtype), examples.shape[:2]
        every = jnp.broadcast_to(token, (rows, count, *token.shape))
        return every.reshape(rows, count * token.shape[0], token.shape[1])


class StreamEmbed(nnx.Module):
    """One `Stream`: [text tokens | image tokens | audio tokens | a class token an example | its bottlenecks].

    Audio is there where the batch has it, class tokens with `config.image_cls`, bottlenecks where the direction is
    `bottleneck`.
    """

    def __init__(self, config: ModelConfig, spec: Spec, *, rngs: nnx.Rngs):
        self.dropout_rate, self.token_types = config.dropout, config.modality == "token_types"
        self.text = TextEmbed(config, spec, rngs=rngs)
        self.image = ImageEmbed(config, rngs=rngs)
        self.cls = ClassToken(config, rngs=rngs) if config.image_cls else None
        self.direction = config.direction
        self.bottlenecks = Bottlenecks(config, rngs=rngs) if config.bottlenecks else None
        self.audio = AudioEmbed(config, rngs=rngs) if config.audio_dim else None
        self.modality = Modality(config, rngs=rngs)
        self.norm = embed_norm(config, config.embed_norm, rngs=rngs)

    def of_text(self, text: Text) -> Float[Array, "B T D"]:
        """Text tokens as they stand in the stream, without noise."""
        x = self.modality.text(self.text(text))
        return x if self.norm is None else self.norm(x)

    def __call__(self, batch: Batch, *, key: jax.Array | None = None, direction: str | None = None) -> Stream:
        """The stream; `direction` as `SingleStream` takes it."""
        text, image = batch.text, batch.image
        token_type = self.text.type(jnp.ones((), jnp.int32)) if self.token_types else None
        parts = [self.modality.text(self.text(text)), self.modality.image(self.image(image, token_type), image.index)]
        if isinstance(image, Regions) and image.words is not None:
            parts[1] = parts[1] + self.text.of_words(image.words).astype(parts[1].dtype)
        segments, part, modality = [text.segments, image.segments], [text.part, image.part], [TEXT, IMAGE]
        if batch.audio is not None:
            parts.append(self.audio(batch.audio))
            segments.append(batch.audio.segments)
            part.append(batch.audio.part)
            modality.append(AUDIO)
        if self.cls is not None:
            x = self.cls(batch.examples, parts[0].dtype)
            parts.append(self.modality.image(x, _picture_of(batch.examples, image)))
            segments.append(batch.examples[..., 0])
            part.append(batch.examples[..., 1])
            modality.append(IMAGE)
        if self.bottlenecks is not None and (direction or self.direction) == "bottleneck":
            parts.append(self.bottlenecks(batch.examples, parts[0].dtype))
            count = self.bottlenecks.token.shape[0]
            segments.append(jnp.repeat(batch.examples[..., 0], count, axis=1))
            part.append(jnp.repeat(batch.examples[..., 1], count, axis=1))
            modality.append(EXTRA)
        x = jnp.concatenate(parts, axis=1)
        x = x if self.norm is None else self.norm(x)
        of = [jnp.full(s.shape, kind, jnp.int32) for kind, s in zip(modality, segments, strict=True)]
        return Stream(
            x=dropout(x, self.dropout_rate, key),
            segments=jnp.concatenate(segments, axis=1),
            part=jnp.concatenate(part, axis=1),
            modality=jnp.concatenate(of, axis=1),
        )


def _picture_of(examples: Int32[Array, "B K 2"], image: Patches | Regions) -> Int32[Array, "B K"]:
    """The number of each example's (last) picture."""
    own = examples[:, :, None, 0] == image.segments[:, None]
    return jnp.where(own, image.index[:, None], 0).max(axis=-1, initial=0)
