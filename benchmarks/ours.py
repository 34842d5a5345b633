"""Our side: a batch of random pairs, the training step of `singlestream.train` and the forward pass, compiled."""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from alternate import serve
from cases import CASES, Case
from flax import nnx

from singlestream.batch import Batch, Patches, Spec, Text, make_batch
from singlestream.config import Config, DataConfig, ModelConfig, TrainConfig
from singlestream.model.single_stream import SingleStream
from singlestream.objectives import build_objectives
from singlestream.train.optimizer import make_optimizer
from singlestream.train.sharding import make_mesh, put_rows, shard_rows
from singlestream.train.state import init_state, place_init, split_model
from singlestream.train.step import compile_train_step, make_train_step


def config_of(case: Case, **model: Any) -> Config:
    """AdamW without clipping, as on the other side."""
    sizes = dict(width=case.width, num_layers=case.layers, num_heads=case.heads, mlp_dim=case.mlp)
    return Config(
        data=DataConfig(text_length=case.text + 1),
        model=ModelConfig(
            **sizes,
            patch_size=case.patch,
            image_grid=(case.side, case.side),
            max_text_length=case.text + 1,
            pooler=True,
            **model,
        ),
        train=TrainConfig(batch_size=case.batch, schedule="constant", warmup_steps=0, clip_norm=0.0),
    )


def random_batch(case: Case) -> Batch:
    """Text of one token more than ViLT's, in place of ViLT's extra image token."""
    rng = np.random.default_rng(0)
    rows, side = case.batch, case.side
    yx = np.stack(np.meshgrid(np.arange(side), np.arange(side), indexing="ij"), -1).reshape(1, -1, 2)
    yx = np.repeat(yx, rows, axis=0)
    pixels = rng.integers(0, 256, (rows, case.patches, 3 * case.patch**2), dtype=np.uint8)
    return make_batch(
        text=Text(ids=rng.integers(5, case.vocabulary, (rows, case.text + 1))),
        image=Patches(pixels=pixels, yx=yx, grid=np.full_like(yx, side)),
        targets={"answer": rng.integers(0, case.answers, (rows, 1)).astype(np.int32)},
    )


def train_step(case: Case, config: Config) -> tuple[Callable[[Batch], Any], Batch]:
    """(step, batch): the step keeps its state and returns its metrics, perhaps before they are there."""
    mesh, batch = make_mesh(config.train.mesh), random_batch(case)
    spec = Spec(vocab_size=case.vocabulary, num_answers=case.answers)
    objectives = build_objectives(config, spec)
    heads = {name: head for o in objectives.values() for name, head in o.heads(config.model, spec).items()}

    def make_model() -> SingleStream:
        return SingleStream(config.model, spec, heads=heads, rngs=nnx.Rngs(params=0))

    graphdef, params = split_model(make_model)
    optimizer = make_optimizer(config.train, params)
    init, abstract = place_init(functools.partial(init_state, make_model, optimizer, objectives, spec, ema=False), mesh)
    step_fn = make_train_step(graphdef, objectives, optimizer, config, spec)
    compiled = compile_train_step(step_fn, abstract, shard_rows(batch, mesh), mesh)
    state = init()

    def step(batch: Batch) -> Any:
        nonlocal state
        state, metrics = compiled(state, put_rows(batch, mesh))
        return metrics

    return step, batch


def forward(case: Case, config: Config) -> tuple[Callable[[Batch], Any], Batch]:
    """(function, batch): the answers' logits."""
    spec = Spec(vocab_size=case.vocabulary, num_answers=case.answers)
    heads = {
        name: h for o in build_objectives(config, spec).values() for name, h in o.heads(config.model, spec).items()
    }
    graphdef, state = nnx.split(SingleStream(config.model, spec, heads=heads, rngs=nnx.Rngs(params=0)))
    params = nnx.to_pure_dict(state)

    @jax.jit
    def logits(params: Any, batch: Batch) -> jax.Array:
        model = nnx.merge(graphdef, params)
        return model.heads["vqa"](model(batch))

    return functools.partial(logits, params), random_batch(case)


def products(case: Case) -> Callable[[], Any]:
    """The matrix products of a training step's projections and nothing else: the layers' forward and two backward."""
    rng = np.random.default_rng(0)
    rows = case.batch * case.tokens

    def random(*shape: int) -> jax.Array:
        return jax.device_put(rng.standard_normal(shape, np.float32))

    # Operands of their own for each product: XLA would compute equal ones once.
    shapes = [shape for _ in range(case.layers) for shape in case.projections]
    operands = [(random(*shape), random(rows, shape[0]), random(rows, shape[1])) for shape in shapes]

    @jax.jit
    def all_products(operands: list[tuple[jax.Array, jax.Array, jax.Array]]) -> Any:
        return [(x @ kernel, g @ kernel.T, x.T @ g) for kernel, x, g in operands]

    return functools.partial(all_products, operands)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--case", choices=CASES, required=True)
    parser.add_argument("--mode", choices=("train", "forward", "products"), required=True)
    parser.add_argument("--dtype", default="float32")
    args = parser.parse_args()
    case = CASES[args.case]
    if args.mode == "products":
        function = products(case)
    else:
        make = train_step if args.mode == "train" else forward
        function = functools.partial(*make(case, config_of(case, dtype=args.dtype)))
    serve(lambda: jax.block_until_ready(function()))


if __name__ == "__main__":
    main()
