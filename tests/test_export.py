"""An exported folder, run by a process that cannot import this package: the numbers are the model's own."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import export as jax_export

import singlestream as ss
from singlestream.data.sources import open_split
from singlestream.export import export
from singlestream.model.attention.config import AttentionConfig
from singlestream.model.heads import every_logits
from singlestream.model.single_stream import SingleStream
from singlestream.model.two_stream import TwoStream
from singlestream.model.two_stream_config import TwoStreamConfig
from singlestream.program import PLATFORMS, input_shapes, inputs_of, lower
from singlestream.train.errors import FolderError
from singlestream.train.loop import train
from singlestream.train.paths import path_of
from tests.model import toy
from tests.test_cli import program
from tests.train.conftest import one_device  # noqa: F401  (a fixture)
from tests.train.toy import toy_config

TOLERANCE = 2e-6  # of the largest value
QUESTIONS = ("what colour is it?", "is there a red square?", "how many circles are there?")

# What a service does: jax, numpy and json, in a process where the package and flax cannot be imported.
SERVICE = """
import json, sys
from importlib.abc import MetaPathFinder
from pathlib import Path

class Forbidden(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("singlestream", "flax", "optax", "orbax", "grain"):
            raise ImportError(f"{name} is forbidden here")

sys.meta_path.insert(0, Forbidden())

import jax
import numpy as np
from jax import export

folder = Path(sys.argv[1])
about = json.loads((folder / "export.json").read_text())
exported = export.deserialize(bytearray((folder / about["program"]).read_bytes()))
params = dict(np.load(folder / about["parameters"]))
call = jax.jit(exported.call)
for path in sys.argv[2:]:
    outputs = call(params, dict(np.load(path)))
    assert set(outputs) == set(about["outputs"])
    np.savez(path.replace(".npz", ".out.npz"), **outputs)
assert not {"singlestream", "flax"} & set(sys.modules)
"""


def random_module(make: Callable[[], nnx.Module]) -> nnx.Module:
    """A module of random numbers, made without compiling its initialisers."""
    graphdef, abstract = nnx.split(nnx.eval_shape(make))
    rng = np.random.default_rng(0)
    numbers = jax.tree.map(lambda leaf: jnp.asarray(0.2 * rng.normal(size=leaf.shape), leaf.dtype), abstract)
    return nnx.merge(graphdef, numbers)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ss.Model:
    """A model of random numbers with the heads `vqa` and `mlm`, and the processor of generated pictures."""
    config = toy_config(tmp_path_factory.mktemp("scenes"))
    processor = ss.Processor.build(config, open_split(config.data, "train"))
    heads = {
        "vqa": ss.HeadConfig(kind="classifier", size=len(processor.answers)),
        "mlm": ss.HeadConfig(kind="vocabulary", size=processor.spec.vocab_size, source="text"),
    }
    module = random_module(lambda: ss.SingleStream(config.model, processor.spec, heads=heads, rngs=nnx.Rngs(0)))
    return ss.Model(module=module, spec=processor.spec, processor=processor, config=config, step=1)


@pytest.fixture(scope="module")
def folder(model: ss.Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(model, tmp_path_factory.mktemp("exported") / "all")


def expected(model: ss.Model, batch: ss.Batch) -> dict[str, np.ndarray]:
    encoded = model(batch)
    # Compiled once for its shapes, where the head alone would compile each of its operations.
    logits = jax.jit(lambda encoded: {f"logits/{name}": head(encoded) for name, head in model.heads.items()})(encoded)
    return jax.device_get({"pooled": encoded.pooled, **logits})


def without_padding(outputs: dict[str, np.ndarray], batch: ss.Batch) -> dict[str, np.ndarray]:
    """What comes out for padding is arbitrary, and depends on how attention is computed."""
    words = batch.text.segments[..., None] > 0
    return {name: value * words if name == "logits/mlm" else value for name, value in outputs.items()}


def close(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> None:
    assert set(found) == set(wanted)
    for name, value in wanted.items():
        assert found[name].dtype == value.dtype == np.float32
        np.testing.assert_allclose(found[name], value, rtol=0, atol=TOLERANCE * np.abs(value).max(), err_msg=name)


def batches(model: ss.Model) -> Iterator[ss.Batch]:
    """One and three rows of one text; pictures of other sizes; two rows of two texts on one picture, and of one."""
    rng = np.random.default_rng(0)

    def picture(height: int, width: int) -> np.ndarray:
        return rng.integers(0, 256, (height, width, 3), np.uint8)

    yield model.processor.batch_of([picture(48, 48)], [QUESTIONS[0]])
    yield model.processor.batch_of([picture(48, 48), picture(16, 48), picture(32, 16)], list(QUESTIONS))
    source = open_split(model.config.data, "test")
    shared = model.processor.batch([model.processor.row([(source[i], source[i].texts[: 2 - i])]) for i in range(2)])
    assert shared.text.slots == 2 and shared.examples.shape[1] == 2
    yield shared
    image = ss.patchify(rng.integers(0, 256, (2, 32, 16, 3), np.uint8), 16)  # shorter in every direction
    yield ss.make_batch(text=ss.Text(ids=np.array([[2, 7, 3], [2, 3, 0]], np.int32)), image=image)


def serve(folder: Path, place: Path, inputs: list[dict[str, np.ndarray]]) -> list[dict[str, np.ndarray]]:
    paths = [place / f"{i}.npz" for i in range(len(inputs))]
    for path, arrays in zip(paths, inputs, strict=True):
        np.savez(path, **arrays)
    command = [sys.executable, "-c", SERVICE, str(folder), *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=place, env={**os.environ, "PYTHONPATH": ""})
    assert done.returncode == 0, done.stderr
    return [dict(np.load(path.with_name(f"{i}.out.npz"))) for i, path in enumerate(paths)]


@pytest.mark.slow
def test_a_service_without_the_package_gets_the_models_numbers(model, folder, tmp_path):
    given = list(batches(model))
    for found, batch in zip(serve(folder, tmp_path, [inputs_of(b) for b in given]), given, strict=True):
        close(without_padding(found, batch), without_padding(expected(model, batch), batch))


def test_the_program_is_lowered_for_all_platforms(folder):
    """That it runs on cuda and tpu is not verified here; that it holds nothing only a CPU has, is."""
    exported = jax_export.deserialize(bytearray((folder / "program.jax_export").read_bytes()))
    assert exported.platforms == PLATFORMS == ("cpu", "cuda", "tpu")
    targets = set(re.findall(r"custom_call @([\w.]+)", exported.mlir_module()))
    assert targets == {"shape_assertion"}
    assert exported.nr_devices == 1


def test_the_description_says_what_the_program_takes_and_gives(model, folder):
    about = json.loads((folder / "export.json").read_text())
    assert about["inputs"].keys() == inputs_of(next(batches(model))).keys()
    assert about["inputs"]["text/ids"] == {"dtype": "int32", "shape": ["b", "t"]}
    assert about["inputs"]["image/pixels"] == {"dtype": "uint8", "shape": ["b", "n", 768]}
    answers = len(model.answers)
    assert about["outputs"]["logits/vqa"] == {"dtype": "float32", "shape": ["b", "k", answers]}
    assert about["outputs"]["logits/mlm"] == {"dtype": "float32", "shape": ["b", "t", model.spec.vocab_size]}
    assert about["outputs"]["pooled"] == {"dtype": "float32", "shape": ["b", "k", 16]}
    assert about["answers"] == list(model.answers) and about["heads"]["vqa"]["size"] == answers
    assert about["spec"]["mask_id"] == model.spec.mask_id and about["step"] == 1
    assert about["spec"]["vocab_size"] == model.spec.vocab_size == len((folder / "vocab.txt").read_text().splitlines())
    assert about["model"]["patch_size"] == 16 and about["preparation"]["text_length"] == 16
    assert set(about["versions"]) == {"singlestream", "jax", "jaxlib"}


def test_parameters_lie_beside_the_program_once(model, folder):
    arrays = np.load(folder / "parameters.npz")
    wanted = {path_of(keys): leaf for keys, leaf in jax.tree_util.tree_leaves_with_path(model.params)}
    assert set(arrays) == set(wanted)
    for name, value in wanted.items():
        np.testing.assert_array_equal(arrays[name], value)


def test_only_some_heads(model, tmp_path):
    folder = export(model, tmp_path / "vqa", platforms=["cpu"], heads=["vqa"])
    about = json.loads((folder / "export.json").read_text())
    assert set(about["outputs"]) == {"pooled", "logits/vqa"} and about["platforms"] == ["cpu"]
    assert not any(name.startswith("heads/mlm") for name in np.load(folder / "parameters.npz"))
    assert "mlm" in model.heads  # the model itself keeps its heads
    batch = next(batches(model))
    wanted = expected(model, batch)
    del wanted["logits/mlm"]
    close(serve(folder, tmp_path, [inputs_of(batch)])[0], wanted)


SINGLE = {
    "conv": dict(
        image_stem="conv", patch_size=8, patch_margin=1, text_positions="sinusoidal", image_positions="sincos2d"
    ),
    "regions": dict(image_stem="regions", image_positions="boxes", norm="post", embed_norm=True, pooler=True),
    "vilt": dict(
        modality="pictures", image_cls=True, text_norm=True, position_resize="corners", image_positions="learned"
    ),
    "scanned": dict(layers="scan", pooling="mean"),
    "bfloat16": dict(dtype="bfloat16"),
    "decoder": dict(decoder_layers=1),
}


def pairs_of_regions(seed: int) -> ss.Batch:
    """Three rows of two examples each, a text of three tokens and four regions an example."""
    rng = np.random.default_rng(seed)
    segments = np.repeat([[1, 2]], 3, axis=0).astype(np.int32)
    boxes = np.sort(rng.random((3, 8, 4), np.float32), axis=-1)
    return ss.make_batch(
        text=ss.Text(ids=rng.integers(5, 40, (3, 6), np.int32), segments=segments.repeat(3, 1)),
        image=ss.Regions(
            features=rng.normal(size=(3, 8, 6)).astype(np.float32), boxes=boxes, segments=segments.repeat(4, 1)
        ),
    )


def agree(module: nnx.Module, batch: ss.Batch) -> None:
    exported, params = lower(module)
    assert exported.platforms == PLATFORMS
    graphdef, state = nnx.split(module)

    @jax.jit
    def run(state, batch):
        model = nnx.merge(graphdef, state)
        encoded, logits = every_logits(model, batch)
        logits = {f"logits/{name}": value for name, value in logits.items()}
        return {"pooled": encoded.pooled.astype(np.float32), **logits}

    wanted = jax.device_get(run(state, batch))
    close(jax.device_get(jax.jit(exported.call)(params, inputs_of(batch))), wanted)


@pytest.mark.slow
@pytest.mark.parametrize("changes", SINGLE.values(), ids=SINGLE)
def test_other_single_streams(changes):
    config = toy.replace(toy.CONFIG, region_dim=6, **changes)
    heads = toy.HEADS if config.dtype == "float32" else {"vqa": toy.HEADS["vqa"]}
    heads = heads | toy.WRITER if config.decoder_layers else heads
    module = random_module(lambda: ss.SingleStream(config, toy.SPEC, heads=heads, rngs=nnx.Rngs(0)))
    regions = config.image_stem == "regions"
    batch = pairs_of_regions(0) if regions else toy.random_batch(0, rows=3, text=6, window=config.window)
    agree(module, batch)


@pytest.mark.parametrize("size", ["lxmert_tiny", pytest.param("vilbert", marks=pytest.mark.slow)])
def test_two_streams_and_a_head_that_reads_pairs(size):
    small = dict(width=24, image_width=24, cross_width=24, num_heads=2, image_heads=2, cross_heads=2, mlp_dim=32)
    few = dict(num_layers=2, image_layers=1, cross_after_text=(1,), cross_after_image=(1,), image_mlp_dim=32)
    config = TwoStreamConfig.named(size, **small, **few, region_dim=6, max_text_length=16)
    heads = {"nlvr2": ss.HeadConfig(size=2, source="pairs"), "mlm": toy.HEADS["mlm"]}
    module = random_module(lambda: TwoStream(config, toy.SPEC, heads=heads, rngs=nnx.Rngs(0)))
    agree(module, pairs_of_regions(1))
    inputs = input_shapes(module)
    assert [str(size) for size in inputs["examples"].shape] == ["b", "2*k", "2"]


def test_weights_that_came_without_a_vocabulary(tmp_path):
    config = toy.replace(toy.CONFIG, region_dim=6, **SINGLE["regions"])
    module = random_module(lambda: ss.SingleStream(config, toy.SPEC, heads=toy.HEADS, rngs=nnx.Rngs(0)))
    model = ss.Model(module=module, spec=toy.SPEC, processor=None, config=None)
    folder = export(model, tmp_path / "out", platforms=["tpu"], heads=[])
    assert {path.name for path in folder.iterdir()} == {"program.jax_export", "parameters.npz", "export.json"}
    about = json.loads((folder / "export.json").read_text())
    assert about["preparation"] is None and about["answers"] == [] and set(about["outputs"]) == {"pooled"}
    assert about["inputs"]["image/features"] == {"dtype": "float32", "shape": ["b", "n", 6]}
    assert about["platforms"] == ["tpu"] and about["spec"]["vocab_size"] == 40


def test_what_export_refuses(model, tmp_path):
    with pytest.raises(ss.ConfigError, match="platform 'tpuv4': choose from cpu, cuda, tpu"):
        export(model, tmp_path / "a", platforms=["cpu", "tpuv4"])
    with pytest.raises(ss.ConfigError, match="no head caption: this model has mlm, vqa"):
        export(model, tmp_path / "a", heads=["caption"])
    with pytest.raises(FolderError, match="exists already"):
        export(model, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_model_that_reads_edges_is_not_exported():
    config = toy.replace(toy.CONFIG, attention=AttentionConfig(selection="graph", graph="edges"))
    module = nnx.eval_shape(lambda: SingleStream(config, toy.SPEC, rngs=nnx.Rngs(0)))
    with pytest.raises(ValueError, match="graph='edges': a model that reads edges is not exported"):
        lower(module)


# ---- the command -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(one_device: None, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: F811
    """A run of one step."""
    base = tmp_path_factory.mktemp("export")
    config = toy_config(base / "scenes", model={"num_layers": 1}, num_steps=1, eval_every=1, checkpoint_every=1)
    train(dataclasses.replace(config, objectives={"vqa": 1.0}), base / "run")
    return base / "run"


def command(*flags: str, **options) -> subprocess.CompletedProcess[str]:
    return program("-m", "singlestream", *flags, **options)


def said(done: subprocess.CompletedProcess[str], name: str = "singlestream export") -> str:
    """The one line on standard error of a command that failed."""
    assert done.returncode == 1 and done.stdout == "", done.stdout + done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == 1 and lines[0].startswith(f"{name}: "), done.stderr
    return lines[0].removeprefix(f"{name}: ")


def test_the_command_writes_what_the_function_writes(run, tmp_path):
    folder = export(ss.load(run), tmp_path / "by function")
    done = command("export", f"--workdir={run}", f"--output={tmp_path / 'new' / 'out'}")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"wrote {tmp_path / 'new' / 'out'} (step 1, for cpu, cuda, tpu)\n" and done.stderr == ""
    names = sorted(path.name for path in folder.iterdir())
    assert sorted(path.name for path in (tmp_path / "new" / "out").iterdir()) == names
    for name in ("export.json", "parameters.npz", "vocab.txt", "answers.json"):
        assert (tmp_path / "new" / "out" / name).read_bytes() == (folder / name).read_bytes(), name
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["out"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ((), "--workdir is missing (--help shows all flags)"),
        (("--workdir={run}",), "--output is missing (--help shows all flags)"),
        (("--workdir={tmp}", "--output={tmp}/out"), "{tmp} is not a run's folder"),
        pytest.param(("--workdir={tmp}/no", "--output={tmp}/out"), "{tmp}/no: no such", marks=pytest.mark.slow),
        (("--workdir={run}", "--output={tmp}/out", "--checkpoint=7"), "no checkpoint '7' in {run}/checkpoints"),
        (("--workdir={run}", "--output={tmp}/out", "--head=vqa,caption"), "no head caption: this model has vqa"),
        (("--workdir={run}", "--output={tmp}/out", "--platforms=gpu"), "platform 'gpu': choose from cpu, cuda, tpu"),
        pytest.param(
            ("--workdir={run}", "--output={tmp}/out", "--platforms="),
            "platform '': choose from cpu, cuda, tpu",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            ("--workdir={run}", "--output={tmp}"),
            "{tmp} exists already; an export overwrites nothing",
            marks=pytest.mark.slow,
        ),
        (("--workdir={run}", "--output=/proc/out"), "/proc/out cannot be written: No such file or directory"),
        (("--workdir={run}", "--output={tmp}/out", "more"), "unexpected argument 'more'"),
        (("--outptu={tmp}/out",), "Unknown command line flag 'outptu'"),
    ],
)
def test_mistakes_get_one_line(run, tmp_path, flags, message):
    done = command("export", *(flag.format(run=run, tmp=tmp_path) for flag in flags))
    assert said(done).startswith(message.format(run=run, tmp=tmp_path))
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_disk_that_is_full_and_a_folder_that_is_read_only(run, tmp_path):
    """Nothing is left, neither half a folder nor a file beside it."""
    flags = ("export", f"--workdir={run}", f"--output={tmp_path / 'place' / 'out'}")
    (tmp_path / "place").mkdir()
    for limit in (10, 20_000):  # within the first array's header, within a later array
        assert said(command(*flags, limit=limit)) == f"{tmp_path / 'place' / 'out'} cannot be written: File too large"
    (tmp_path / "place").chmod(0o555)
    try:
        found = said(command(*flags, read_only=True))
    finally:
        (tmp_path / "place").chmod(0o755)
    assert found == f"{tmp_path / 'place' / 'out'} cannot be written: Permission denied"
    assert not list((tmp_path / "place").iterdir())


def test_the_command_says_how_it_is_called():
    assert said(command(), "singlestream").startswith("usage: singlestream export --workdir=RUN --output=FOLDER")
    assert said(command("exprot"), "singlestream").startswith("no command 'exprot'; usage: singlestream export")
    assert command("--help").stdout.startswith("usage: singlestream export")
    flags = command("export", "--help").stdout
    assert all(f"--{name}:" in flags for name in ("workdir", "output", "checkpoint", "platforms", "head"))
