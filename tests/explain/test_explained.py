"""What explaining takes beside a picture and a text: sound, several pictures, regions, pruning, published weights.

What the instruments say of them is tested where they are; here `_study` is one pass forward.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx
from PIL import Image

import singlestream as ss
from singlestream import explained
from singlestream.__main__ import _told
from singlestream.config import Config, DataConfig, ModelConfig
from singlestream.data.text import Tokenizer
from singlestream.explain.embedded import blank
from singlestream.explain.instruments import explain
from singlestream.explain.pruned import gone_after
from singlestream.explain.study import WITHOUT_ANSWER, Study, study
from singlestream.explained_page import page_of, write_explained
from singlestream.model.maps import text_to_image
from singlestream.model.pruning.config import PruningConfig
from singlestream.objectives import build_objectives
from singlestream.page import make_notes
from tests.explain.browser import complaints, open_page, start_browser, text_of  # noqa: F401  (a fixture)
from tests.explain.published_folders import TEXT, write_folder, write_regions
from tests.explain.test_report import data_of

ROOT = Path(__file__).parents[2]
ANSWERS = ("high", "low", "no")
CAPTION = "a red square"


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
    return _model(config, processor, {"vqa": ss.HeadConfig(kind="classifier", size=len(ANSWERS))})


def _model(config: Config, processor: ss.Processor, heads: dict[str, ss.HeadConfig]) -> ss.Model:
    def make() -> ss.SingleStream:
        return ss.SingleStream(config.model, processor.spec, heads=heads, rngs=nnx.Rngs(params=0))

    module = nnx.merge(nnx.graphdef(nnx.eval_shape(make)), jax.jit(lambda: nnx.state(make()))())
    return ss.Model(module=module, processor=processor, config=config)


def without_answers(objective: str, **changes: Any) -> ss.Model:
    """A model of random weights, with the head of an objective that answers no question."""
    sizes = dict(width=16, num_layers=2, num_heads=2, mlp_dim=32, patch_size=8, image_grid=(2, 2))
    model = ModelConfig(**{**sizes, **changes})
    config = Config(data=DataConfig(text_length=8, max_patches=4), model=model, objectives={objective: 1.0})
    tokenizer = Tokenizer.train([CAPTION], 60)
    processor = ss.Processor(data=config.data, model=model, tokenizer=tokenizer)
    heads = build_objectives(config, processor.spec)[objective].heads(model, processor.spec)
    return _model(config, processor, heads)


@pytest.fixture
def light(monkeypatch):
    """`explain_answer` without its instruments: one pass forward."""

    def forward(graphdef, params, question):
        encoded = nnx.merge(graphdef, params)(question.batch)
        return Study({}, None, kept=encoded.extra.get("kept"))

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
    assert found.sound.shape == (4, 4) and found.prediction.probabilities == pytest.approx(
        heard.probabilities, abs=1e-6
    )
    assert len(found.images) == 2 and len(found.patches) == 8
    pruned = found.pruned
    assert (pruned.method, tuple(pruned.layers)) == ("drop", (1, 2))
    assert [int((pruned.gone_after == layer).sum()) for layer in (1, 2, 0)] == [4, 2, 2]
    data = data_of(page_of(found, title=""))
    assert (
        data["sound"]["width"] == data["sound"]["height"] == 4
        and data["pruned"]["gone_after"] == pruned.gone_after.tolist()
        and len(data["images"]) == 2
    )
    assert ss.explain_answer(hearing, frames(0), text).sound is None
    with pytest.raises(ss.DataError, match="3 sounds and 1 texts"):
        hearing.predict([frames(0)], text, audio=[None] * 3)


@pytest.mark.slow
def test_every_instrument_takes_sound_and_pruning(hearing):
    batch = hearing.processor.batch_of([frames(0)], ["is it high?"], [np.zeros(64)])
    question = explained.Question(batch=batch, target=np.zeros(1, np.int32), head="vqa", spec=hearing.spec)
    found = jax.eval_shape(lambda params: study(nnx.merge(hearing.graphdef, params), question), hearing.params)
    assert found.kept.shape == (2, 1, 8) and found.looks.to_image.shape == (3, 1, 2, 8, 8)
    assert {each.image.shape for each in found.instruments.values()} == {(1, 8)}
    assert {each.audio.shape for each in found.instruments.values()} == {(1, 2)}
    asking = [each.words_audio.shape for each in found.instruments.values() if each.words is not None]
    assert asking == [(1, 8, 2)] * 6


def test_what_counted_of_a_sound(hearing):
    """By the weights themselves, by hiding a window by hand, and by what the shares of all tokens add up to."""
    plain = dataclasses.replace(hearing.config.model, pruning=PruningConfig())
    module = _model(
        dataclasses.replace(hearing.config, model=plain),
        hearing.processor,
        {"vqa": ss.HeadConfig(kind="classifier", size=len(ANSWERS))},
    ).module
    graph, params = nnx.split(module)
    batch = hearing.processor.batch_of([frames(0)], ["is it high?"], [np.sin(np.arange(40) / 2)])
    question = explained.Question(batch=batch, target=np.ones(1, np.int32), head="vqa", spec=hearing.spec)

    @jax.jit
    def everything(params):
        model = nnx.merge(graph, params)

        def logit(batch):
            return model.heads["vqa"](model(batch))[0, 0, 1]

        def hidden(i):
            return batch.replace(
                audio=dataclasses.replace(batch.audio, segments=batch.audio.segments * (np.arange(2) != i))
            )

        said = {
            name: explain(name, model, question) for name in ("mean_attention", "occlusion", "integrated_gradients")
        }
        logits = [logit(each) for each in (batch, blank(question), hidden(0), hidden(1))]
        return said, logits, model(batch, attention=True).attention["self"]

    said, (whole, nothing, *without), weights = jax.device_get(everything(params))
    assert batch.audio.segments.tolist() == [[1, 0]]  # 40 samples are one window of 32
    start = batch.text.ids.shape[1] + batch.image.segments.shape[1]
    mean = weights.mean((0, 2))[0]
    np.testing.assert_allclose(said["mean_attention"].audio[0], mean[0, start : start + 2], atol=1e-6)
    words = batch.text.segments[0] > 0
    asked = mean[:8, start : start + 2] * words[:, None] * (batch.audio.segments[0] > 0)
    np.testing.assert_allclose(said["mean_attention"].words_audio[0], asked, atol=1e-6)
    np.testing.assert_allclose(said["occlusion"].audio[0], whole - np.array(without), atol=1e-5)
    moved = said["occlusion"].words_audio[0]
    assert (moved[words, 0] > 0).all() and not moved[:, 1].any()
    shares = said["integrated_gradients"]
    assert abs(shares.audio).sum() > 1e-4
    total = shares.text.sum() + shares.image.sum() + shares.audio.sum()
    np.testing.assert_allclose(total, whole - nothing, atol=1e-4)


def test_the_report_says_what_it_leaves_out(hearing):
    config = hearing.config.model
    hears, prunes = make_notes(config, True, True)
    assert "hears" in hears and "Pruned" in prunes
    assert make_notes(config, False, False) == [hears, prunes]
    merges = dataclasses.replace(config, pruning=PruningConfig(keep=0.5, method="merge"))
    assert "merged share evenly" in make_notes(merges, True, True)[1]
    assert "region features come without pictures" in make_notes(config, True, False)[2]


@pytest.mark.slow
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


@pytest.mark.slow
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


def test_matching_is_explained_where_nothing_answers(light):
    model, picture = without_answers("itm"), frames(0)[0]
    match = jax.nn.softmax(model.heads["itm"](model(model.processor.batch_of([picture], [CAPTION])))[0, 0]).tolist()
    found = ss.explain_answer(model, picture, CAPTION)
    assert found.prediction.probabilities == pytest.approx({"match": match[1], "no match": match[0]})
    assert found.answer == found.prediction.answer == ("match" if match[1] > match[0] else "no match")
    assert ss.explain_answer(model, picture, CAPTION, "no match").answer == "no match"
    with pytest.raises(ss.DataError, match="does not know the answer 'red'; it has 2: no match, match"):
        ss.explain_answer(model, picture, CAPTION, "red")


def test_published_matching_keeps_its_own_order():
    """Until a run trains it on."""
    model = without_answers("itm")
    published = dataclasses.replace(model.config, objectives={"vqa": 1.0})
    for family, dialect, first in (
        ("vilbert", "authors", "match"),
        ("visualbert", "transformers", "match"),
        ("visualbert", "authors", "no match"),
        ("uniter", "authors", "no match"),
    ):
        for config, wanted in ((published, first), (model.config, "no match")):
            known = ss.Model(module=model.module, processor=model.processor, config=config)
            known.plan = types.SimpleNamespace(family=family, dialect=dialect)
            assert explained._asked(known).answers[0] == wanted


@pytest.mark.slow
@pytest.mark.parametrize(
    ("objective", "direction", "changes"),
    [("prefix_lm", "causal", {}), ("caption", "decoder", {"decoder_layers": 3}), ("itc", None, {})],
)
def test_without_a_score_there_is_what_words_look_at(objective, direction, changes, tmp_path):
    """As the model is read where it writes: of a decoder, its own layers."""
    model, picture = without_answers(objective, **changes), frames(0)[0]
    found = ss.explain_answer(model, picture, CAPTION)
    assert (found.prediction, found.answer) == (None, "")
    names = WITHOUT_ANSWER[:1] if objective == "caption" else WITHOUT_ANSWER
    assert tuple(found.instruments) == names
    batch = model.processor.batch_of([picture], [CAPTION])
    asked = {"direction": direction} if direction else {}
    weights = model.module(batch, attention=True, **asked).attention
    words = len(found.words)  # each of one piece
    seen = text_to_image({k: v for k, v in weights.items() if direction != "decoder" or k != "self"}, batch=batch)
    np.testing.assert_allclose(found.heads.to_image, seen[:, 0, :, :words, :4], atol=1e-6)
    np.testing.assert_allclose(found.instruments["attention"].words, seen[-1, 0, :, :words, :4].mean(0), atol=1e-6)
    assert (found.heads.to_text is None) == (direction is not None)
    of_both = [name for name in found.heads.tables if "image to text" in name or "mutual" in name]
    assert bool(of_both) == (direction is None) and "image_to_text" not in found.heads.similarity
    data = data_of(page_of(found, title=""))
    assert (data["answer"], data["predicted"], data["probabilities"]) == ("", "", [])
    assert json.loads(_told(found, Path("page.html"))) == {"page": "page.html"}
    with pytest.raises(ss.DataError, match="does not know the answer 'red'; it has none: leave it out"):
        ss.explain_answer(model, picture, CAPTION, "red")


@pytest.mark.slow
def test_the_page_without_an_answer_in_a_browser(browser, tmp_path):
    found = ss.explain_answer(without_answers("prefix_lm"), frames(0)[0], CAPTION)
    write_explained(found, tmp_path / "page.html", title="a run")
    open_page(browser, tmp_path / "page.html")
    assert "no answer that could be explained" in text_of(browser, ".verdict")
    maps = "return [...document.querySelectorAll('.instrument .map')].map((node) => node.hidden)"
    assert browser.execute_script(maps) == [True, False] * 3
    assert browser.execute_script("return document.querySelectorAll('.instrument .words').length") == 0
    assert complaints(browser) == []


def test_a_model_with_nothing_to_explain_and_a_word_unknown(tmp_path):
    apart = dict(text_encoder="transformer", text_layers=1, image_encoder="transformer", image_layers=1, join="concat")
    with pytest.raises(ss.ConfigError, match="'itm', or a layer that reads text and picture; this model has itc"):
        ss.explain_answer(without_answers("itc", num_layers=0, **apart), frames(0)[0], CAPTION)
    pruned = without_answers("prefix_lm", direction="prefix").pruned(keep=0.5, layers=(1,))
    with pytest.raises(ss.ConfigError, match="from left to right, .*: explain the model without pruning"):
        ss.explain_answer(pruned, frames(0)[0], CAPTION)
    model = ss.load(write_folder(tmp_path / "model", "vilt"))
    with pytest.raises(ss.DataError, match="the model's vocabulary has no pieces for 'blue'"):
        ss.explain_answer(model, np.zeros((9, 9, 3), np.uint8), "is it blue?")
    with pytest.raises(ss.DataError, match="the model reads no audio"):
        ss.explain_answer(model, np.zeros((9, 9, 3), np.uint8), TEXT, audio=np.zeros(9))
