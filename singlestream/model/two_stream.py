"""The two-stream model (LXMERT, ViLBERT): text and regions in a stream each, joined by cross layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from singlestream.batch import IMAGE, TEXT, Array, Batch, BatchError, Encoded, Patches, Regions, Spec, Text, check_batch
from singlestream.model.attention.edges import edges_of
from singlestream.model.config import ModelConfig
from singlestream.model.cross import CROSS, Sees, Streams
from singlestream.model.encoder import Encoder, divide, rematerialised, stacked
from singlestream.model.fusion import Fusion
from singlestream.model.heads import HeadConfig, build_heads
from singlestream.model.ranges import check_ranges
from singlestream.model.side import Side, change_of
from singlestream.model.two_stream_config import TwoStreamConfig
from singlestream.model.two_stream_embed import TwoStreamEmbed
from singlestream.model.visibility import Visibility


class TwoStream(nnx.Module):
    """Embeddings, a stack of layers for each stream, cross layers between them, pooling, and the heads by name.

    Args:
        config: sizes and choices.
        spec: sizes of the vocabulary, made by the data.
        heads: what `model.heads[name]` computes.
        rngs: streams `params` only; noise comes by `key` at call.
    """

    def __init__(
        self, config: TwoStreamConfig, spec: Spec, *, heads: Mapping[str, HeadConfig] | None = None, rngs: nnx.Rngs
    ):
        self.config = config
        self.embed = TwoStreamEmbed(config, spec, rngs=rngs)
        self.text = Encoder(config.text_side, rngs=rngs)
        self.image = Encoder(config.image_side, rngs=rngs)
        self.cross = stacked(lambda rngs: CROSS[config.cross](config, rngs=rngs), config.num_cross, rngs=rngs)
        self.pooler = Fusion(config, rngs=rngs)
        table = self.embed.text.token
        self.heads = nnx.Dict(build_heads(heads or {}, lambda head: _side_of(head, config), table=table, rngs=rngs))

    def check(self, batch: Batch) -> None:
        """Holds a batch against the contract, and what it looks up against this model's tables (`check_ranges`).

        Raises:
            BatchError: an input of the wrong shape or dtype, or out of a table's range, by name; several texts that
                share one picture.
        """
        check_batch(batch)
        if isinstance(batch.image, Regions) and batch.image.words is not None:
            raise BatchError("image.words: no two-stream model reads words of regions, leave them out")
        if batch.audio is not None:
            raise BatchError("audio: no two-stream model reads it, leave it out")
        config, text = self.config, batch.text
        words, types, length = self.embed.text.token.num_embeddings, config.num_token_types, config.max_text_length
        tasks = f", with config.model.num_tasks {config.num_tasks} more" if config.num_tasks else ""
        check_ranges(
            [
                ("text.ids", text.ids, words + config.num_tasks, f"the size of the vocabulary is {words}{tasks}"),
                ("text.types", text.types, types, f"config.model.num_token_types is {types}"),
                ("text.positions", text.positions, length, f"config.model.max_text_length is {length}"),
            ]
        )
        if not isinstance(text.part, jax.core.Tracer) and text.part.any():
            raise BatchError(
                "text.part is not 0: in a two-stream model the picture reads its text, so texts cannot share one"
            )

    def __call__(
        self,
        batch: Batch,
        *,
        key: jax.Array | None = None,
        attention: bool = False,
        perturbation: Mapping[str, Array] | None = None,
        embedded: Streams | None = None,
    ) -> Encoded:
        """Encodes a batch.

        Args:
            batch: with `Regions`; see `singlestream.batch`.
            key: of dropout; None switches it off.
            attention: also return the weights of every layer by name: `text` [layers, B, H, T, T], `image`,
                `text_to_image` [cross layers, B, H, T, N] (queries of the text), `image_to_text`. Self-attention
                of a stream's own layers and of cross layers stands in the order in which it ran (`layer_order`).
            perturbation: added to the attention weights, by the same names and in the same shapes: zeros, to
                differentiate with respect to the weights.
            embedded: what the layers read in place of what `embed` makes of the batch.

        Returns:
            `hidden["text"]` and `hidden["image"]` hold the states after each layer of that stream, cross layers
            among them, in the order in which they ran.

        Raises:
            BatchError: what `check` finds.
        """
        self.check(batch)
        config = self.config
        embed_key, text_key, image_key, cross_key = (None,) * 4 if key is None else jax.random.split(key, 4)
        x = self.embed(batch, key=embed_key) if embedded is None else embedded
        sees = _sees(batch, config, perturbation or {})
        text = Side(config, "text", self.text, x.text, sees.text, text_key, attention)
        image = Side(config, "image", self.image, x.image, sees.image, image_key, attention)
        found = self._run(text, image, sees, cross_key, attention)
        states = Streams(text.x, image.x)
        pooled, extra = self.pooler(states, batch)
        return Encoded(
            text=states.text,
            image=states.image,
            pooled=pooled,
            extra=extra,
            hidden={"text": text.hidden, "image": image.hidden},
            attention={k: jnp.concatenate(v) for k, v in found.items() if v} if attention else None,
        )

    def _run(
        self, text: Side, image: Side, sees: Sees, key: jax.Array | None, attention: bool
    ) -> dict[str, list[Array]]:
        """Runs both sides and the cross layers; returns attention weights by name."""
        config = self.config
        graph, params = nnx.split(self.cross)
        keys = None if key is None else jax.random.split(key, config.num_cross)
        found: dict[str, list[Array]] = {"text": text.weights, "image": image.weights}

        def cross(x: Streams, inputs: Any, sees: Sees) -> Any:
            params, key = jax.tree.map(lambda p: p[0], inputs)
            return nnx.merge(graph, params)(x, sees, key=key, weights=attention)

        layers = divide((params, keys), [1] * config.num_cross)
        places = zip(config.cross_after_text, config.cross_after_image, strict=True)
        for i, (layer, (after_text, after_image)) in enumerate(zip(layers, places, strict=True)):
            text.advance(after_text)
            image.advance(after_image)
            if config.coattention:
                own = Sees(text.crossing(), image.crossing(), *(change_of(across, i) for across in sees[2:]))
                x, weights = rematerialised(cross, config.text_side)(Streams(text.x, image.x), layer, own)
                text.put(x.text)
                image.put(x.image)
                for name, value in weights.items():
                    found.setdefault(name, []).append(value[None])
        text.advance(config.num_layers)
        image.advance(config.image_layers)
        return found


def _sees(batch: Batch, config: TwoStreamConfig, perturbation: Mapping[str, Array]) -> Sees:
    edges, num_text = edges_of(batch, config.attention), batch.text.ids.shape[1]

    def of(tokens: Text | Patches | Regions, modality: int, **places: Array) -> Visibility:
        shape = tokens.segments.shape
        return Visibility(
            segments=tokens.segments,
            part=tokens.part,
            modality=jnp.full(shape, modality, jnp.int32),
            token=jnp.broadcast_to(jnp.arange(shape[1], dtype=jnp.int32) + num_text * (modality == IMAGE), shape),
            edges=edges,
            examples=batch.examples.shape[1],
            **places,
        )

    text, image = of(batch.text, TEXT, place=batch.text.positions), of(batch.image, IMAGE)
    each = Sees(text, image, text.towards(image), image.towards(text))
    return Sees(*(sees.perturbed(perturbation.get(name)) for name, sees in zip(Sees._fields, each, strict=True)))


def _side_of(head: HeadConfig, config: TwoStreamConfig) -> ModelConfig:
    """What a head needs to know of the states that it reads."""
    sides = {
        "text": config.text_side,
        "image": config.image_side,
        "pooled": config.pooled_side,
        "pairs": config.pooled_side,
    }
    if head.source not in sides or head.layer:
        raise ValueError(
            f"head: source={head.source!r}, layer={head.layer}: heads of a two-stream model read the final states, "
            f"choose one of {', '.join(sides)}"
        )
    if head.source in ("pooled", "pairs") and config.fusion == "none" and config.direction == "image_to_text":
        raise ValueError(
            "config.model.direction='image_to_text': the text's first state, which is the pooled vector, then knows "
            "nothing of the picture; set config.model.fusion, or let the text read"
        )
    return sides[head.source]
