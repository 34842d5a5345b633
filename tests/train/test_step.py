"""A step as numbers: on any mesh, in parts, lowered for devices that are not here, and never compiled twice."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from singlestream.config import MeshConfig
from singlestream.data.pipeline import train_iterator
from singlestream.train import checkpoint
from singlestream.train.build import Run, build_run
from singlestream.train.folder import RunFolder
from singlestream.train.optimizer import make_optimizer
from singlestream.train.sharding import make_mesh, put_rows, shard_rows, shard_state
from singlestream.train.state import init_state, place_init, split_model
from singlestream.train.step import compile_train_step, make_eval_step, make_train_step

from .toy import toy_config, with_train

MESHES = [
    MeshConfig(data=1),
    MeshConfig(data=2),
    MeshConfig(data=1, fsdp=2),
    MeshConfig(data=1, tensor=2),
    MeshConfig(data=2, fsdp=2, tensor=2),
]


@pytest.fixture(scope="module")
def run(scenes, tmp_path_factory) -> Run:
    folder = RunFolder.at(tmp_path_factory.mktemp("run"))
    toy, options = toy_config(scenes, model={"num_layers": 1}), {"locate": {"layer": 1}}
    config = dataclasses.replace(toy, objectives={"vqa": 1.0, "locate": 0.5}, objective_options=options)
    return build_run(config, folder)


@pytest.fixture(scope="module")
def batches(run):
    iterator = train_iterator(run.source, run.processor, batch_size=8, seed=0)
    return [next(iterator) for _ in range(4)]


def parts_of(run: Run, mesh=None, **train):
    """Step function and initialiser for `config.train` with these changes."""
    mesh = mesh or make_mesh(MeshConfig(), jax.devices()[:1])
    config = with_train(run.config, **train)
    graphdef, params = split_model(run.make_model)
    optimizer = make_optimizer(config.train, params)
    ema = config.train.ema_decay > 0
    init = functools.partial(init_state, run.make_model, optimizer, run.objectives, run.spec, ema=ema)
    return make_train_step(graphdef, run.objectives, optimizer, config, run.spec, mesh), init


def compiled(run: Run, mesh_config: MeshConfig, **train):
    size = mesh_config.data * mesh_config.fsdp * mesh_config.tensor
    mesh = make_mesh(mesh_config, jax.devices()[:size])
    step_fn, init = parts_of(run, mesh, **train)
    start, abstract = place_init(init, mesh)
    return compile_train_step(step_fn, abstract, shard_rows(run.empty_batch(), mesh), mesh), start, abstract, mesh


def curve(step, state, batches, mesh):
    losses = []
    for batch in batches:
        state, metrics = step(state, put_rows(batch, mesh))
        losses.append(float(metrics["loss"][0]))
    return state, losses


def four_steps(run, batches, folder, step, start, abstract, mesh):
    """Two steps, saved into `folder`, and two more; their losses."""
    state, losses = curve(step, start(), batches[:2], mesh)
    manager = checkpoint.Checkpoints(folder, run.config.train, abstract)
    manager.save(2, state, {}, None)
    manager.wait()
    manager.close()
    state, more = curve(step, state, batches[2:], mesh)
    return state, losses + more


@pytest.fixture(scope="module")
def one_device(run, batches, tmp_path_factory):
    """What is compiled for one device, the folder of its checkpoint, and its losses."""
    program, folder = compiled(run, MESHES[0]), tmp_path_factory.mktemp("checkpoints")
    return program, folder, four_steps(run, batches, folder, *program)[1]


@pytest.mark.parametrize(
    "mesh_config",
    [*(pytest.param(mesh, marks=pytest.mark.slow) for mesh in MESHES[1:-1]), MESHES[-1]],
    ids=lambda m: f"{m.data}x{m.fsdp}x{m.tensor}",
)
def test_same_curve_on_every_mesh_and_from_every_checkpoint(run, batches, one_device, mesh_config, tmp_path):
    """The mesh takes over the checkpoint of one device, and one device that of the mesh."""
    alone, folder, expected = one_device
    program = compiled(run, mesh_config)
    state, losses = four_steps(run, batches, tmp_path, *program)
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    kernels = [leaf for leaf in jax.tree.leaves(state["params"]) if not leaf.sharding.is_fully_replicated]
    assert bool(kernels) == (mesh_config.fsdp * mesh_config.tensor > 1)
    for place, (step, _, abstract, mesh) in ((folder, program), (tmp_path, alone)):
        restored = checkpoint.restore_tree(place, 2, abstract)
        assert all(leaf.sharding.mesh == mesh for leaf in jax.tree.leaves(restored))
        np.testing.assert_allclose(curve(step, restored, batches[2:], mesh)[1], expected[2:], rtol=1e-5)


def test_bfloat16_computes_alone(run, batches, one_device):
    """The layers compute in it; parameters and the optimizer's moments stay float32, and so does what a loss is."""
    config = dataclasses.replace(run.config, model=dataclasses.replace(run.config.model, dtype="bfloat16"))
    step, start, _, mesh = compiled(dataclasses.replace(run, config=config), MESHES[0])
    state, losses = curve(step, start(), batches[:2], mesh)
    *_, expected = one_device
    assert np.isfinite(losses).all() and losses != expected[:2]
    np.testing.assert_allclose(losses, expected[:2], rtol=0.02)  # it keeps 8 bits
    for name in ("params", "opt_state"):
        floats = {leaf.dtype for leaf in jax.tree.leaves(state[name]) if jnp.issubdtype(leaf.dtype, jnp.floating)}
        assert floats == {jnp.dtype("float32")}, name


@pytest.fixture(scope="module")
def gradients(run, batches):
    """`gradients(parts)`: the optimizer's state after a step in so many parts, and the step's metrics.

    Rows with fewer texts make parts whose counts differ: the mean of the parts' means would be another gradient.
    """
    mask = batches[0].example_mask.copy()
    mask[::2, 1] = False
    mask[1, :] = False
    batch = batches[0].replace(example_mask=mask)

    @functools.cache
    def found(parts):
        step_fn, init = parts_of(run, accumulate=parts, clip_norm=0.0, warmup_steps=0, optimizer="adamw")
        new, metrics = jax.jit(lambda: step_fn(init(), batch))()
        return new["opt_state"], metrics

    return found


@pytest.mark.parametrize("parts", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_accumulation_is_exact(gradients, parts):
    (whole, metrics), (split, metrics_split) = gradients(1), gradients(parts)
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(split), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-7)
    for name, pair in metrics.items():
        np.testing.assert_allclose(metrics_split[name], pair, rtol=1e-5, err_msg=name)


def test_no_compilation_after_the_first_step(run, batches):
    step, start, _, mesh = compiled(run, MESHES[0], ema_decay=0.5, optimizer="muon")
    state = start()
    assert not any(leaf.weak_type for leaf in jax.tree.leaves(state))
    seen = []
    jax.monitoring.register_event_duration_secs_listener(lambda name, *_, **__: seen.append(name))
    try:
        for batch in batches:
            rows = put_rows(batch, mesh)
            with jax.transfer_guard("disallow"):
                state, metrics = step(state, rows)
            jax.device_get(metrics)
    finally:
        jax.monitoring.clear_event_listeners()
    assert not [name for name in seen if "compile" in name]
    assert int(state["step"]) == 4


@pytest.mark.slow
def test_average_of_parameters(run, batches):
    step_fn, init = parts_of(run, ema_decay=0.15)
    before = init()
    after, _ = jax.jit(step_fn)(before, batches[0])
    again, _ = jax.jit(step_fn)(after, batches[1])
    # The decay is ramped: (1 + 0) / (10 + 0), then (1 + 1) / (10 + 1) cut to 0.15.
    for start, one, two, average, last in zip(
        *(jax.tree.leaves(tree) for tree in (before["params"], after["params"], again["params"], after["ema"])),
        jax.tree.leaves(again["ema"]),
        strict=True,
    ):
        np.testing.assert_allclose(average, 0.1 * start + 0.9 * one, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(last, 0.15 * average + 0.85 * two, rtol=1e-4, atol=1e-6)


def test_evaluation_reads_the_average_and_repeats_itself(run, batches):
    graphdef, _ = split_model(run.make_model)
    eval_fn = jax.jit(
        make_eval_step(graphdef, run.objectives, run.config, run.spec, make_mesh(MeshConfig(), jax.devices()[:1]))
    )
    _, init = parts_of(run, ema_decay=0.5)
    state = init()
    state["params"] = jax.tree.map(lambda p: p * jnp.nan, state["params"])
    first, second = (eval_fn(state, batches[0], jnp.int32(3)) for _ in range(2))
    assert np.isfinite(first["vqa/loss"][0])
    jax.tree.map(np.testing.assert_array_equal, first, second)
    assert first["vqa/accuracy"][1] == (batches[0].targets["answer"] >= 0).sum()


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_step_lowers_for_other_platforms(run, platform):
    """`jax.export` from here; that it runs there is not shown."""
    mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
    step_fn, init = parts_of(run, mesh, optimizer="muon", ema_decay=0.9, accumulate=2)
    state, batch = shard_state(jax.eval_shape(init), mesh), shard_rows(run.empty_batch(), mesh)
    shardings = jax.tree.map(lambda leaf: leaf.sharding, state)
    whole = NamedSharding(mesh, PartitionSpec())
    jitted = jax.jit(step_fn, donate_argnums=0, out_shardings=(shardings, whole))
    exported = jax.export.export(jitted, platforms=[platform])(state, batch)
    assert exported.platforms == (platform,) and exported.nr_devices == 8
    assert "stablehlo.dot_general" in exported.mlir_module()
