"""Attention to few keys against attention to all: time and memory by the number of tokens.

    python benchmarks/attention.py [--lengths=256,512,1024,2048,4096] [--rounds=3]

One layer's attention (batch 1, 4 heads of 64, a text of 64 tokens, the rest of them patches), forward, and forward and
backward with respect to queries, keys and values:

- `soft`, the whole matrix at once,
- `soft`, a stretch of queries after the other (`turns.by_queries`), the same numbers,
- `topk`, the 256 best keys of each query, exactly,
- `routed`, 256 keys of each query in 4 blocks of 64, its own and 3 that are chosen.

Every figure is of a process of its own. Time is processor time of all its threads, which holds on a machine that others
use, too: the smallest of the rounds. Memory is what the first call adds to the process at its peak (the figure of the
system, seen every few milliseconds); beside it what XLA plans for between inputs and outputs, which leaves out what its
libraries take while they multiply.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from memory import measured

from singlestream.batch import IMAGE, TEXT
from singlestream.model.attention.config import AttentionConfig
from singlestream.model.attention.module import Attention
from singlestream.model.attention.plain import weigh
from singlestream.model.attention.turns import by_queries
from singlestream.model.visibility import Visibility

HEADS, SIZE, TEXT_LENGTH, KEYS, BLOCK = 4, 64, 64, 256, 64
MIB = 2**20
SOFT = AttentionConfig(implementation="plain")
WAYS = {
    "soft, at once": SOFT,
    "soft, in turn": SOFT,
    "topk": AttentionConfig(selection="topk", keep=float(KEYS)),
    "routed": AttentionConfig(selection="routed", keep=KEYS / BLOCK - 1, block=BLOCK),
}
REFERENCE = "soft, in turn"
Cells = Mapping[str, float]


def who(length: int) -> Visibility:
    ones = jnp.ones((1, length), jnp.int32)
    text = jnp.arange(length) < TEXT_LENGTH
    modality = jnp.where(text, TEXT, IMAGE)[None].astype(jnp.int32)
    return Visibility(segments=ones, part=0 * ones, modality=modality, num_text=TEXT_LENGTH)


def attention_of(way: str) -> Any:
    """(q, k, v) [B, L, H, C], visibility -> what is read."""
    module = Attention(WAYS[way], HEADS, SIZE, rate=0.0, dtype=jnp.dtype("float32"), rngs=nnx.Rngs(0))

    def in_turn(q: jax.Array, k: jax.Array, v: jax.Array, sees: Visibility) -> jax.Array:
        q, k, v = (x.swapaxes(1, 2) for x in (q, k, v))

        def read(q: jax.Array, sees: Visibility, key: None) -> tuple[jax.Array, None]:
            return weigh(module.scores(q, k, sees), v, sees.mask()[:, None])

        return by_queries(read, q, sees, key=None)[0].swapaxes(1, 2)

    return in_turn if way == REFERENCE else lambda q, k, v, sees: module(q, k, v, sees)[0]


def compiled_of(way: str, length: int, backward: bool) -> tuple[Any, list[Any]]:
    """The compiled program of a way, and what it is called with."""
    read = attention_of(way)
    known, tree = jax.tree.flatten(who(length))  # no constant: what is made of it is part of the work

    def attend(q: jax.Array, k: jax.Array, v: jax.Array, *known: jax.Array) -> jax.Array:
        return read(q, k, v, jax.tree.unflatten(tree, known))

    rng = np.random.default_rng(0)
    inputs = [jax.device_put(rng.normal(size=(1, length, HEADS, SIZE)).astype(np.float32)) for _ in range(3)]
    inputs += known
    gradients = jax.grad(lambda *x: jnp.sin(attend(*x)).sum(), argnums=(0, 1, 2))
    return jax.jit(gradients if backward else attend).lower(*inputs).compile(), inputs


def processor_time(compiled: Any, inputs: list[Any]) -> float:
    """Seconds of one call, of all threads."""
    start = time.process_time()
    jax.block_until_ready(compiled(*inputs))
    return time.process_time() - start


def measure(way: str, length: int, backward: bool, rounds: int) -> dict[str, float]:
    compiled, inputs = compiled_of(way, length, backward)
    planned = compiled.memory_analysis().temp_size_in_bytes
    _, memory = measured(lambda: jax.block_until_ready(compiled(*inputs)))
    seconds = [processor_time(compiled, inputs) for _ in range(rounds)]
    return {"seconds": min(seconds), "added": memory["own"] / MIB, "planned": planned / MIB}


def child(way: str, length: int, backward: bool, rounds: int) -> dict[str, float]:
    """`measure` in a process of its own."""
    asked = json.dumps([way, length, backward, rounds])
    done = subprocess.run([sys.executable, __file__, "--measure", asked], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{asked} ended:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout)


def crossing(lengths: list[int], found: Mapping[tuple[str, int], Cells], way: str, what: str) -> str:
    """Where a way is cheaper than the reference; the length, between two that were measured, by a power law."""
    ratios = [math.log(found[way, n][what] / max(found[REFERENCE, n][what], 1e-9)) for n in lengths]
    if ratios[-1] >= 0:
        return f"at no length up to {lengths[-1]} tokens"
    last = max((i for i, ratio in enumerate(ratios) if ratio >= 0), default=-1)
    if last < 0:
        return f"at every length from {lengths[0]} tokens on"
    share = ratios[last] / (ratios[last] - ratios[last + 1])
    return f"from {lengths[last] * (lengths[last + 1] / lengths[last]) ** share:.0f} tokens on"


def print_table(lengths: list[int], backward: bool, rounds: int) -> None:
    print(f"\n{'Forward and backward' if backward else 'Forward'}; ratios to `{REFERENCE}`\n")
    print("| tokens | way | processor time, ms | ratio | memory added, MiB | ratio | planned by XLA, MiB |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    found: dict[tuple[str, int], Cells] = {}
    for length in lengths:
        found |= {(way, length): child(way, length, backward, rounds) for way in WAYS}
        base = found[REFERENCE, length]
        for way in WAYS:
            own = found[way, length]
            times = f"{own['seconds'] * 1e3:.1f} | {own['seconds'] / base['seconds']:.2f}"
            memory = f"{own['added']:.1f} | {own['added'] / base['added']:.2f} | {own['planned']:.1f}"
            print(f"| {length} | {way} | {times} | {memory} |", flush=True)
    for way in ("topk", "routed"):
        points = [crossing(lengths, found, way, what) for what in ("seconds", "added")]
        print(f"\n`{way}` is faster {points[0]}, and takes less memory {points[1]}.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", default="256,512,1024,2048,4096")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--measure", default="", help="used by the script itself")
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(*json.loads(args.measure))))
        return
    for backward in (False, True):
        print_table([int(length) for length in args.lengths.split(",")], backward, args.rounds)


if __name__ == "__main__":
    main()
