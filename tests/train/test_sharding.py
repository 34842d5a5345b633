"""The mesh, and where each parameter of a model goes."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from singlestream.batch import Spec
from singlestream.config import ConfigError, MeshConfig, ModelConfig, TrainConfig
from singlestream.model.heads import HeadConfig
from singlestream.model.single_stream import SingleStream
from singlestream.train.paths import paths
from singlestream.train.sharding import AXES, check_rows, make_mesh, put_rows, shard_state, spec_of
from singlestream.train.state import split_model


def test_mesh_takes_what_is_left():
    assert dict(make_mesh(MeshConfig(tensor=2)).shape) == {"data": 4, "fsdp": 1, "tensor": 2}
    assert dict(make_mesh(MeshConfig(), jax.devices()[:1]).shape) == {"data": 1, "fsdp": 1, "tensor": 1}


@pytest.mark.parametrize("mesh", [MeshConfig(data=3), MeshConfig(data=2), MeshConfig(tensor=16), MeshConfig(fsdp=-1)])
def test_mesh_that_does_not_fit(mesh):
    with pytest.raises(ConfigError, match="does not fit 8 devices"):
        make_mesh(mesh)


def test_rows_must_divide():
    mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
    check_rows(TrainConfig(batch_size=8, accumulate=2), mesh)
    with pytest.raises(ConfigError, match="batch_size=12 is not divisible by 4 devices"):
        check_rows(TrainConfig(batch_size=12, accumulate=2), mesh)


class OfProcess:
    """A device of another process, as far as a mesh looks at it."""

    platform = "cpu"

    def __init__(self, process_index: int):
        self.process_index = process_index


def test_rows_must_be_whole_in_a_process():
    devices = np.array([OfProcess(i // 4) for i in range(8)])
    check_rows(TrainConfig(batch_size=8), Mesh(devices.reshape(1, 2, 4), AXES))
    with pytest.raises(ConfigError, match="mesh.tensor=8 spans processes.* a divisor of 4, the devices of one process"):
        check_rows(TrainConfig(batch_size=8), Mesh(devices.reshape(1, 1, 8), AXES))


def test_every_parameter_of_a_model():
    """The table as it meets a model; norms, biases of what narrows, and small tables are whole everywhere."""
    from flax import nnx

    config = ModelConfig(width=16, num_layers=2, num_heads=2, mlp_dim=32, pooler=True, decoder_layers=2)
    heads = {"vqa": HeadConfig(kind="classifier", size=6), "mlm": HeadConfig(kind="vocabulary", size=40, source="text")}
    _, params = split_model(
        lambda: SingleStream(config, Spec(vocab_size=40, num_answers=6), heads=heads, rngs=nnx.Rngs(0))
    )
    mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
    placed = shard_state(params, mesh)
    found = dict(zip(paths(placed), (leaf.sharding.spec for leaf in jax.tree.leaves(placed)), strict=True))
    split = {path: spec for path, spec in found.items() if spec != P()}
    of_layers = {
        "attention/bias": P(None, None, "tensor"),
        "attention/kernel": P(None, "fsdp", None, "tensor"),
        "attention/out/kernel": P(None, "tensor", "fsdp"),
        "mlp/down/kernel": P(None, "tensor", "fsdp"),
        "mlp/up/bias": P(None, "tensor"),
        "mlp/up/kernel": P(None, "fsdp", "tensor"),
    }
    reads = [f"decoder/blocks/cross/{name}" for name in ("query", "key", "value")]
    assert split == {
        **{f"{stack}/blocks/{name}": spec for stack in ("encoder", "decoder") for name, spec in of_layers.items()},
        **{f"{name}/kernel": P(None, "fsdp", "tensor") for name in reads},
        **{f"{name}/bias": P(None, "tensor") for name in reads},
        "decoder/blocks/cross/out/kernel": P(None, "tensor", "fsdp"),
        "embed/image/stem/project/kernel": P("fsdp", "tensor"),
        "embed/modality/table/embedding": P("tensor", "fsdp"),
        "embed/text/position/embedding": P("tensor", "fsdp"),
        "embed/text/token/embedding": P("tensor", "fsdp"),
        "embed/text/type/embedding": P("tensor", "fsdp"),
        "heads/mlm/hidden/kernel": P("fsdp", "tensor"),
        "heads/vqa/hidden/kernel": P("fsdp", "tensor"),
        "heads/vqa/out/kernel": P("fsdp", "tensor"),
        "pooler/dense/kernel": P("fsdp", "tensor"),
    }


def test_an_axis_that_does_not_divide_stays_whole():
    mesh = make_mesh(MeshConfig(data=1, fsdp=2, tensor=4))
    assert spec_of("opt_state/0/mu/heads/vqa/out/kernel", (16, 26), mesh) == P("fsdp")
    assert spec_of("embed/text/token/embedding", (121, 15), mesh) == P()
    assert spec_of("encoder/blocks/mlp/up/kernel", (), mesh) == P()  # a placeholder of an optimizer


def test_rows_on_devices():
    mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
    rows = put_rows({"x": np.arange(8)}, mesh)["x"]
    assert rows.sharding.spec == P(("data", "fsdp"))
    assert sorted(shard.data.shape for shard in rows.addressable_shards) == [(2,)] * 8
