"""Files that torch itself wrote are read without torch: both formats, every layout of numbers, and what is damaged."""

from __future__ import annotations

import io
import os
import pickle
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import hypothesis
import ml_dtypes
import numpy as np
import pytest
from hypothesis import strategies as st

from singlestream.interop.files import open_tensors
from singlestream.interop.rules import WeightsError

from .write_torch import DTYPES, FILES, VIEWS, write

GOLDEN = Path(__file__).resolve().parent.parent / "golden" / "torch"
BASE = np.arange(24, dtype=np.float32).reshape(4, 6) / 8


@pytest.fixture(scope="module", params=["golden", "written now"])
def folder(request, tmp_path_factory):
    """The files of `write_torch`: as they lie in the repository and, where torch is, as it writes them today."""
    if request.param == "golden":
        return GOLDEN
    pytest.importorskip("torch")
    path = tmp_path_factory.mktemp("torch")
    write(path)
    return path


def dtype_of(name: str) -> np.dtype:
    return np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name)


@pytest.mark.parametrize("name", ["zip.pt", "legacy.pt"])
def test_every_tensor_is_read_exactly(folder, name):
    tensors = open_tensors(folder / name)
    expected = {view: change(BASE) for view, change in VIEWS.items()}
    expected |= {dtype: np.arange(6).astype(dtype_of(dtype)) for dtype in DTYPES}
    expected["parameter"] = np.ones(3, np.float32)
    expected["expanded"] = np.tile(np.arange(3, dtype=np.float32), (2, 1))
    assert list(tensors) == list(expected)
    for key, array in expected.items():
        assert (tensors[key].shape, tensors[key].dtype) == (array.shape, array.dtype), key
        given = tensors[key].read()
        assert given.flags.c_contiguous and given.flags.writeable
        np.testing.assert_array_equal(given, array, strict=True, err_msg=key)


def test_the_state_dict_is_taken_out_of_what_a_trainer_saved(folder):
    tensors = open_tensors(folder / "lightning.ckpt")
    given = {key: tensor.read() for key, tensor in tensors.items()}
    np.testing.assert_equal(given, {"weight": np.full((2, 3), 0.25), "bias": -np.ones(2)})


def test_arrays_of_numpy_are_read(folder):
    tensors = open_tensors(folder / "numpy.pt")
    expected = {
        "a": np.arange(6.0).reshape(2, 3),
        "b": np.arange(6, dtype=np.int32).reshape(2, 3),
        "c": np.float32(1.5),
    }
    assert tensors.keys() == expected.keys()
    for key, array in expected.items():
        assert tensors[key].shape == array.shape
        np.testing.assert_array_equal(tensors[key].read(), array, strict=True, err_msg=key)


def test_reading_imports_no_torch(folder):
    code = (
        "import sys; from singlestream.interop.files import open_tensors\n"
        f"for name in {FILES!r}: [t.read() for t in open_tensors({str(folder)!r} + '/' + name).values()]\n"
        "assert not {'torch', 'write_torch', 'tests'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=GOLDEN.parents[2])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda torch: torch.ones(2, 2).to_sparse(), "x is a tensor made by torch._utils._rebuild_sparse_tensor"),
        (lambda torch: torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8), "kind torch.QInt8Storage"),
        (lambda torch: torch.ones(2, dtype=torch.complex64), "kind torch.ComplexFloatStorage"),
        (lambda torch: torch.ones(2, dtype=torch.complex64).conj().imag, "x is a tensor made by .* negated"),
        (lambda torch: torch.ones(2, device="meta"), "x is a tensor made by torch._utils._rebuild_meta_tensor"),
        (lambda torch: torch.nn.Linear(2, 2), "has no tensors by name .* it has x"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_other_tensors_are_refused_by_name(tmp_path, make, message):
    torch = pytest.importorskip("torch")
    torch.save({"x": make(torch)}, tmp_path / "pytorch_model.bin")
    with pytest.raises(WeightsError, match=message):
        open_tensors(tmp_path)


def test_a_whole_model_is_refused_by_the_name_of_its_class(tmp_path):
    torch = pytest.importorskip("torch")
    for zipped in (True, False):
        torch.save(torch.nn.Linear(2, 2), tmp_path / "model.pt", _use_new_zipfile_serialization=zipped)
        with pytest.raises(WeightsError, match=r"holds an object of torch.nn.modules.linear.Linear; .* state_dict\(\)"):
            open_tensors(tmp_path)


def test_attributes_of_tensors_are_left(tmp_path):
    torch = pytest.importorskip("torch")
    tensor, parameter = torch.arange(3.0), torch.nn.Parameter(torch.ones(2))
    tensor.note = parameter.note = "from elsewhere"
    torch.save({"tensor": tensor, "parameter": parameter}, tmp_path / "model.pt")
    given = {key: value.read() for key, value in open_tensors(tmp_path).items()}
    np.testing.assert_equal(given, {"tensor": np.arange(3.0), "parameter": np.ones(2)})


def rewrite(path: Path, change) -> None:
    """Packs the parts of zip.pt anew: `change` takes and returns {name: bytes}."""
    with zipfile.ZipFile(GOLDEN / "zip.pt") as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in change(parts).items():
            archive.writestr(name, data)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda parts: parts | {"zip/byteorder": b"big"}, "big-endian"),
        (lambda parts: {name: data for name, data in parts.items() if "data.pkl" not in name}, "without data.pkl"),
        (
            lambda parts: {name: data for name, data in parts.items() if name != "zip/data/0"},
            "numbers of whole are mis",
        ),
        (lambda parts: parts | {"zip/data/0": parts["zip/data/0"][:-1]}, r"whole \[4, 6\] ends beyond its data"),
        (lambda parts: parts | {"zip/data.pkl": parts["zip/data.pkl"][:-9]}, "damaged or cut short"),
    ],
)
def test_what_is_wrong_in_a_zip_file_is_said(tmp_path, change, message):
    path = tmp_path / "model.pt"
    rewrite(path, change)
    with pytest.raises(WeightsError, match=message) as error:
        open_tensors(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path):
    path = tmp_path / "model.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("zip/data.pkl", "w") as part:
            for _ in range(50):
                part.write(bytes(2**20))
    assert path.stat().st_size < 100_000
    with pytest.raises(WeightsError, match="zip/data.pkl is compressed"):
        open_tensors(path)


@pytest.mark.parametrize("name", FILES)
@hypothesis.given(data=st.data())
def test_no_damage_gives_more_than_one_clear_line(name, data, tmp_path_factory):
    content = (GOLDEN / name).read_bytes()
    length = data.draw(st.integers(0, len(content) - 1))
    path = tmp_path_factory.mktemp("damaged") / name
    path.write_bytes(content[:length])
    with pytest.raises(WeightsError, match=name):
        open_tensors(path)
    # A flipped bit may lie in a number, or in a name; whatever else it hits is one error of the same kind.
    flipped = bytearray(content)
    flipped[length] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(flipped)
    try:
        for tensor in open_tensors(path).values():
            tensor.read()
    except WeightsError as error:
        assert str(path) in str(error)


def test_a_file_that_shrinks_while_it_is_read(tmp_path):
    path = tmp_path / "model.pt"
    path.write_bytes((GOLDEN / "zip.pt").read_bytes())
    tensors = open_tensors(path)
    os.truncate(path, 100)
    with pytest.raises(WeightsError, match="became shorter"):
        tensors["whole"].read()
    path.unlink()
    with pytest.raises(WeightsError, match="cannot be read"):
        tensors["whole"].read()


def legacy(*pickles: object, numbers: bytes = b"") -> bytes:
    file = io.BytesIO()
    for value in (0x1950A86A20F9469CFC6C, 1001, {}, *pickles):
        pickle.dump(value, file, protocol=2)
    return file.getvalue() + numbers


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pickle.dumps({"a": 1}), "a pickle, but not one that torch.save wrote"),
        (legacy([1, 2], []), "holds a list; expected a state dict"),
        (legacy({"step": 1, "model": {}}, []), "it has step, model"),
        (legacy({}, ["0"], numbers=struct.pack("<q", 2**40)), "numbers that no tensor has"),
        (legacy({}, [("0",)], numbers=bytes(8)), "numbers that no tensor has"),
    ],
)
def test_what_is_wrong_in_an_older_file_is_said(tmp_path, content, message):
    path = tmp_path / "pytorch_model.bin"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=message):
        open_tensors(tmp_path)
