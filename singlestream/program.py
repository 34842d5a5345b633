"""A model as one program over flat dicts of arrays, lowered once for several platforms and every size of a batch."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import export as jax_export

from singlestream.batch import Array, Batch, Patches, Regions, Text
from singlestream.model.heads import every_logits
from singlestream.train.paths import paths

PLATFORMS = ("cpu", "cuda", "tpu")
DIMENSIONS = {
    "b": "rows",
    "t": "text tokens of a row",
    "n": "image tokens of a row, padding where there is no picture",
    "k": "examples of a row (pairs of them, where a shape says 2*k)",
}


def lower(module: Any, platforms: Sequence[str] = PLATFORMS) -> tuple[jax_export.Exported, dict[str, Array]]:
    """The program `(parameters, inputs) -> outputs`, and its parameters by path.

    Args:
        module: a model; its heads all come along.
        platforms: of `PLATFORMS`; this machine need not have them.

    Returns:
        `exported.call` takes the parameters and `input_shapes`, and gives `pooled` [B, K, D] and `logits/HEAD`, all in
        float32 or wider. No parameter is a constant in it.
    """
    if getattr(module.config, "audio_dim", 0):
        raise ValueError(
            "config.model.audio_dim: a model that reads audio is not exported, its program has no such input"
        )
    if module.config.attention.reads_edges:
        raise ValueError(
            "config.model.attention.graph='edges': a model that reads edges is not exported, its program has no such "
            "input"
        )
    graphdef, state = nnx.split(module)
    tree = nnx.to_pure_dict(state)
    names, (leaves, treedef) = paths(tree), jax.tree.flatten(tree)
    kind = Regions if _reads_regions(module) else Patches

    def program(params: dict[str, Array], inputs: dict[str, Array]) -> dict[str, Array]:
        model = nnx.merge(graphdef, jax.tree.unflatten(treedef, [params[name] for name in names]))
        encoded, logits = every_logits(model, _batch(inputs, kind))
        wide = jnp.promote_types(encoded.pooled.dtype, jnp.float32)
        return {"pooled": encoded.pooled.astype(wide), **{f"logits/{name}": value for name, value in logits.items()}}

    params = dict(zip(names, leaves, strict=True))
    shapes = {name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for name, leaf in params.items()}
    return jax_export.export(jax.jit(program), platforms=tuple(platforms))(shapes, input_shapes(module)), params


def input_shapes(module: Any) -> dict[str, jax.ShapeDtypeStruct]:
    """What the program reads: `Text` and `Patches` or `Regions` of `singlestream.batch` by field, and `examples`.

    Every size of a batch is symbolic (`DIMENSIONS`). `Text.slots` is left out: it saves work in rows that share a
    picture, and changes no result.
    """
    b, t, n, k = jax_export.symbolic_shape(", ".join(DIMENSIONS))
    if any(head.head.source == "pairs" for head in module.heads.values()):
        k = 2 * k

    def array(*shape: Any, dtype: Any = jnp.int32) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, dtype)

    shapes = {f"text/{name}": array(b, t) for name in ("ids", "positions", "types", "segments", "part")}
    shapes |= {f"image/{name}": array(b, n) for name in ("index", "segments", "part")}
    if _reads_regions(module):
        shapes["image/features"] = array(b, n, module.config.region_dim, dtype=jnp.float32)
        shapes["image/boxes"] = array(b, n, 4, dtype=jnp.float32)
    else:
        shapes["image/pixels"] = array(b, n, 3 * module.config.window**2, dtype=jnp.uint8)
        shapes |= {f"image/{name}": array(b, n, 2) for name in ("yx", "grid")}
    return {**shapes, "examples": array(b, k, 2)}


def inputs_of(batch: Batch) -> dict[str, np.ndarray]:
    """The program's inputs from a batch."""
    found = {"examples": np.asarray(batch.examples)}
    for group, tokens in batch.inputs.items():
        for field in dataclasses.fields(tokens):
            value = getattr(tokens, field.name)
            if value is not None and not field.metadata.get("static"):
                found[f"{group}/{field.name}"] = np.asarray(value)
    return found


def _batch(inputs: Mapping[str, Array], kind: type[Patches] | type[Regions]) -> Batch:
    groups: dict[str, dict[str, Array]] = {"text": {}, "image": {}, "": {}}
    for name, value in inputs.items():
        group, _, field = name.rpartition("/")
        groups[group][field] = value
    examples = groups[""]["examples"]
    return Batch(
        inputs={"text": Text(**groups["text"]), "image": kind(**groups["image"])},
        examples=examples,
        # Only objectives read these two.
        example_mask=examples[..., 0] > 0,
        picture=examples[..., 0],
    )


def _reads_regions(module: Any) -> bool:
    # A two-stream model reads nothing else, and has no such setting.
    return getattr(module.config, "image_stem", "regions") == "regions"
