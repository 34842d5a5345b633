"""What explaining takes beside a picture and a text: sound, several pictures, regions, pruning, published weights.

What the instruments say of them is tested where they are; here `_study` is one pass forward.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx
from PIL import Image

import singlestream as ss
from singlestream import explained
from singlestream.config import Config, DataConfig, ModelConfig
from singlestream.data.text import Tokenizer
from singlestream.explain.pruned import gone_after
from singlestream.explain.study import Study, study
from singlestream.explained_page import page_of
from singlestream.model.answering import answering
from singlestream.model.pruning.config import PruningConfig
from singlestream.page import make_notes
from tests.explain.published_folders import TEXT, write_folder, write_regions
from tests.explain.test_report import data_of

ROOT = Path(__file__).parents[2]
ANSWERS = ("high", "low", "no")


@pytest.fixture(scope="module")
def hearing() -> ss.Model:
    """A model of random weights that sees two frames, hears, and keeps half of its patches after each of two layers."""
    data = DataConfig(text_length=8, max_patches=4, max_audio=2, audio_hop=16, audio_columns=2)
    sizes = dict(width=16, num_layers=3, num_heads=2, mlp_dim=32, patch_size=8, image_grid=(2, 2))
    inputs = dict(num_images=2, image_positions="video", audio_dim=8, image_stem="linear")
    pruning = PruningConfig(keep=0.25, layers=(1, 2))
    config = Config(data=data, model=ModelConfig(**sizes, **inputs, pruning=pruning))
    tokenizer = Tokenizer.train(["is the tone high?"], 60)
    processor = ss.Processor(data=config.data, model=config.model, tokenizer=tokenizer, answers=ANSWERS)
    heads = {"vqa": ss.HeadConfig(kind="classifier", size=len(ANSWERS))}

    def make() -> ss.SingleStream:
        return ss.SingleStream(config.model, processor.spec, heads=heads, rngs=nnx.Rngs(params=0))

    module = nnx.merge(nnx.graphdef(nnx.eval_shape(make)), jax.jit(lambda: nnx.state(make()))())
    return ss.Model(module=module, processor=processor, config=config)


@pytest.fixture
def light(monkeypatch):
    """`explain_answer` without its instruments: one pass forward."""

    def forward(graphdef, params, question):
        encoded = nnx.merge(graphdef, params)(question.batch)
        return Study({}, None, encoded.extra.get("kept"))

    monkeypatch.setattr(explained, "_study", forward)


def frames(seed: int) -> tuple[np.ndarray, ...]:
    return tuple(np.random.default_rng(seed).integers(0, 256, (2, 16, 16, 3), np.uint8))


def test_what_was_dropped_where():
    kept = np.array([[1, 1, 0, 1, 0], [1, 0, 0, 1, 0], [0, 0, 0, 1, 0]], bool)
    np.testing.assert_array_equal(gone_after(kept, (2, 3, 5)), [5, 3, 2, 0, 2])
    with pytest.raises(ValueError, match="3 drops, but pruning in 1 layers"):
        gone_after(kept, (2,))


def test_sound_and_pruning(hearing, light):
    text, sound = "is the tone high?", 0.5 * np.sin(np.arange(64))
    heard, silent = hearing.predict([frames(0)] * 2, [text] * 2, audio=[sound, None])
    assert heard != silent and hearing.predict(frames(0), text, audio=[sound])[0].answer == heard.answer
    found = ss.explain_answer(hearing, frames(0), text, audio=sound)
    assert found.heard and found.prediction.probabilities == pytest.approx(heard.probabilities, abs=1e-6)
    assert len(found.images) == 2 and len(found.patches) == 8
    pruned = found.pruned
    assert (pruned.method, tuple(pruned.layers)) == ("drop", (1, 2))
    assert [int((pruned.gone_after == layer).sum()) for layer in (1, 2, 0)] == [4, 2, 2]
    data = data_of(page_of(found, title=""))
    assert data["heard"] and data["pruned"]["gone_after"] == pruned.gone_after.tolist() and len(data["images"]) == 2
    assert not ss.explain_answer(hearing, frames(0), text).heard
    with pytest.raises(ss.DataError, match="3 sounds and 1 texts"):
        hearing.predict([frames(0)], text, audio=[None] * 3)


def test_every_instrument_takes_sound_and_pruning(hearing):
    batch = hearing.processor.batch_of([frames(0)], ["is it high?"], [np.zeros(64)])
    question = explained.Question(batch=batch, target=np.zeros(1, np.int32), head="vqa", spec=hearing.spec)
    found = jax.eval_shape(lambda params: study(nnx.merge(hearing.graphdef, params), question), hearing.params)
    assert found.kept.shape == (2, 1, 8) and found.looks.to_image.shape == (3, 1, 2, 8, 8)
    assert {each.image.shape for each in found.instruments.values()} == {(1, 8)}


def test_the_report_says_what_it_leaves_out(hearing):
    config = hearing.config.model
    hears, prunes = make_notes(config, True, True)
    assert "hears" in hears and "Pruned" in prunes
    assert make_notes(config, False, False) == [hears, prunes]
    merges = dataclasses.replace(config, pruning=PruningConfig(keep=0.5, method="merge"))
    assert "merged share evenly" in make_notes(merges, True, True)[1]
    assert "region features come without pictures" in make_notes(config, True, False)[2]


@pytest.mark.parametrize(("family", "count"), [("lxmert", 1), ("visualbert_nlvr", 2)])
def test_published_models_of_regions(family, count, light, tmp_path):
    """Of two streams, whose regions have boxes and are shown on a picture; and without boxes, of two pictures."""
    model = ss.load(write_folder(tmp_path / family, family))
    boxes = family == "lxmert"
    regions = tuple(write_regions(tmp_path / f"{i}.npz", boxes=boxes, seed=i) for i in range(count))
    shown = [np.zeros((9, 12, 3), np.uint8)] if boxes else []
    found = ss.explain_answer(model, regions, TEXT, shown=shown)
    assert (found.regions, found.located, len(found.images)) == (True, boxes, len(shown))
    np.testing.assert_array_equal(found.patches[:, 0], np.repeat(range(count), 3))
    data = data_of(page_of(found, title=""))
    assert (data["image_token"], data["located"], len(data["images"])) == ("region", boxes, count)
    with pytest.raises(ss.DataError, match=f"3 pictures to show {count} sets of regions on"):
        ss.explain_answer(model, regions, TEXT, shown=[np.zeros((9, 12, 3), np.uint8)] * 3)
    with pytest.raises(ss.DataError, match=r"picture.png: config.model.image_stem='regions' reads region features"):
        ss.explain_answer(model, "picture.png", TEXT)


@pytest.mark.parametrize("family", ["vilt_nlvr2", "visualbert"])
def test_the_command_explains_published_models(family, tmp_path):
    """A pair of pictures, each beside a copy of the text; and regions without places."""
    write_folder(tmp_path / "model", family)
    given = [write_regions(tmp_path / "regions.npz", boxes=False)]
    if family == "vilt_nlvr2":
        given = [tmp_path / "0.png", tmp_path / "1.png"]
        for seed, path in enumerate(given):
            Image.fromarray(np.random.default_rng(seed).integers(0, 256, (12, 12, 3), np.uint8)).save(path)
    page = tmp_path / "page.html"
    arguments = [*map(str, given), TEXT, f"--workdir={tmp_path / 'model'}", f"--output={page}"]
    command = [sys.executable, "-m", "singlestream", "explain", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    data = data_of(page.read_text(encoding="utf-8"))
    assert data["answer"] == json.loads(done.stdout)["answer"] and data["text"] == TEXT
    pictures, tokens = (2, 18) if family == "vilt_nlvr2" else (1, 3)
    assert (len(data["images"]), len(data["patches"])) == (pictures, tokens)
    assert {patch[0] for patch in data["patches"]} == set(range(pictures))
    # Every patch of both pictures is looked at.
    looked = next(each for each in data["instruments"] if each["name"] == "rollout")
    assert min(looked["image"]) > 0 and np.min(looked["words"]) > 0


def test_a_model_without_answers_and_a_word_unknown(tmp_path):
    model = ss.load(write_folder(tmp_path / "model", "vilt"))
    with pytest.raises(ss.DataError, match="the model's vocabulary has no pieces for 'blue'"):
        ss.explain_answer(model, np.zeros((9, 9, 3), np.uint8), "is it blue?")
    with pytest.raises(ss.DataError, match="the model reads no audio"):
        ss.explain_answer(model, np.zeros((9, 9, 3), np.uint8), TEXT, audio=np.zeros(9))
    model.module.heads.pop(answering(model.heads))
    with pytest.raises(ss.ConfigError, match="the head 'vqa' or 'nlvr2' or 'classify'; this model has none"):
        ss.explain_answer(model, np.zeros((9, 9, 3), np.uint8), TEXT)
