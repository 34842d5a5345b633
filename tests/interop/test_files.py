"""Which file of a folder is opened, and what is said of those that are none."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from singlestream.interop.files import open_tensors, write_safetensors
from singlestream.interop.rules import WeightsError

TORCH = Path(__file__).resolve().parent.parent / "golden" / "torch"


def write(path: Path, **numbers: float) -> None:
    write_safetensors(path, [(name, np.full((2,), number, np.float32)) for name, number in numbers.items()])


def numbers(path) -> dict[str, float]:
    return {key: float(tensor.read()[0]) for key, tensor in open_tensors(path).items()}


def index(folder: Path, name: str, **places: str) -> None:
    (folder / name).write_text(json.dumps({"metadata": {"total_size": 8}, "weight_map": places}))


def test_the_first_known_name_of_a_folder_counts(tmp_path):
    write(tmp_path / "other.safetensors", a=5)
    write(tmp_path / "shard", a=4)
    index(tmp_path, "pytorch_model.bin.index.json", a="shard")
    assert numbers(tmp_path) == {"a": 4}
    write(tmp_path / "pytorch_model.bin", a=3)
    assert numbers(tmp_path) == {"a": 3}
    write(tmp_path / "shard", a=2)
    index(tmp_path, "model.safetensors.index.json", a="shard")
    assert numbers(tmp_path) == {"a": 2}
    write(tmp_path / "model.safetensors", a=1)
    assert numbers(tmp_path) == {"a": 1}


@pytest.mark.parametrize("ending", ["safetensors", "bin", "pth", "pt", "ckpt", "th"])
def test_any_single_file_is_taken_and_told_by_content(tmp_path, ending):
    (tmp_path / "config.json").write_text("{}")
    write(tmp_path / f"weights.{ending}", a=1)
    assert numbers(tmp_path) == numbers(str(tmp_path / f"weights.{ending}")) == {"a": 1}
    for name in ("zip.pt", "legacy.pt"):
        shutil.copy(TORCH / name, tmp_path / f"weights.{ending}")
        assert "whole" in open_tensors(tmp_path)


def test_a_model_in_several_files(tmp_path):
    write(tmp_path / "model-00001-of-00002.safetensors", a=1, b=2)
    shutil.copy(TORCH / "zip.pt", tmp_path / "model-00002-of-00002.bin")
    places = {"rows": "model-00002-of-00002.bin", "a": "model-00001-of-00002.safetensors"}
    index(tmp_path, "model.safetensors.index.json", **places)
    assert list(open_tensors(tmp_path)) == ["rows", "a"]
    assert open_tensors(tmp_path)["rows"].shape == (2, 6)
    index(tmp_path, "model.safetensors.index.json", c="model-00001-of-00002.safetensors", **places)
    with pytest.raises(WeightsError, match="promises what is not there: c in model-00001-of-00002.safetensors"):
        open_tensors(tmp_path)
    index(tmp_path, "model.safetensors.index.json", d="model-3.safetensors")
    with pytest.raises(WeightsError, match=r"names 'model-3\.safetensors', which is no file of its folder"):
        open_tensors(tmp_path)


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "", "..", ".", 3, None])
def test_an_index_names_files_of_its_own_folder(tmp_path, name):
    write(tmp_path / "secret", a=1)
    (tmp_path / "model").mkdir()
    index(tmp_path / "model", "model.safetensors.index.json", a=name)
    with pytest.raises(WeightsError, match=r"model\.safetensors\.index\.json"):
        open_tensors(tmp_path / "model")


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"weight_map": 3}', "[" * 100_000])
def test_an_index_that_is_none(tmp_path, text):
    (tmp_path / "pytorch_model.bin.index.json").write_text(text)
    with pytest.raises(WeightsError, match=r"pytorch_model\.bin\.index\.json is no index of weights"):
        open_tensors(tmp_path)


def test_several_files_are_listed(tmp_path):
    write(tmp_path / "b.bin", a=1)
    write(tmp_path / "a.pth", a=1)
    with pytest.raises(WeightsError, match=r"several files of weights \(a.pth, b.bin\); give the path of one"):
        open_tensors(tmp_path)


def test_a_folder_without_weights_and_a_path_without_anything(tmp_path):
    with pytest.raises(WeightsError, match="has no weights: none of model.safetensors, .*, no file \\*.safetensors"):
        open_tensors(tmp_path)
    with pytest.raises(WeightsError, match="nowhere: no such file or folder"):
        open_tensors(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n", "git lfs pull"),
        (b"<!DOCTYPE html><html>not found</html>", "no file of weights that is known here"),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), "no file of weights that is known here"),
        (b"PK\3\4 and no more", "damaged or cut short"),
        (b"\x80\x02}q\x00.", "not one that torch.save wrote"),
        (b"\x80", "damaged or cut short"),
        (bytes(1000), "no file of weights that is known here"),
    ],
)
def test_a_file_that_is_none(tmp_path, content, message):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=message) as error:
        open_tensors(tmp_path)
    assert str(path) in str(error.value)
