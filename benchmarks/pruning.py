"""Fewer image tokens in the later layers: time of a forward pass, accuracy and pointing against the share kept.

    python benchmarks/pruning.py [--run=RUN] [--data_dir=data] [--split=test] [--rows=512] [--rounds=5] [--layers=1]

Dropped (the attention that text gives ranks them) or merged, in a trained run on questions (`--run`) as it is, without
training for it; and the time of an untrained model of BERT's and ViT's base size, 16 words and 14 x 14 patches. Time is
processor time of all threads, the smallest of the rounds, in turns with the whole model: the ratio is what counts. Rows
are as the run has them (its texts share a picture) and with one text each. Pointing is of the layer and head that the
whole model points best with, on the same rows.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from flax import nnx

import singlestream as ss
from singlestream.batch import Batch
from singlestream.data.pipeline import eval_batches
from singlestream.data.sources import open_split
from singlestream.explain.pointing import PointingCounts, add_counts, count_pointing
from singlestream.model.answering import answering
from singlestream.model.pruning.config import PruningConfig
from singlestream.model.pruning.run import set_pruning
from singlestream.predict import Model

SHARES, METHODS = (1.0, 0.75, 0.5, 0.35, 0.25), ("drop", "merge")
COLUMNS = ("model", "layers", "method", "kept", "time", "accuracy", "pointing")
WORDS, GRID, BATCH = 16, 14, 32  # of the untrained model; rows of a batch of the run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", default="", help="a run on vqa; without one, only the untrained model is timed")
    parser.add_argument("--data_dir", default="", help="config.data.dir, if not where the run's config says")
    parser.add_argument("--split", default="test")
    parser.add_argument("--rows", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--layers", type=int, nargs="+", default=[1], help="after which tokens go; more of them for merging"
    )
    args = parser.parse_args()
    print(f"| {' | '.join(COLUMNS)} |\n|{' --- |' * len(COLUMNS)}")
    if args.run:
        model = ss.load(args.run)
        if args.data_dir:
            model.move_data(args.data_dir)
        for texts in dict.fromkeys((model.config.data.texts_per_row, 1)):
            trained(model, texts, args)
    else:
        untrained(args)


def settings(layers: list[int]) -> Iterator[tuple[str, PruningConfig]]:
    """What is measured beside the whole model; merging at most halves at a layer, so it has one more where it must."""
    for method in METHODS:
        for keep in SHARES[1:]:
            own = layers if method == "drop" or keep ** (1 / len(layers)) >= 0.5 else [*layers, layers[-1] + 1]
            yield method, PruningConfig(keep=keep, layers=tuple(own), method=method)


def row(name: str, pruning: PruningConfig, ratio: float, *others: str) -> None:
    method = pruning.method if pruning.active else "whole"
    layers = ", ".join(map(str, pruning.layers)) if pruning.active else ""
    cells = [name, layers, method, f"{pruning.keep:g}", f"{ratio:.2f}", *(others or ("", ""))]
    print(f"| {' | '.join(cells)} |", flush=True)


def ratio_of(whole: Callable[[], Any], other: Callable[[], Any], rounds: int) -> float:
    """Processor time of the one as a share of the other's, the smallest of the rounds of each."""
    best = [float("inf")] * 2
    for _ in range(rounds + 1):  # the first compiles
        for i, call in enumerate((whole, other)):
            before = time.process_time()
            jax.block_until_ready(call())
            best[i] = min(best[i], time.process_time() - before)
    return best[1] / best[0]


# ---- a run -----------------------------------------------------------------------------------------------------------


def trained(model: Model, texts: int, args: argparse.Namespace) -> None:
    data = dataclasses.replace(model.config.data, texts_per_row=texts)
    processor = dataclasses.replace(model.processor, data=data)
    source = open_split(model.config.data, args.split)
    items = eval_batches(source, processor, batch_size=BATCH, limit=-(-args.rows // BATCH))
    batches = jax.device_put([batch for batch, _ in items])
    name, whole = f"run, {texts} text{'s' * (texts > 1)} a row", encoder_of(model)
    accuracy, counts = measure(model, batches)
    chosen = np.unravel_index(np.argmax(counts.hits), counts.hits.shape)
    row(name, PruningConfig(), 1, f"{accuracy:.4f}", f"{counts.hits[chosen] / counts.words:.4f}")
    for _, pruning in settings(args.layers):
        pruned = model.pruned(**dataclasses.asdict(pruning))
        accuracy, counts = measure(pruned, batches)
        own = encoder_of(pruned)
        ratio = ratio_of(functools.partial(whole, batches[0]), functools.partial(own, batches[0]), args.rounds)
        row(name, pruning, ratio, f"{accuracy:.4f}", f"{counts.hits[chosen] / counts.words:.4f}")


def encoder_of(model: Model) -> Callable[[Batch], jax.Array]:
    encode = jax.jit(lambda params, batch: nnx.merge(model.graphdef, params)(batch).pooled)
    return functools.partial(encode, model.params)


def measure(model: Model, batches: list[Batch]) -> tuple[float, PointingCounts]:
    """Share of right answers, and the hits of every head, with one compiled program."""
    continuations = model.spec.continuations

    @jax.jit
    def count(params: Any, batch: Batch) -> tuple[jax.Array, jax.Array, PointingCounts]:
        module = nnx.merge(model.graphdef, params)
        encoded = module(batch, attention=True)
        answer = batch.targets["answer"]
        asked = batch.example_mask & (answer >= 0)
        right = asked & (module.heads[answering(module.heads)](encoded).argmax(-1) == answer)
        return right.sum(), asked.sum(), count_pointing(encoded.attention, batch=batch, continuations=continuations)

    found = [jax.device_get(count(model.params, batch)) for batch in batches]
    right, asked, counts = zip(*found, strict=True)
    return sum(right) / sum(asked), functools.reduce(add_counts, counts)


# ---- an untrained model ----------------------------------------------------------------------------------------------


def untrained(args: argparse.Namespace) -> None:
    grid, rng = (GRID, GRID), np.random.default_rng(0)
    config = ss.ModelConfig.named("base", image_grid=grid, patch_size=16)
    module = ss.SingleStream(config, ss.Spec(vocab_size=512), rngs=nnx.Rngs(0))
    yx = np.stack(np.meshgrid(*map(np.arange, grid), indexing="ij"), -1).reshape(1, -1, 2).astype(np.int32)
    image = ss.Patches(
        pixels=rng.integers(0, 256, (1, GRID**2, 3 * 16**2)).astype(np.uint8),
        yx=yx,
        grid=np.full_like(yx, GRID),
    )
    batch = jax.device_put(ss.make_batch(text=ss.Text(ids=rng.integers(5, 512, (1, WORDS), np.int32)), image=image))
    params = nnx.to_pure_dict(nnx.state(module))

    def forward(pruning: PruningConfig) -> Callable[[], jax.Array]:
        set_pruning(module, pruning)
        graphdef = nnx.graphdef(module)
        encode = jax.jit(lambda params: nnx.merge(graphdef, params)(batch).pooled)
        return functools.partial(encode, params)

    name, whole = f"base, {GRID**2 + WORDS} tokens", forward(PruningConfig())
    for _, pruning in settings(args.layers):
        row(name, pruning, ratio_of(whole, forward(pruning), args.rounds))


if __name__ == "__main__":
    main()
