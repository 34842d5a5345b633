"""Safetensors: our files and the library's read each other's, writing is whole or not at all, memory stays small."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from singlestream.interop.files import open_tensors
from singlestream.interop.rules import WeightsError
from singlestream.interop.safetensor_files import DTYPES, write_safetensors

ROOT = Path(__file__).resolve().parent.parent.parent
SHAPES = st.lists(st.integers(0, 4), max_size=4).map(tuple)
MODELS = st.dictionaries(st.text(min_size=1, max_size=8), st.tuples(SHAPES, st.sampled_from(list(DTYPES))), max_size=6)


def make(model) -> dict[str, np.ndarray]:
    """Arrays of random bytes by name."""
    rng = np.random.default_rng(0)
    arrays = {}
    for name, (shape, kind) in model.items():
        numbers = rng.integers(0, 2 if kind == "BOOL" else 100, shape)
        arrays[name] = np.asarray(numbers).astype(DTYPES[kind])
    return arrays


def same(given, expected) -> None:
    assert given.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(given[name], array, strict=True, err_msg=name)


def read(path) -> dict[str, np.ndarray]:
    return {key: tensor.read() for key, tensor in open_tensors(path).items()}


@hypothesis.given(model=MODELS)
def test_the_library_and_we_read_each_other(model, tmp_path_factory):
    library = pytest.importorskip("safetensors.numpy")
    arrays, folder = make(model), tmp_path_factory.mktemp("files")
    write_safetensors(folder / "ours", arrays.items())
    same(read(folder / "ours"), arrays)
    same(library.load_file(folder / "ours"), arrays)
    library.save_file(arrays, folder / "theirs", metadata={"format": "pt"})
    same(read(folder / "theirs"), arrays)


def test_views_are_written_and_numbers_lie_at_multiples_of_their_size(tmp_path):
    base = np.arange(24, dtype=np.float32).reshape(4, 6)
    arrays = {"byte": np.ones(3, np.int8), "t": base.T, "steps": base[::2, 1:3], "wide": np.float64(3)[None]}
    write_safetensors(tmp_path / "model.safetensors", iter(arrays.items()))
    same(read(tmp_path), arrays)
    for key, tensor in open_tensors(tmp_path).items():
        assert tensor.start % tensor.dtype.itemsize == 0, key
    content = (tmp_path / "model.safetensors").read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    assert header["__metadata__"] == {"format": "pt"}  # without it, transformers refuses the file


@pytest.mark.parametrize(
    ("arrays", "error"),
    [
        ([("a", np.ones(2))], OSError),
        ([("a", np.ones(2)), ("a", np.ones(2))], ValueError),
        ([("a", np.ones(2, complex))], ValueError),
    ],
)
def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch, arrays, error):
    def full(_):
        assert (tmp_path / "model.safetensors.part").exists()
        raise OSError("no space left")

    path = tmp_path / "model.safetensors"
    write_safetensors(path, [("old", np.zeros(3))])
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(error):
        write_safetensors(path, arrays)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    same(read(path), {"old": np.zeros(3)})


def described(data: int = 8, **entry) -> bytes:
    header = json.dumps({"x": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} | entry}).encode()
    return len(header).to_bytes(8, "little") + header + bytes(data)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (described(data=7), "x .2. ends beyond its data; the file is cut short"),
        (described(data=9), "damaged or cut short"),
        (described()[:30], "damaged or cut short"),
        (described(shape=[3]), r"x \[3\] has 8 bytes"),
        (described(shape=[-2]), "a shape that is none"),
        (described(shape=[2.0]), "a shape that is none"),
        (described(shape="2"), "a shape that is none"),
        (described(shape=[2**40, 2**40]), "a shape that no memory holds"),
        (described(shape=[1] * 40), "a shape that no memory holds"),
        (described(data_offsets=[8, 0]), "has -8 bytes"),
        (described(data_offsets=[0]), "damaged"),
        (described(dtype="F8_E4M3"), "x is F8_E4M3; known here: F64, F32"),
        (described(dtype=[1]), "damaged"),
        ((3).to_bytes(8, "little") + b"{1}", "damaged"),
        ((10**5).to_bytes(8, "little") + b'{"a":' * 20_000, "damaged"),
    ],
)
def test_what_is_wrong_in_a_file_is_said(tmp_path, content, message):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=message) as error:
        open_tensors(path)
    assert str(path) in str(error.value) and len(str(error.value)) < 500


@hypothesis.given(data=st.data())
def test_no_damage_gives_more_than_one_clear_line(data, tmp_path_factory):
    path = tmp_path_factory.mktemp("damaged") / "model.safetensors"
    write_safetensors(path, [("a", np.arange(6.0).reshape(2, 3)), ("b", np.ones(3, np.int8))])
    content = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    path.write_bytes(content[:place])
    with pytest.raises(WeightsError, match="model.safetensors"):
        open_tensors(path)
    content[place] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content)
    try:
        read(path)
    except WeightsError as error:
        assert str(path) in str(error)


MEASURE = """
import re, sys
from pathlib import Path
import numpy as np
from singlestream.interop.files import open_tensors, write_safetensors
from singlestream.interop.params import read_params, write_params
from singlestream.interop.rules import LINEAR, Rule, Rules

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024

rules = Rules(rules=[Rule(ours=("layers/kernel",), theirs=("layer.{i}.weight",), layout=LINEAR)])
folder = Path(sys.argv[1])
tensors = open_tensors(folder / "model.safetensors")
before = peak()
for tensor in tensors.values():
    tensor.read()
read = peak() - before
params, _ = read_params(rules, tensors, {"layers/kernel": (25, 1024, 1024)}, where="model")
converted = peak() - before
write_safetensors(folder / "again.safetensors", write_params(rules, params))
print(read, converted, peak() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
def test_memory_stays_near_the_weights(tmp_path):
    """100 MB in 25 tensors: read one by one, converted, and written back."""
    arrays = ((f"layer.{i}.weight", np.full((1024, 1024), i, np.float32)) for i in range(25))
    write_safetensors(tmp_path / "model.safetensors", arrays)
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(tmp_path)], capture_output=True, text=True, check=True, cwd=ROOT
    )
    read_only, converted, written = map(float, done.stdout.split())
    assert read_only < 30, done.stdout
    assert converted < 130 and written < 130, done.stdout
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "model.safetensors").read_bytes()
