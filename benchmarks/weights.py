"""Reading published weights: seconds, and peak memory relative to the weights.

    python benchmarks/weights.py [--torch_python=~/torchenv/bin/python]

Writes a VisualBERT of base size (12 layers, width 768, random numbers) as transformers would, then reads it, each time
in a process of its own: its bytes alone, as a model here, and as transformers' model where its Python is given. Memory
is what reading adds to the process, seen every few milliseconds: its own (anonymous), and resident with the pages of
the file that are mapped, which the system takes back when it needs them.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

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


def status() -> dict[str, int]:
    """Bytes of this process by kind of memory."""
    lines = Path("/proc/self/status").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines if line.startswith(("VmRSS", "RssAnon")))
    return {name: int(value.split()[0]) * 1024 for name, value in fields.items()}


def measure(kind: str, path: Path) -> dict[str, float]:
    """Seconds, and what was added to the memory at most and in the end."""
    read = reader(kind, path)
    before, seen, done = status(), [], threading.Event()

    def watch() -> None:
        while not done.wait(0.003):
            seen.append(status())

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.perf_counter()
    kept = read()
    seconds = time.perf_counter() - start
    done.set()
    watcher.join()
    after = status()
    del kept
    peaks = {name: max(each[name] for each in [*seen, after]) - before[name] for name in before}
    return {
        "seconds": seconds,
        "own": peaks["RssAnon"],
        "resident": peaks["VmRSS"],
        "end": after["RssAnon"] - before["RssAnon"],
    }


# ---- the table -------------------------------------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--torch_python", default="", help="a Python with torch and transformers, for their row")
    parser.add_argument("--measure", nargs=2, metavar=("KIND", "FILE"), help="used by the script itself")
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(args.measure[0], Path(args.measure[1]))))
        return
    pythons = {"bytes": sys.executable, "ours": sys.executable}
    if args.torch_python:
        pythons["theirs"] = os.path.expanduser(args.torch_python)
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder))
        size = path.stat().st_size
        found: dict[str, list[dict[str, float]]] = {kind: [] for kind in pythons}
        for _ in range(args.rounds):  # in turn, so that whatever else the machine does meets all of them
            for kind, python in pythons.items():
                command = [python, __file__, "--measure", kind, str(path)]
                found[kind].append(json.loads(subprocess.run(command, check=True, capture_output=True).stdout))
    names = {"bytes": "the file's bytes, `numpy.fromfile`", "ours": "`singlestream.load`", "theirs": "transformers"}
    print(f"VisualBERT-base, {size / MIB:.0f} MiB; in the page cache; memory as multiples of the weights\n")
    print("| read as | seconds | own memory, peak | resident, peak | own memory, afterwards |")
    print("| --- | --- | --- | --- | --- |")
    for kind, rounds in found.items():
        seconds = [each["seconds"] for each in rounds]
        memory = (f"{max(each[name] for each in rounds) / size:.2f}" for name in ("own", "resident", "end"))
        spread = f"{statistics.median(seconds):.2f} ({min(seconds):.2f}-{max(seconds):.2f})"
        print(f"| {names[kind]} | {spread} | {' | '.join(memory)} |")


if __name__ == "__main__":
    main()
