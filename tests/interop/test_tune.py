"""Published weights in the programs: loaded, asked, tuned by train.py, and written back."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file

import singlestream as ss
from singlestream.config import Config
from singlestream.data.overlap import UNKNOWN
from singlestream.evaluate import evaluate
from singlestream.interop import training
from singlestream.model.heads import HeadConfig
from singlestream.train import loop
from singlestream.train.build import build_run
from singlestream.train.errors import Interrupted
from singlestream.train.folder import RunFolder
from singlestream.train.initial import adopt_model, pictures_before
from tests.data.toy_nlvr import write_png
from tests.test_configs import read
from tests.train.conftest import compiled_once, one_device  # noqa: F401  (fixtures)
from tests.train.toy import stopped_at

from .toy_unimodal import write_bert_model, write_vit_model
from .toy_vilt import LENGTH, PATCH, SETTINGS, SIDE, WIDTH, write_vilt

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_device", "compiled_once")]
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "what", "colour", "is", "it", "?", "red", "blue"]
ANSWERS = ["blue", "red"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights") / "vilt"
    write_vilt(folder, WORDS, ANSWERS)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Pictures in red and blue of several sizes, a question each; nobody answered those of `test`."""
    folder = tmp_path_factory.mktemp("pictures")
    for split, count in (("train", 12), ("validation", 4), ("test", 4)):
        lines = []
        for i in range(count):
            answer, size = ANSWERS[i % 2], (40, 24 + 8 * (i % 3))
            pixels = np.zeros((*size, 3), np.uint8)
            pixels[..., 0 if answer == "red" else 2] = 200 + i
            write_png(folder / f"{split}{i}.png", pixels)
            known = answer if split != "test" else None
            lines.append({"image": f"{split}{i}.png", "question": "what colour is it?", "answer": known})
        (folder / f"{split}.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return folder


@pytest.fixture
def config(weights, data) -> Config:
    """The shipped recipe, cut to three steps on small pictures."""
    shipped = read("finetune_vqa")
    cache = jax.config.jax_compilation_cache_dir or "none"
    return dataclasses.replace(
        shipped,
        init=str(weights),
        data=dataclasses.replace(shipped.data, dir=str(data), text_length=10, shorter_side=2 * PATCH, max_patches=6),
        train=dataclasses.replace(
            shipped.train,
            **dict(num_steps=3, batch_size=4, accumulate=1, warmup_steps=1, log_every=1, eval_every=3),
            **dict(checkpoint_every=3, cache_dir=cache, huge_pages=False),
        ),
    )


def test_loaded_weights_answer_and_go_back(weights, tmp_path):
    model = ss.load(weights)
    prediction = model.predict(Image.new("RGB", (40, 30), "red"), "what colour is it?")
    assert prediction.answer in ANSWERS and set(prediction.probabilities) == set(ANSWERS)
    model.save_pretrained(tmp_path / "back")
    before, after = (load_file(folder / "model.safetensors") for folder in (weights, tmp_path / "back"))
    assert before.keys() == after.keys()
    for key, value in before.items():
        np.testing.assert_array_equal(value, after[key], err_msg=key)
    assert (tmp_path / "back/vocab.txt").read_text() == (weights / "vocab.txt").read_text()
    again = ss.load(tmp_path / "back").predict(Image.new("RGB", (40, 30), "red"), "what colour is it?")
    assert again == prediction


def saved(model: ss.Model, folder: Path) -> ss.Model:
    """The model written and read again, which gives the same numbers."""
    model.save_pretrained(folder)
    again = ss.load(folder)
    batch = model.processor.batch_of([Image.new("RGB", (40, 30), "red")], ["what colour is it?"])
    for name in again.heads:
        np.testing.assert_array_equal(*(each.heads[name](each(batch)) for each in (again, model)))
    return again


def test_weights_are_tuned(config, weights, tmp_path, capsys):
    """The model is that of the weights, all of it is taken, and the run loads like any other, and goes back."""
    results = loop.train(config, tmp_path / "run", training)
    said = capsys.readouterr().out
    assert f"from {weights} (vilt, transformers)" in said and "0 stay fresh" in said
    assert 0 <= results["vqa/accuracy"] <= 1
    unknown = "the run began with published weights; it is not known which pictures they were trained on\n"
    assert evaluate(tmp_path / "run")["vqa/questions"] == 4
    predictions = (tmp_path / "run/eval/test/predictions.jsonl").read_text().splitlines()
    assert [json.loads(line)["correct"] for line in predictions] == [None] * 4
    assert unknown in said and capsys.readouterr().err == unknown
    assert pictures_before(dataclasses.replace(config, init=str(tmp_path / "run")), training) == UNKNOWN
    stored = RunFolder.at(tmp_path / "run").read_config()
    model = stored.model
    assert (model.width, model.patch_size, model.image_grid) == (WIDTH, PATCH, (SIDE, SIDE))
    assert (model.norm_eps, model.max_text_length, model.modality) == (1e-12, LENGTH, "pictures")
    tuned = ss.load(tmp_path / "run")
    assert tuned.answers == tuple(ANSWERS)
    assert tuned.heads["vqa"].head.norm_eps == 1e-5  # ViLT's own head, not ours
    assert loop.train(config, tmp_path / "run", training) == results  # finished: the same settings find the same run
    assert saved(tuned, tmp_path / "back").answers == tuple(ANSWERS)
    with pytest.raises(ss.ConfigError, match="run is a run's folder, which holds a config.json of its own"):
        tuned.save_pretrained(tmp_path / "run")
    before, after = (load_file(folder / "model.safetensors") for folder in (weights, tmp_path / "back"))
    assert {key: value.shape for key, value in before.items()} == {key: value.shape for key, value in after.items()}
    (tmp_path / "run/published.json").write_text('{"family": "nosuch", "dialect": "authors", "settings": {}}')
    with pytest.raises(ss.RunError, match="published.json does not say .*'nosuch', a family that is not written here"):
        ss.load(tmp_path / "run")


def test_bert_saw_no_pictures_and_what_a_vit_saw_is_not_known(tmp_path):
    bert, vit = write_bert_model(tmp_path / "bert"), write_vit_model(tmp_path / "vit")
    assert pictures_before(Config(init=str(bert)), training) == {}
    assert pictures_before(Config(init=str(vit)), training) == UNKNOWN


def test_a_start_without_heads_gets_those_of_the_family(config, weights, tmp_path):
    """Stopped and continued; what no ViLT of transformers has beside the answers is left out."""
    start = tmp_path / "weights"
    shutil.copytree(weights, start)
    tensors = load_file(start / "model.safetensors")
    bare = {key.removeprefix("vilt."): value for key, value in tensors.items() if not key.startswith("classifier.")}
    save_file(bare, start / "model.safetensors")
    config = dataclasses.replace(config, init=str(start), objectives={"vqa": 1.0, "itm": 1.0})
    with stopped_at(2), pytest.raises(Interrupted, match="at step 2"):
        loop.train(config, tmp_path / "run", training)
    loop.train(config, tmp_path / "run", training)
    tuned = ss.load(tmp_path / "run")
    assert tuned.heads["vqa"].head == HeadConfig(kind="classifier", size=2, norm_eps=1e-5)
    with pytest.warns(UserWarning, match="not written: itm; ViltForQuestionAnswering has no such head"):
        again = saved(tuned, tmp_path / "back")
    assert set(again.heads) == {"vqa"} and again.answers == tuple(ANSWERS)
    assert load_file(tmp_path / "back/model.safetensors").keys() == tensors.keys()
    written = json.loads((tmp_path / "back/config.json").read_text())
    assert written["architectures"] == ["ViltForQuestionAnswering"]
    assert written["id2label"] == {"0": "blue", "1": "red"} and written["label2id"] == {"blue": 0, "red": 1}
    assert written["hidden_act"] == SETTINGS["hidden_act"] and written["image_size"] == SIDE * PATCH


def test_before_its_first_checkpoint_a_run_may_begin_with_something_else(config, tmp_path):
    folder = RunFolder.at(tmp_path)
    build_run(adopt_model(config, training), folder, training)
    origin = folder.read_json(folder.published)
    assert (origin["family"], origin["dialect"]) == ("vilt", "transformers")
    build_run(dataclasses.replace(config, init=""), folder)
    assert not folder.published.exists()


def test_other_answers_get_a_fresh_head(config, weights, tmp_path, capsys):
    other = tmp_path / "weights"
    shutil.copytree(weights, other)
    settings = json.loads((other / "config.json").read_text())
    settings["id2label"] = {"0": "red", "1": "blue"}
    (other / "config.json").write_text(json.dumps(settings))
    loop.train(dataclasses.replace(config, init=str(other)), tmp_path / "run", training)
    assert "of other classes there: vqa" in capsys.readouterr().out


def test_weights_without_a_vocabulary_are_refused(config, weights, tmp_path):
    shutil.copytree(weights, tmp_path / "weights")
    (tmp_path / "weights/vocab.txt").unlink()
    with pytest.raises(ss.RunError, match="no vocabulary .*in .*/weights"):
        loop.train(dataclasses.replace(config, init=str(tmp_path / "weights")), tmp_path / "run", training)


def test_another_vocabulary_is_refused(config, weights, tmp_path):
    """Its words would get embeddings that are not theirs, or fresh ones."""
    shutil.copytree(weights, tmp_path / "weights")
    with (tmp_path / "weights/vocab.txt").open("a") as file:
        file.write("green\n")
    with pytest.raises(ss.RunError, match="has 13 words, the weights have 12"):
        loop.train(dataclasses.replace(config, init=str(tmp_path / "weights")), tmp_path / "run", training)


def test_weights_in_a_runs_folder_do_not_hide_the_run(config, weights, tmp_path):
    loop.train(config, tmp_path / "run", training)
    ss.load(weights).save_pretrained(tmp_path / "other")
    shutil.copy(tmp_path / "other/model.safetensors", tmp_path / "run")
    assert ss.load(tmp_path / "run").step == 3
