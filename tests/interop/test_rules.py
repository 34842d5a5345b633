"""Correspondence of keys: every layout undoes itself, whole sets of parameters too, and complaints come all at once."""

from __future__ import annotations

import dataclasses

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from singlestream.interop import rules as module
from singlestream.interop.params import read_params, write_params
from singlestream.interop.rules import (
    FUSED_BIAS,
    FUSED_KERNEL,
    LINEAR,
    QKV_BIAS,
    QKV_KERNEL,
    Constant,
    Copy,
    Layout,
    Rule,
    Rules,
    WeightsError,
)

# Shapes of ours and of theirs, for sizes a and b.
LAYOUTS = {
    "SAME": lambda a, b: ([(a, b)], [(a, b)]),
    "LINEAR": lambda a, b: ([(a, b)], [(b, a)]),
    "QKV_KERNEL": lambda a, b: ([(a, 3, b)], [(b, a)] * 3),
    "QKV_BIAS": lambda a, b: ([(3, b)], [(b,)] * 3),
    "FUSED_KERNEL": lambda a, b: ([(a, 3, b)], [(3 * b, a)]),
    "FUSED_BIAS": lambda a, b: ([(3, b)], [(3 * b,)]),
}
RULES = Rules(
    rules=[
        Rule(ours=("embed/table",), theirs=("embeddings.weight",)),
        Rule(ours=("layers/qkv/kernel",), theirs=tuple(f"layer.{{i}}.{n}.weight" for n in "qkv"), layout=QKV_KERNEL),
        Rule(ours=("layers/qkv/bias",), theirs=tuple(f"layer.{{i}}.{n}.bias" for n in "qkv"), layout=QKV_BIAS),
        Rule(ours=("head/kernel",), theirs=("cls.weight",), layout=LINEAR),
        Rule(ours=("scale",), theirs=("logit_scale",)),
    ],
    copies=[Copy(key="decoder.weight", of="embeddings.weight")],
    constants=[Constant(key="position_ids", value=np.arange(4)[None]), Constant(key="old")],
)
SHAPES: dict[str, tuple[int, ...]] = {
    "embed/table": (7, 4),
    "layers/qkv/kernel": (2, 4, 3, 4),
    "layers/qkv/bias": (2, 3, 4),
    "head/kernel": (4, 5),
    "scale": (),
}


@dataclasses.dataclass(frozen=True)
class Held:
    """A tensor of no file."""

    array: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape

    @property
    def dtype(self) -> np.dtype:
        return self.array.dtype

    def read(self) -> np.ndarray:
        return self.array


def make_params(dtype=np.float32) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {path: rng.normal(size=shape).astype(dtype) for path, shape in SHAPES.items()}


def make_file(**kwargs) -> dict[str, Held]:
    return {key: Held(np.array(array)) for key, array in write_params(RULES, make_params(**kwargs))}


def read(tensors, shapes=SHAPES, **kwargs):
    return read_params(RULES, tensors, shapes, where="model.bin", **kwargs)


def same(given, expected) -> None:
    assert given.keys() == expected.keys()
    for name, array in expected.items():
        assert given[name].dtype == array.dtype
        np.testing.assert_array_equal(given[name], array, strict=True, err_msg=name)


def test_every_layout_is_tested():
    assert {name for name, value in vars(module).items() if isinstance(value, Layout)} == LAYOUTS.keys()


@pytest.mark.parametrize("name", LAYOUTS)
@given(a=st.integers(1, 5), b=st.integers(1, 5))
def test_a_layout_undoes_itself(name, a, b):
    layout, (ours, theirs) = getattr(module, name), LAYOUTS[name](a, b)
    rng = np.random.default_rng(0)
    for shapes, there, back in ((ours, layout.write, layout.read), (theirs, layout.read, layout.write)):
        arrays = [rng.normal(size=shape) for shape in shapes]
        moved = there(*arrays)
        assert [x.shape for x in moved] == (theirs if shapes is ours else ours)
        for array, again in zip(arrays, back(*moved), strict=True):
            np.testing.assert_array_equal(again, array, strict=True)


def test_layouts_mean_the_same_projection():
    rng = np.random.default_rng(0)
    x, weight, bias = rng.normal(size=(2, 5)), rng.normal(size=(12, 5)), rng.normal(size=12)
    q, k, v = np.split(x @ weight.T + bias, 3, axis=-1)
    for kernel, bias_ in (
        (FUSED_KERNEL.read(weight), FUSED_BIAS.read(bias)),
        (QKV_KERNEL.read(*np.split(weight, 3)), QKV_BIAS.read(*np.split(bias, 3))),
    ):
        np.testing.assert_allclose(np.einsum("nd,dpe->pne", x, kernel[0]) + bias_[0][:, None], [q, k, v], rtol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_parameters_come_back(dtype):
    params, file = make_params(dtype), make_file(dtype=dtype)
    assert {key: tensor.shape for key, tensor in file.items()} == {
        "embeddings.weight": (7, 4),
        "decoder.weight": (7, 4),
        **{f"layer.{i}.{n}.weight": (4, 4) for i in range(2) for n in "qkv"},
        **{f"layer.{i}.{n}.bias": (4,) for i in range(2) for n in "qkv"},
        "cls.weight": (5, 4),
        "logit_scale": (),
        "position_ids": (1, 4),
    }
    again, account = read(file)
    same(again, params)
    assert account.taken["layers/qkv/bias"] == tuple(f"layer.{i}.{n}.bias" for i in range(2) for n in "qkv")
    assert (account.taken.keys(), account.lines()) == (SHAPES.keys(), [])
    same(dict(write_params(RULES, again)), {key: tensor.array for key, tensor in file.items()})


def test_what_is_written_takes_no_memory():
    params = make_params()
    for key, array in write_params(RULES, params):
        assert key == "position_ids" or any(np.shares_memory(array, param) for param in params.values()), key


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_half_precision_is_widened_exactly(dtype):
    params, _ = read(make_file(dtype=dtype))
    same(params, {path: array.astype(np.float32) for path, array in make_params(dtype).items()})


def test_files_may_leave_out_tied_weights_and_buffers():
    file = {key: t for key, t in make_file().items() if key not in ("decoder.weight", "position_ids")}
    same(read(file | {"old": Held(np.zeros(3))})[0], make_params())


def broken_file() -> dict[str, Held]:
    file = make_file()
    del file["layer.1.k.bias"], file["logit_scale"]
    return file | {
        "cls.weight": Held(np.zeros((5, 3), np.float32)),
        "embeddings.weight": Held(np.zeros((7, 4), np.int64)),
        "optimizer": Held(np.zeros(3)),
        "other": Held(np.zeros(3)),
    }


def test_every_complaint_comes_at_once():
    with pytest.raises(WeightsError) as error:
        read(broken_file(), {**SHAPES, "pooler/bias": (4,)})
    assert str(error.value) == (
        "model.bin does not fit (missing: layer.1.k.bias, logit_scale; not known here: optimizer, other; "
        "not as expected: embeddings.weight is int64, expected floating point, "
        "cls.weight is [5, 3], expected [5, 4], decoder.weight differs from embeddings.weight, here they are one; "
        "parameters that no key stands for: pooler/bias); nothing was loaded. strict=False takes what fits"
    )


def test_what_does_not_fit_is_skipped_and_accounted_for():
    params, account = read(broken_file(), {**SHAPES, "pooler/bias": (4,)}, strict=False)
    same(params, {"layers/qkv/kernel": make_params()["layers/qkv/kernel"]})
    assert account.taken.keys() == params.keys()
    assert account.fresh == ("embed/table", "head/kernel", "layers/qkv/bias", "pooler/bias", "scale")
    biases = {f"layer.{i}.{n}.bias" for i in range(2) for n in "qkv"} - {"layer.1.k.bias"}
    assert set(account.unused) == {"optimizer", "other", "cls.weight", "embeddings.weight", *biases}
    assert len(account.misfits) == 3
    fresh, unused, misfits = account.lines()
    assert fresh.startswith("5 fresh") and unused.startswith("9 not used") and "cls.weight is [5, 3]" in misfits


def test_a_rule_for_what_the_model_does_not_have():
    with pytest.raises(KeyError, match="scale, which the model does not have"):
        read(make_file(), {path: shape for path, shape in SHAPES.items() if path != "scale"})
