"""Captions with and without a cache: the same tokens, and the time that they take.

    python benchmarks/decoding.py [--length=40] [--rows=8] [--rounds=5] [--model=stream|decoder]

One model of random weights (width 256, 6 layers, 144 patches) writes texts of `length` tokens greedily, by a cache,
which reads each token once, and by reading picture and text anew for every token. `stream`: the single stream by
`model.caching`; `decoder`: 6 more layers that read the picture across, by `model.cached_decoder`. Both ways are one
compiled program; they take turns. A search never ends early here, since no token is the end.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from alternate import spread
from flax import nnx

from singlestream.batch import Batch, Patches, Spec, Text, make_batch
from singlestream.model.cached_decoder import CachedDecoder
from singlestream.model.caching import CachedText
from singlestream.model.config import ModelConfig
from singlestream.model.decoding import Decoded, greedy
from singlestream.model.heads import HeadConfig
from singlestream.model.single_stream import SingleStream

TARGET = 8.0
SIDE, PATCH, VOCAB_SIZE, START = 12, 8, 1000, 2
HEAD = "words"
NEVER = VOCAB_SIZE  # an id that no token has


# Direction of the call that reads everything, and what the model has for it.
KINDS: dict[str, tuple[str, type[CachedText] | type[CachedDecoder], dict[str, Any]]] = {
    "stream": ("causal", CachedText, {"direction": "causal"}),
    "decoder": ("decoder", CachedDecoder, {"direction": "prefix", "decoder_layers": 6}),
}


def make_model(kind: str, length: int) -> SingleStream:
    config = ModelConfig.named(
        "small", max_text_length=length + 1, image_grid=(SIDE, SIDE), patch_size=PATCH, **KINDS[kind][2]
    )
    source = "decoder" if kind == "decoder" else "text"
    heads = {HEAD: HeadConfig(kind="vocabulary", size=VOCAB_SIZE, source=source)}
    return SingleStream(config, Spec(vocab_size=VOCAB_SIZE), heads=heads, rngs=nnx.Rngs(0))


def pictures(rows: int, length: int) -> Batch:
    yx = np.stack(np.meshgrid(np.arange(SIDE), np.arange(SIDE), indexing="ij"), -1).reshape(1, -1, 2).repeat(rows, 0)
    pixels = np.random.default_rng(0).integers(0, 256, (rows, SIDE**2, 3 * PATCH**2)).astype(np.uint8)
    image = Patches(pixels=pixels, yx=yx.astype(np.int32), grid=np.full(yx.shape, SIDE, np.int32))
    return make_batch(text=Text(ids=np.zeros((rows, length + 1), np.int32)), image=image)


def cached(model: SingleStream, batch: Batch, kind: str, length: int) -> Decoded:
    text = KINDS[kind][1](model, HEAD)
    start = jnp.full(batch.text.ids.shape[0], START, jnp.int32)
    return greedy(text.next_token, text.start(batch), start, length=length, end_id=NEVER)


def anew(model: SingleStream, batch: Batch, kind: str, length: int) -> Decoded:
    """The whole stream for every token; the cache holds the text so far."""
    columns = jnp.arange(length + 1)

    def next_token(ids: jax.Array, last: jax.Array, place: jax.Array) -> tuple[jax.Array, jax.Array]:
        # Else the compiler reads the picture once, before the loop, where no text asks it anything.
        image, ids = jax.lax.optimization_barrier((batch.image, ids.at[:, place].set(last)))
        there = jnp.broadcast_to((columns <= place).astype(jnp.int32), ids.shape)
        text = batch.text
        text = Text(ids=ids, positions=text.positions, types=text.types, segments=there, part=text.part)
        logits = model.heads[HEAD](model(batch.replace(text=text, image=image), direction=KINDS[kind][0]))
        return jax.lax.dynamic_index_in_dim(logits, place, axis=1, keepdims=False), ids

    start = jnp.full(batch.text.ids.shape[0], START, jnp.int32)
    return greedy(next_token, jnp.asarray(batch.text.ids), start, length=length, end_id=NEVER)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--length", type=int, default=40, help="tokens of a text")
    parser.add_argument("--rows", type=int, default=8, help="texts at once")
    parser.add_argument("--rounds", type=int, default=5, help="in which both ways take turns")
    parser.add_argument("--model", choices=KINDS, default="stream", help="what writes")
    args = parser.parse_args()
    graph, params = nnx.split(make_model(args.model, args.length))
    batch = jax.device_put(pictures(args.rows, args.length))
    ways: dict[str, Any] = {
        way.__name__: jax.jit(
            lambda params, batch, way=way: way(nnx.merge(graph, params), batch, args.model, args.length)
        )
        for way in (cached, anew)
    }
    found = {name: jax.block_until_ready(way(params, batch)) for name, way in ways.items()}
    same = bool((found["cached"].tokens == found["anew"].tokens).all())
    apart = float(jnp.abs(found["cached"].scores - found["anew"].scores).max())
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(args.rounds):
        for name, way in ways.items():
            started = time.perf_counter()
            jax.block_until_ready(way(params, batch))
            times[name].append((time.perf_counter() - started) * 1e3)
    ratio = np.median(times["anew"]) / np.median(times["cached"])
    head = (
        "model",
        "rows",
        "tokens",
        "with a cache, ms",
        "anew for every token, ms",
        "ratio",
        "wanted",
        "same",
        "apart",
    )
    print(f"| {' | '.join(head)} |")
    print(f"|{' --- |' * len(head)}")
    what = f"{args.model} | {args.rows} | {args.length} | {spread(times['cached'])} | {spread(times['anew'])}"
    print(f"| {what} | {ratio:.1f}x | {TARGET:.0f}x | {'yes' if same else 'no'} | {apart:.1e} |")


if __name__ == "__main__":
    main()
