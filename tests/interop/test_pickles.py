"""A pickle is read and never run, whatever it holds, and cannot fill the memory."""

from __future__ import annotations

import builtins
import io
import operator
import os
import pickle
import struct
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

from singlestream.interop.files import open_tensors
from singlestream.interop.pickles import Global, Inert, read_pickle
from singlestream.interop.rules import WeightsError

from .test_torch_files import legacy


class Calls:
    """Pickled as a call of anything."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call

    def __call__(self):
        """Only that pickle takes it for what can be called."""


class Setter:
    """Runs when its state is set."""

    def __init__(self, marker: str):
        self.marker = marker

    def __setstate__(self, state):
        Path(state["marker"]).touch()


def attacks(marker: Path) -> dict[str, object]:
    touch = f"__import__('pathlib').Path({str(marker)!r}).touch()"
    return {
        "system": Calls(os.system, f"touch {marker}"),
        "eval": Calls(eval, touch),
        "nested": Calls(Calls(getattr, Calls(__import__, "os"), "system"), f"touch {marker}"),
        "state": Setter(str(marker)),
        "item": Calls(operator.methodcaller("touch"), marker),
        "numpy": Calls(Calls(getattr, np.zeros(1), "tofile"), str(marker)),
        "builtins": Calls(Calls(builtins.getattr, Calls(Path, str(marker)), "touch")),
    }


def zipped(path: Path, content: bytes) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/data.pkl", content)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("name", attacks(Path("x")))
def test_nothing_runs(tmp_path, name, protocol):
    marker, path = tmp_path / "marker", tmp_path / "model.pt"
    tree = {"state_dict": {"weight": np.arange(3.0)}, "more": [attacks(marker)[name]]}
    content = pickle.dumps(tree, protocol=protocol)
    zipped(path, content)
    assert open_tensors(path)["weight"].read().tolist() == [0, 1, 2]
    path.write_bytes(legacy() + content + pickle.dumps([], protocol=2))
    assert open_tensors(path)["weight"].read().tolist() == [0, 1, 2]
    assert not marker.exists()
    pickle.loads(content)
    assert marker.exists(), "Python's own reader runs it: else this proves nothing"


@pytest.mark.parametrize("place", range(5))
def test_nothing_runs_in_any_pickle_of_an_older_file(tmp_path, place):
    marker, path = tmp_path / "marker", tmp_path / "model.pt"
    values: list[object] = [0x1950A86A20F9469CFC6C, 1001, {}, {"x": 1}, []]
    values[place] = [attacks(marker)["system"]]
    path.write_bytes(b"".join(pickle.dumps(value, protocol=2) for value in values))
    with pytest.raises(WeightsError, match=r"model\.pt"):
        open_tensors(path)
    assert not marker.exists()


# Instructions that Python's pickle module reads but does not write.
@pytest.mark.parametrize(
    "program",
    [
        b"(cos\nsystem\nVtouch MARKER\no.",
        b"(Vtouch MARKER\nios\nsystem\n.",
        b"cos\nsystem\n(Vtouch MARKER\ntR.",
        b"cos\nsystem\nVtouch MARKER\n\x85\x81.",
        b"cos\nsystem\nVtouch MARKER\n\x85}\x92.",
        b"\x8c\x02os\x8c\x06system\x93\x8c\x0ctouch MARKER\x85R.",
        b"cos\nsystem\n(dVtouch MARKER\nb.",
        b"(ccos\nsystem\nVtouch MARKER\nQ.",
        b"\x82\x01.",
    ],
)
def test_instructions_that_nobody_writes(tmp_path, monkeypatch, program):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "model.pt"
    zipped(path, program)
    with pytest.raises(WeightsError):
        open_tensors(path)
    assert not (tmp_path / "MARKER").exists()


def test_plain_objects_come_back_and_others_are_inert():
    tree = {"a": [1, -5, 2**70, 1.5, None, True], "b": ("x", b"y", ()), "c": {3: {"d": "e"}}, "f": Path}
    for protocol in range(6):
        given = read_pickle(io.BytesIO(pickle.dumps(tree, protocol=protocol)), {}, Inert)
        assert isinstance(given.pop("f"), Global)
        if protocol < 3:  # bytes are a call there
            assert given["b"][1].name == "_codecs.encode"
            given["b"] = ("x", b"y", ())
        assert given == {key: value for key, value in tree.items() if key != "f"}


def test_what_is_built_twice_is_one_object():
    shared = [1]
    first, second = read_pickle(io.BytesIO(pickle.dumps([shared, shared])), {}, Inert)
    assert first is second


def bomb(doubling: bytes, levels: int = 200) -> bytes:
    """An object of 2 ** levels parts, each twice the one before."""
    return b"\x80\x02]" + doubling * levels


@pytest.mark.parametrize(
    "program",
    [
        bomb(b"2\x86") + b".",
        b"}(" + bomb(b"2\x86")[2:] + b"K\x01u.",
        b"}(X\x01\x00\x00\x00xctorch._utils\n_rebuild_tensor_v2\n(K\x00K\x00" + bomb(b"2\x86")[2:] + b")tRu.",
        bomb(b"2\x86") + b"X\x01\x00\x00\x00x\x93.",
        b"K\x01r\xff\xff\xff\x7f0.",  # a memo of 2 ** 31 places
        b"\x8e" + struct.pack("<Q", 2**50) + b".",
        b"\x95" + struct.pack("<Q", 2**60) + b"}.",
        b"(" * 5_000 + b".",
        b"]" * 5_000 + b"a" * 4_999 + b".",
        b"I" + b"9" * 1_000_000 + b"\n.",
    ],
)
def test_no_pickle_fills_the_memory(tmp_path, program):
    path = tmp_path / "model.pt"
    zipped(path, program)
    start = time.process_time()
    with pytest.raises(WeightsError) as error:
        open_tensors(path)
    assert len(str(error.value)) < 1000
    assert time.process_time() - start < 60
    with pytest.raises(WeightsError):
        path.write_bytes(legacy() + program)
        open_tensors(path)


def test_a_tensor_larger_than_its_file_is_refused(tmp_path):
    """A stride of 0 repeats one number."""
    path, size = tmp_path / "model.pt", 2**20
    rebuild = b"ctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000"
    rebuild += b"X\x03\x00\x00\x00cpuK\x01tQK\x00" + 2 * (b"J" + struct.pack("<i", size)) + b"\x86K\x00K\x00\x86\x89NtR"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/data.pkl", b"}X\x01\x00\x00\x00x" + rebuild + b"s.")
        archive.writestr("model/data/0", bytes(4))
    with pytest.raises(WeightsError, match=r"x claims to be \[1048576, 1048576\], more than the file holds"):
        open_tensors(path)
