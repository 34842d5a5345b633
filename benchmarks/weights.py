"""Published weights of BERT-base's size: seconds and peak memory of reading, and the whole path there and back.

    python benchmarks/weights.py [--torch_python=~/torchenv/bin/python]

Writes a VisualBERT of base size (12 layers, width 768, random numbers) as transformers would, then reads it, each time
in a process of its own: its bytes alone, as a model here, and as transformers' model where its Python is given. Memory
is what reading adds to the process, seen every few milliseconds: its own (anonymous), and resident with the pages of
the file that are mapped, which the system takes back when it needs them.

With transformers' Python, models of three families go the whole path, too (`round_trip.py`): transformers writes them,
they are read, run and written here, and transformers opens them again.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import round_trip
from alternate import spread
from memory import measured

ROOT = Path(__file__).resolve().parent.parent
WIDTH, LAYERS, MLP, VOCABULARY, REGION = 768, 12, 3072, 30522, 2048
SETTINGS = {
    "architectures": ["VisualBertForPreTraining"],
    "model_type": "visual_bert",
    "visual_embedding_dim": REGION,
}
MIB = 2**20


def shapes() -> Iterator[tuple[str, tuple[int, ...]]]:
    """Every key of `VisualBertForPreTraining` but those tied to others."""

    def linear(name: str, features_in: int, features_out: int) -> Iterator[tuple[str, tuple[int, ...]]]:
        yield from ((f"{name}.weight", (features_out, features_in)), (f"{name}.bias", (features_out,)))

    def norm(name: str) -> Iterator[tuple[str, tuple[int, ...]]]:
        yield from ((f"{name}.weight", (WIDTH,)), (f"{name}.bias", (WIDTH,)))

    embeddings = "visual_bert.embeddings"
    tables = {"word": VOCABULARY, "position": 512, "token_type": 2, "visual_token_type": 2, "visual_position": 512}
    for name, rows in tables.items():
        yield f"{embeddings}.{name}_embeddings.weight", (rows, WIDTH)
    yield from norm(f"{embeddings}.LayerNorm")
    yield from linear(f"{embeddings}.visual_projection", REGION, WIDTH)
    for i in range(LAYERS):
        layer = f"visual_bert.encoder.layer.{i}"
        for name in ("self.query", "self.key", "self.value", "output.dense"):
            yield from linear(f"{layer}.attention.{name}", WIDTH, WIDTH)
        yield from norm(f"{layer}.attention.output.LayerNorm")
        yield from linear(f"{layer}.intermediate.dense", WIDTH, MLP)
        yield from linear(f"{layer}.output.dense", MLP, WIDTH)
        yield from norm(f"{layer}.output.LayerNorm")
    yield from linear("visual_bert.pooler.dense", WIDTH, WIDTH)
    yield "cls.predictions.bias", (VOCABULARY,)
    yield from linear("cls.predictions.transform.dense", WIDTH, WIDTH)
    yield from norm("cls.predictions.transform.LayerNorm")
    yield from linear("cls.seq_relationship", WIDTH, 2)


def write(folder: Path) -> Path:
    """The folder's `model.safetensors` (a JSON header behind its length, then the numbers) and `config.json`."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for key, shape in shapes():
        start, end = end, end + 4 * int(np.prod(shape))
        header[key] = {"dtype": "F32", "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    rng = np.random.default_rng(0)
    path = folder / "model.safetensors"
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for _, shape in shapes():
            file.write((0.02 * rng.standard_normal(shape, np.float32)).tobytes())
    (folder / "config.json").write_text(json.dumps(SETTINGS))
    return path


# ---- one reading, in a process of its own ----------------------------------------------------------------------------


def reader(kind: str, path: Path) -> Callable[[], object]:
    """What is timed; imports and the start of the backend are not."""
    if kind == "bytes":
        return lambda: np.fromfile(path, np.uint8)
    if kind == "theirs":
        from transformers import VisualBertForPreTraining

        def load_theirs() -> object:
            model = VisualBertForPreTraining.from_pretrained(path.parent)
            # It maps the file; each number is looked at once, so that it has been read as it has been here.
            return model, [float(parameter.detach().sum()) for parameter in model.parameters()]

        return load_theirs
    sys.path.insert(0, str(ROOT))
    import jax

    from singlestream.loading import load

    jax.block_until_ready(jax.numpy.zeros(()))
    return lambda: jax.block_until_ready(load(path.parent).params)


# ---- the tables ------------------------------------------------------------------------------------------------------


def child(*command: str) -> dict[str, Any]:
    """What a process of its own prints as JSON.

    Raises:
        RuntimeError: it failed; the message carries its last lines.
    """
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout)


def peaks(rounds: Sequence[Mapping[str, float]], size: int) -> str:
    """Cells of memory, the most of all rounds, as multiples of the weights."""
    return " | ".join(f"{max(each[name] for each in rounds) / size:.2f}" for name in ("own", "resident", "end"))


def print_reading(pythons: Mapping[str, str], rounds: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder))
        size = path.stat().st_size
        found: dict[str, list[dict[str, float]]] = {kind: [] for kind in pythons}
        for _ in range(rounds):  # in turn, so that whatever else the machine does meets all of them
            for kind, python in pythons.items():
                found[kind].append(child(python, __file__, "--measure", kind, str(path)))
    names = {"bytes": "the file's bytes, `numpy.fromfile`", "ours": "`singlestream.load`", "theirs": "transformers"}
    print(f"VisualBERT-base, {size / MIB:.0f} MiB; in the page cache; memory as multiples of the weights\n")
    print("| read as | seconds | own memory, peak | resident, peak | own memory, afterwards |")
    print("| --- | --- | --- | --- | --- |")
    for kind, each in found.items():
        print(f"| {names[kind]} | {spread([one['seconds'] for one in each])} | {peaks(each, size)} |", flush=True)


STEPS = {"read": "seconds", "forward pass": "forward", "write": "save"}
Rounds = Sequence[Mapping[str, Any]]


def seconds_rows(name: str, ours: Rounds, theirs: Rounds) -> Iterator[str]:
    """A row a step, both sides and the ratio within a round."""
    for step, key in STEPS.items():
        columns = [[each[key] for each in side] for side in (ours, theirs)]
        ratios = [b / a for a, b in zip(*columns, strict=True)]
        yield f"| {name} | {step} | {' | '.join(map(spread, [*columns, ratios]))} |"
    yield f"| {name} | first forward pass, with compilation | {spread([each['first'] for each in ours])} | | |"


def check_row(name: str, ours: Rounds, theirs: Rounds, size: int) -> str:
    """The worst of all rounds."""
    problems = sorted({problem for each in theirs for problem in each["problems"]})
    cells = (
        name,
        f"{ours[0]['parameters'] / 1e6:.1f}",
        f"{size / MIB:.0f}",
        peaks(ours, size),
        f"{max(each['difference'] for each in ours):.1e}",
        f"{max(each['other_argmax'] for each in ours)} of {ours[0]['vectors']}",
        f"{min(each['equal'] for each in theirs)} of {theirs[0]['tensors']}",
        ", ".join(problems) or "none",
    )
    return f"| {' | '.join(cells)} |"


def print_whole_path(torch_python: str, rounds: int) -> None:
    checks = []
    print("\nThe whole path, seconds; ratio: transformers' over ours, round by round\n")
    print("| model | step | ours | transformers | ratio |")
    print("| --- | --- | --- | --- | --- |")
    for family, name in round_trip.NAMES.items():
        with tempfile.TemporaryDirectory() as folder:
            step = functools.partial(whole_path_step, family=family, folder=folder)
            size = step(torch_python, "make")["bytes"]
            pairs = [(step(sys.executable, "ours"), step(torch_python, "theirs")) for _ in range(rounds)]
        ours, theirs = zip(*pairs, strict=True)
        print("\n".join(seconds_rows(name, ours, theirs)), flush=True)
        checks.append(check_row(name, ours, theirs, size))
    print("\nMemory of reading; the largest difference from transformers' logits, relative to the largest value; after")
    print("the way back, tensors equal bit for bit, and keys missing, unexpected or left over\n")
    print(
        "| model | parameters, millions | weights, MiB | own memory, peak | resident, peak | own memory, afterwards | "
        "difference | other argmax | equal | keys |"
    )
    print("| --- " * 10 + "|")
    print("\n".join(checks))


def whole_path_step(python: str, step: str, *, family: str, folder: str) -> dict[str, Any]:
    return child(python, str(Path(round_trip.__file__)), step, family, folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--torch_python", default="", help="a Python with torch and transformers, for their side")
    parser.add_argument("--measure", nargs=2, metavar=("KIND", "FILE"), help="used by the script itself")
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measured(reader(args.measure[0], Path(args.measure[1])))[1]))
        return
    pythons = {"bytes": sys.executable, "ours": sys.executable}
    if args.torch_python:
        pythons["theirs"] = os.path.expanduser(args.torch_python)
    print_reading(pythons, args.rounds)
    if args.torch_python:
        print_whole_path(pythons["theirs"], args.rounds)


if __name__ == "__main__":
    main()
