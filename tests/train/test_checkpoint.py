"""Checkpoints: which are kept, and what is said of one that is damaged or another model's."""

from __future__ import annotations

import contextlib
import errno

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from singlestream.config import MeshConfig, TrainConfig
from singlestream.train import checkpoint
from singlestream.train.checkpoint import Checkpoints
from singlestream.train.errors import CheckpointError
from singlestream.train.fingerprint import device_sums, host_sum
from singlestream.train.sharding import make_mesh, shard_state

PARAMS = {"a": {"kernel": jnp.arange(4096.0).reshape(64, 64)}, "b": {"bias": jnp.zeros((5,))}}


def make_state(scale: float = 1.0):
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    params = jax.tree.map(lambda p: scale * p, PARAMS)
    state = {"step": jnp.int32(0), "params": params, "opt_state": optax.adam(1.0).init(params), "objectives": {"x": {}}}
    abstract = shard_state(state, mesh)
    return jax.tree.map(lambda x, shape: jax.device_put(x, shape.sharding), state, abstract), abstract


@pytest.fixture
def saved(tmp_path):
    """Steps 1 and 2, the first with half of the second's parameters."""
    state, abstract = make_state(0.5)
    manager = Checkpoints(tmp_path, TrainConfig(keep_latest=2), abstract)
    manager.save(1, state, {"data": [{"x": 1}]}, None)
    manager.save(2, make_state()[0], {"data": [{"x": 2}]}, None)
    manager.close()
    return tmp_path, abstract


def restore(folder, abstract):
    with contextlib.closing(Checkpoints(folder, TrainConfig(keep_latest=2), abstract)) as manager:
        return manager.restore(2)


def damage(folder, step: int, change) -> None:
    """Applies `change` to the largest file of a checkpoint's state."""
    files = [path for path in (folder / str(step) / "state").rglob("*") if path.is_file() and "/d/" in str(path)]
    path = max(files, key=lambda path: path.stat().st_size)
    path.write_bytes(change(path.read_bytes()))


def test_everything_comes_back(saved):
    folder, abstract = saved
    state, loop = restore(folder, abstract)
    jax.tree.map(np.testing.assert_array_equal, state, make_state()[0])
    assert loop["data"] == [{"x": 2}]
    assert isinstance(state["opt_state"][0], optax.ScaleByAdamState)
    np.testing.assert_array_equal(checkpoint.read_any_params(folder, 1)["a/kernel"], 0.5 * PARAMS["a"]["kernel"])
    shapes = jax.eval_shape(lambda: PARAMS)
    jax.tree.map(np.testing.assert_array_equal, checkpoint.read_params(folder, 2, shapes), PARAMS)


def test_what_the_loop_counts_on_is_saved_as_it_was(tmp_path):
    """The write goes on in the background, while the loop adds to the very sums that it gave."""
    state, abstract = make_state()
    totals = {"loss": [1.0, 2.0]}
    with contextlib.closing(Checkpoints(tmp_path, TrainConfig(keep_latest=2), abstract)) as manager:
        manager.save(2, state, {"data": [], "totals": totals}, None)
        totals["loss"][0] = 7.0
    assert restore(tmp_path, abstract)[1]["totals"] == {"loss": [1.0, 2.0]}


@pytest.mark.parametrize(
    ("metric", "values", "kept", "best"),
    [
        ("vqa/accuracy", {1: 0.1, 2: 0.9, 3: 0.5, 4: None}, [2, 4], 2),
        ("", {1: 0.1, 2: 0.9, 3: 0.5, 4: None}, [1, 4], 1),
        ("mlm/loss", {1: 0.5, 2: float("nan"), 3: 0.5, 4: None}, [3, 4], 3),
        ("vqa/accuracy", {1: None, 2: None}, [2], 2),
    ],
)
def test_latest_and_best_are_kept(tmp_path, metric, values, kept, best):
    state, abstract = make_state()
    config = TrainConfig(best_metric=metric)
    manager = Checkpoints(tmp_path, config, abstract)
    for step, value in values.items():
        manager.save(step, state, {}, None if value is None else {metric or "loss": value})
    manager.close()
    assert checkpoint.steps(tmp_path) == kept
    assert checkpoint.find_step(tmp_path, "best", config) == best
    assert checkpoint.find_step(tmp_path, "latest", config) == kept[-1]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(map(str, kept))


def test_a_checkpoint_that_is_not_there(saved, tmp_path):
    folder, abstract = saved
    with pytest.raises(CheckpointError, match=r"no checkpoint '7' in .*choose best, latest or 1, 2"):
        checkpoint.find_step(folder, "7", TrainConfig())
    with pytest.raises(CheckpointError, match="has no checkpoint of step 7; it has 1, 2"):
        checkpoint.restore_tree(folder, 7, abstract)
    with pytest.raises(CheckpointError, match="has no checkpoint yet"):
        checkpoint.find_step(tmp_path / "empty", "best", TrainConfig())


def test_another_model_is_named_leaf_by_leaf(saved):
    folder, _ = saved
    other = jax.eval_shape(lambda: {"a": {"kernel": jnp.zeros((64, 32))}, "c": jnp.zeros(3)})
    with pytest.raises(CheckpointError) as error:
        checkpoint.read_params(folder, 2, other)
    for part in (
        "params/c is missing",
        "params/b/bias is not part",
        "params/a/kernel is [64, 64], the model has [64, 32]",
    ):
        assert part in str(error.value)


@pytest.mark.parametrize(
    "change",
    [lambda data: data[: len(data) // 2], lambda data: b"", lambda data: data[:600] + b"\x07" * 900 + data[1500:]],
    ids=["cut", "empty", "overwritten"],
)
def test_a_damaged_checkpoint_says_what_to_do(saved, change):
    folder, abstract = saved
    damage(folder, 2, change)
    with pytest.raises(CheckpointError, match=r"/2 cannot be read \(.*\)\. Remove that folder to go on from step 1"):
        restore(folder, abstract)


def test_missing_parts_of_a_checkpoint(saved):
    folder, abstract = saved
    (folder / "2" / "loop" / "metadata").write_text("{")
    with pytest.raises(CheckpointError, match="/2 cannot be read"):
        checkpoint.restore_tree(folder, 2, abstract)
    (folder / "1" / "state" / "_METADATA").unlink()
    with pytest.raises(CheckpointError, match="/1 cannot be read"):
        checkpoint.read_state(folder, 1)


def test_content_that_was_not_saved(saved, monkeypatch):
    """Whatever the files' own format would not notice."""
    folder, abstract = saved
    path = folder / "2" / "loop" / "metadata"
    path.write_text(path.read_text().replace('"params/a/kernel": ', '"params/a/kernel": 1'))
    for read in (
        lambda: restore(folder, abstract),
        lambda: checkpoint.read_any_params(folder, 2),
    ):
        with pytest.raises(CheckpointError, match="params/a/kernel is not what was saved"):
            read()


def test_what_a_kill_leaves_is_removed(saved):
    folder, abstract = saved
    for name in ("3.orbax-checkpoint-tmp", ".deleted/1"):
        (folder / name / "state").mkdir(parents=True)
    assert checkpoint.steps(folder) == [1, 2]
    Checkpoints(folder, TrainConfig(keep_latest=2), abstract).close()
    assert sorted(path.name for path in folder.iterdir()) == ["1", "2"]


def test_a_full_disk(saved, monkeypatch):
    folder, abstract = saved
    manager = Checkpoints(folder, TrainConfig(keep_latest=2), abstract)

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(manager._manager, "save", full)
    with pytest.raises(CheckpointError, match=r"No space left on device\); the last good one is .*/2$"):
        manager.save(3, make_state()[0], {}, None)
    manager.close()


@given(st.sampled_from(["float32", "bfloat16", "int32", "bool", "uint8"]), st.integers(0, 2**31))
def test_sums_agree_and_see_a_changed_bit(dtype, seed):
    x = (np.random.default_rng(seed).normal(size=(3, 8)) * 100).astype(jnp.dtype(dtype))
    with jax.numpy_dtype_promotion("standard"):
        assert int(device_sums([jnp.asarray(x)])[0]) == host_sum(x)
    other = x.copy()
    other.reshape(-1).view(np.uint8)[seed % x.nbytes] ^= 1
    assert host_sum(other) != host_sum(x)
