"""Tiny models and batches shared by the tests of the model and of the objectives."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from singlestream.batch import Batch, Encoded, Patches, Spec, Text, make_batch
from singlestream.model.config import ModelConfig
from singlestream.model.heads import HeadConfig
from singlestream.model.single_stream import SingleStream

SPEC = Spec(vocab_size=40, num_answers=7, region_classes=(3, 2), continuations=(10, 11))
CONFIG = ModelConfig(
    width=24,
    num_layers=2,
    num_heads=2,
    mlp_dim=32,
    max_text_length=16,
    image_grid=(3, 3),
    patch_size=4,
    image_stem="linear",
    embed_std=0.5,
    num_images=3,
)
HEADS = {
    "vqa": HeadConfig(kind="classifier", size=7),
    "mlm": HeadConfig(kind="vocabulary", size=40, source="text"),
    "regions": HeadConfig(size=7, source="image"),
    "word": HeadConfig(size=8, source="text", layer=1),
}
WRITER = {"caption": HeadConfig(kind="vocabulary", size=40, source="decoder")}  # of a model with a decoder


def drawn(make: Callable[[], nnx.Module], *, seed: int = 0):
    """A module's graph and parameters off their start, in numpy: a constructor compiles longer than a model does."""
    graph, state = nnx.split(nnx.eval_shape(make))
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        offset = 1.0 if path[-1].key == "scale" else 0.0
        return (offset + 0.3 * rng.normal(size=leaf.shape)).astype(leaf.dtype)

    return graph, jax.tree_util.tree_map_with_path(draw, nnx.to_pure_dict(state))


@functools.cache
def toy_model(config: ModelConfig = CONFIG) -> SingleStream:
    """The model of a configuration, with parameters that were drawn."""
    heads = HEADS | WRITER if config.decoder_layers else HEADS
    heads = {name: head for name, head in heads.items() if head.layer <= config.depth}
    graph, params = drawn(lambda: SingleStream(config, SPEC, heads=heads, rngs=nnx.Rngs(0)))
    return nnx.merge(graph, jax.tree.map(jnp.asarray, params))


@functools.cache
def _jitted(config: ModelConfig):
    graph, state = nnx.split(toy_model(config))
    params = nnx.to_pure_dict(state)

    def run(params, batch: Batch) -> tuple[Encoded, dict[str, jax.Array]]:
        model = nnx.merge(graph, params)
        encoded = model(batch)
        return encoded, {name: head(encoded) for name, head in model.heads.items()}

    return functools.partial(jax.jit(run), params)


def run(batch: Batch, config: ModelConfig = CONFIG) -> tuple[Encoded, dict[str, np.ndarray]]:
    """Encoded states and every head's logits of a batch, in numpy: jax would compile each slice that a test takes."""
    return jax.tree.map(np.asarray, _jitted(config)(batch))


def random_batch(
    seed: int, *, rows: int = 2, text: int = 5, grid: tuple[int, int] = (2, 3), window: int = CONFIG.window, **fields
) -> Batch:
    """Rows of one text and one picture, nothing padded; each patch shows `window` x `window` random pixels."""
    rng = np.random.default_rng(seed)
    yx = np.stack(np.meshgrid(np.arange(grid[0]), np.arange(grid[1]), indexing="ij"), -1).reshape(1, -1, 2)
    yx = np.repeat(yx, rows, 0).astype(np.int32)
    return make_batch(
        text=Text(ids=rng.integers(5, SPEC.vocab_size, (rows, text), np.int32)),
        image=Patches(
            pixels=rng.integers(0, 256, (rows, yx.shape[1], 3 * window**2)).astype(np.uint8),
            yx=yx,
            grid=np.broadcast_to(np.array(grid, np.int32), yx.shape),
        ),
        **fields,
    )


def pack(examples: list[tuple[Batch, int]], *, text_slot: int, num_patches: int, rows: int, slots: int) -> Batch:
    """Row 0 of each given batch laid into the given row, one segment each, side by side, zeros between."""
    counts = [0] * rows
    zeros = functools.partial(np.zeros, dtype=np.int32)
    text = {name: zeros((rows, slots * text_slot)) for name in ("ids", "positions", "types", "segments", "part")}
    size = examples[0][0].image.pixels.shape[-1]
    image = {name: zeros((rows, slots * num_patches)) for name in ("index", "segments", "part")}
    image |= {name: np.ones((rows, slots * num_patches, 2), np.int32) for name in ("yx", "grid")}
    image["pixels"] = np.full((rows, slots * num_patches, size), 99, np.uint8)
    for batch, row in examples:
        k = counts[row]
        counts[row] += 1
        for values, source, width in ((text, batch.text, text_slot), (image, batch.image, num_patches)):
            for name, target in values.items():
                value = np.asarray(getattr(source, name))[0]
                target[row, k * width : k * width + len(value)] = k + 1 if name == "segments" else value
    return room(make_batch(text=Text(**text, slots=slots), image=Patches(**image)), slots)


def padded_batch(batch: Batch) -> Batch:
    """The example alone in a row of one fixed size, so that one compiled function serves every size."""
    return pack([(batch, 0)], text_slot=6, num_patches=6, rows=1, slots=1)


def check_alone(config: ModelConfig, sizes: list[tuple[int, tuple[int, int]]], rows: list[int], run=run) -> None:
    """Examples are the same alone and packed with the others under any padding: to 1e-5, and the same choice.

    Args:
        sizes: words (6 at most) and grid (6 patches at most) of each of up to five examples.
        rows: of two, the row that each is packed into.
        run: gives states and logits of a batch, as the `run` of this file does.
    """
    alone = [random_batch(i, rows=1, text=t, grid=g, window=config.window) for i, (t, g) in enumerate(sizes)]
    together = pack(list(zip(alone, rows, strict=True)), text_slot=6, num_patches=6, rows=2, slots=5)
    encoded, logits = run(together, config)
    places = [sum(r == row for r in rows[:i]) for i, row in enumerate(rows)]
    close = functools.partial(np.testing.assert_allclose, atol=1e-5)
    for batch, row, k in zip(alone, rows, places, strict=True):
        own, own_logits = run(padded_batch(batch), config)
        t, n = batch.text.ids.shape[1], batch.image.pixels.shape[1]
        close(encoded.pooled[row, k], own.pooled[0, 0])
        close(encoded.text[row, 6 * k : 6 * k + t], own.text[0, :t])
        close(encoded.image[row, 6 * k : 6 * k + n], own.image[0, :n])
        for name in own_logits:
            mine = logits[name][row]
            mine = mine[k] if name == "vqa" else mine[6 * k : 6 * k + (n if name == "regions" else t)]
            theirs = own_logits[name][0][: len(mine)] if name != "vqa" else own_logits[name][0, 0]
            close(mine, theirs)
            top = np.sort(theirs, -1)
            clear = top[..., -1] - top[..., -2] > 1e-4
            assert (np.argmax(mine, -1) == np.argmax(theirs, -1))[clear].all()


def room(batch: Batch, examples: int) -> Batch:
    """The batch with room for so many examples in a row, however many there are: one shape, compiled once."""
    short = examples - batch.examples.shape[1]
    pad = ((0, 0), (0, short))
    fields = {name: np.pad(getattr(batch, name), pad) for name in ("example_mask", "picture")}
    return dataclasses.replace(batch, examples=np.pad(batch.examples, (*pad, (0, 0))), **fields)


def replace(config: ModelConfig, **changes) -> ModelConfig:
    return dataclasses.replace(config, **changes)
