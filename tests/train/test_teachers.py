"""A run that learns from published models: from their folders at the start, from its own folder ever after."""

from __future__ import annotations

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest

import singlestream as ss
from singlestream.config import Config, ConfigError, MeshConfig
from singlestream.data.pipeline import train_iterator
from singlestream.data.record import DataError
from singlestream.data.text import Tokenizer
from singlestream.evaluate import evaluate
from singlestream.interop import training
from singlestream.interop.build import by_path, read
from singlestream.train import checkpoint, loop
from singlestream.train.build import build_run
from singlestream.train.errors import FolderError, Interrupted
from singlestream.train.folder import RunFolder
from singlestream.train.initial import initial_tokenizer
from singlestream.train.teachers import fill_teachers, keep_teachers, kept_teachers, read_teachers
from tests.interop.toy_unimodal import write_bert_model, write_vit_model
from tests.interop.toy_vilt import write_vilt

from .test_step import compiled, curve
from .toy import stopped_at, toy_config

pytestmark = pytest.mark.slow

NAME = "distill_unimodal"
IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    base = tmp_path_factory.mktemp("published")
    return {"text": write_bert_model(base / "bert"), "image": write_vit_model(base / "vit", **IMAGENET)}


def learning(scenes, folders, **train) -> Config:
    """The toy run with teachers of words and patches."""
    base = toy_config(scenes, model={"num_layers": 1}, schedule="constant", **train)
    options = {name: str(folder) for name, folder in folders.items()}
    return dataclasses.replace(
        base,
        data=dataclasses.replace(base.data, texts="captions", text_length=24),
        objectives={"mlm": 0.5, NAME: 1.0},
        objective_options={NAME: {**options, "words": True}},
    )


def test_a_run_goes_on_bit_for_bit_without_the_folders(scenes, folders, tmp_path, one_device, compiled_once, capsys):
    moved = {name: shutil.copytree(folder, tmp_path / name) for name, folder in folders.items()}
    config = learning(scenes, moved, accumulate=2)
    loop.train(config, tmp_path / "whole", training)
    assert f"{NAME}.text learns from {moved['text']} (bert, transformers)" in capsys.readouterr().out
    with stopped_at(4), pytest.raises(Interrupted):
        loop.train(config, tmp_path / "stopped", training)
    for folder in moved.values():
        shutil.rmtree(folder)
    loop.train(config, tmp_path / "stopped", training)
    whole, stopped = (checkpoint.read_state(tmp_path / name / "checkpoints", 8) for name in ("whole", "stopped"))
    jax.tree.map(np.testing.assert_array_equal, whole, stopped)

    kept = whole["objectives"][NAME]
    theirs = {name: by_path(read(folder)[0]) for name, folder in folders.items()}
    for name, path in (("text", "embed/text/token/embedding"), ("image", "embed/cls/position")):
        mine = kept[name]
        for key in path.split("/"):
            mine = mine[key]
        np.testing.assert_array_equal(mine, theirs[name][path])  # nothing trains them
    found = evaluate(tmp_path / "whole", split="test")
    terms = [found[f"{NAME}/{name}_loss"] for name in ("text", "image", "words")]
    assert np.isfinite(terms).all()
    assert (
        ss.load(tmp_path / "stopped").processor.tokenizer.vocabulary
        == Tokenizer.from_folder(folders["text"]).vocabulary
    )


def test_on_several_devices_the_losses_are_the_same(scenes, folders, tmp_path):
    """The teachers' parameters are split as the model's are."""
    config = learning(scenes, folders)
    (tmp_path / "run").mkdir()
    run = build_run(config, RunFolder.at(tmp_path / "run"), training)
    iterator = train_iterator(run.source, run.processor, batch_size=8, seed=0)
    batches = [next(iterator) for _ in range(3)]
    found = []
    for mesh_config in (MeshConfig(data=1), MeshConfig(data=2, fsdp=2)):
        step, start, _, mesh = compiled(run, mesh_config)
        state = start()
        fill_teachers(state["objectives"], config, training)
        found.append(curve(step, state, batches, mesh)[1])
    np.testing.assert_allclose(*found, rtol=1e-5)


def test_what_a_run_keeps_of_its_teachers(scenes, folders, tmp_path):
    teachers, folder = read_teachers(learning(scenes, folders), training), RunFolder.at(tmp_path)
    keep_teachers(folder, teachers)
    assert kept_teachers(folder) == teachers
    model = teachers[NAME]["image"].config
    assert (model.patch_size, model.image_grid, model.width, model.num_layers) == (16, (3, 3), 24, 2)
    folder.teachers.write_text(json.dumps({NAME: {"text": {"reads": "text", "config": {"depth": 3}}}}))
    with pytest.raises(FolderError, match="teachers.json does not describe models: .*depth: no such key"):
        kept_teachers(folder)
    keep_teachers(folder, {})
    assert kept_teachers(folder) == {}


def test_pixels_are_normalised_as_the_weights_expect(tmp_path):
    """A stem for pixels in [-1, 1] gives what that of the file gives for its own; a half and a half are these."""
    plain, other = write_vit_model(tmp_path / "plain"), write_vit_model(tmp_path / "other", **IMAGENET)
    stems = []
    for folder in (plain, other):
        config = Config(objectives={NAME: 1.0}, objective_options={NAME: {"image": str(folder)}})
        (models,) = read_teachers(config, training).values()
        state = {NAME: {"image": models["image"].empty_params()}}
        fill_teachers(state, config, training)
        stems.append(state[NAME]["image"]["embed"]["image"]["stem"]["project"])
    pixels = np.random.default_rng(0).random((5, 16 * 16, 3))
    mean, std = (np.array(IMAGENET[name]) for name in ("image_mean", "image_std"))
    theirs = ((pixels - mean) / std).reshape(5, -1) @ stems[0]["kernel"] + stems[0]["bias"]
    np.testing.assert_allclose(
        (2 * pixels - 1).reshape(5, -1) @ stems[1]["kernel"] + stems[1]["bias"], theirs, rtol=1e-4, atol=1e-4
    )
    by_hand = by_path(read(plain)[0])["embed/image/stem/project/kernel"]
    np.testing.assert_array_equal(stems[0]["kernel"], by_hand)


def test_wrong_folders_are_named(scenes, folders, tmp_path):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "red", "blue"]
    write_vilt(tmp_path / "vilt", words, ["red", "blue"])
    (tmp_path / "empty").mkdir()
    bare, odd = (shutil.copytree(folders["text"], tmp_path / name) for name in ("bare", "odd"))
    (bare / "vocab.txt").unlink()
    with (odd / "vocab.txt").open("a") as file:
        file.write("green\n")
    strange = write_vit_model(tmp_path / "strange", image_std=[1, 0, 1])
    distilled = write_vit_model(tmp_path / "distilled", second=True)
    key = f"config.objective_options.{NAME}"
    base = learning(scenes, folders)
    for options, message in (
        ({"text": "nowhere"}, f"{key}.text='nowhere': no such folder"),
        ({"text": tmp_path / "empty"}, f"{key}.text='.*': no published weights there"),
        ({"image": tmp_path / "vilt"}, f"{key}.image='.*': this is vilt, which reads both; a BERT, ViT or DeiT"),
        ({"image": distilled}, f"{key}.image='.*': a DeiT with a distillation token"),
        ({"image": strange}, "preprocessor_config.json: image_std=.* expected three numbers"),
        ({"text": bare}, f"{key}.text='.*': no vocabulary"),
        ({"text": odd}, "has 312 words, the weights have 311"),
        ({"text": folders["image"]}, f"{key}.text: a BERT is needed, this model reads image"),
    ):
        given = {name: str(where) for name, where in options.items()}
        config = dataclasses.replace(base, objectives={NAME: 1.0}, objective_options={NAME: given})
        with pytest.raises((ConfigError, FolderError, DataError), match=message):
            build_run(config, RunFolder.at(tmp_path / "run"), training)
    with pytest.raises(FolderError, match="its vocabulary, or how it reads text, is not that of the run's start"):
        initial_tokenizer(
            dataclasses.replace(base, init=str(tmp_path / "vilt")), read_teachers(base, training), training
        )
