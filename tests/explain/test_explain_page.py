"""A picture and a question explained: arrays against the instruments themselves, the command, the page in a browser."""

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
from singlestream.explain.instruments import explain, instrument_names
from singlestream.explain.modes import modes
from singlestream.explain.question import Question, Relevance
from singlestream.explain.study import WITHOUT_ATTENTION, looks, queries_of, study
from singlestream.explained import Explained, Pruned, explain_answer
from singlestream.explained_heads import tables
from singlestream.explained_page import page_of, write_explained
from singlestream.model.heads import HeadConfig
from singlestream.model.single_stream import SingleStream
from singlestream.train.loop import train
from tests.explain.browser import complaints, open_page, start_browser, text_of  # noqa: F401  (a fixture)
from tests.explain.test_report import data_of
from tests.explain.toy_questions import CONFIG, model_of, question
from tests.model import toy
from tests.train.conftest import one_device  # noqa: F401  (a fixture)
from tests.train.toy import toy_config

ROOT = Path(__file__).parents[2]
TEXT = "is there a blurred square?"  # with a word of several pieces
COMMAND = (sys.executable, "-m", "singlestream", "explain")


@pytest.fixture(scope="module")
def run(one_device: None, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: F811
    """A folder with `run`, one step on generated pictures, and `picture.png`."""
    base = tmp_path_factory.mktemp("explain")
    config = toy_config(base / "scenes", model={"num_layers": 1}, num_steps=1)
    data, reads = dataclasses.replace(config.data, texts_per_row=1), toy.replace(config.model, direction="full")
    train(dataclasses.replace(config, data=data, model=reads), base / "run")
    pixels = np.random.default_rng(0).integers(0, 256, (32, 48, 3), np.uint8)
    Image.fromarray(pixels).save(base / "picture.png")
    return base


@pytest.fixture(scope="module")
def model(run: Path) -> ss.Model:
    return ss.load(run / "run")


@pytest.fixture(scope="module")
def said(run: Path, model: ss.Model) -> Explained:
    return explain_answer(model, run / "picture.png", TEXT)


def _close(actual, expected):
    np.testing.assert_allclose(actual, expected, atol=1e-5)


def _pieces(model: ss.Model) -> list[list[int]]:
    """The tokens of each word, from where the text spells them."""
    pieces: list[list[int]] = []
    for i, token in enumerate(model.processor.tokens(TEXT).ids):
        if token in model.processor.tokenizer.continuations:
            pieces[-1].append(i)
        else:
            pieces.append([i])
    return pieces


def test_arrays_are_what_the_instruments_say(run, model, said):
    assert [word.text for word in said.words] == ["[CLS]", *TEXT[:-1].split(), "?", "[SEP]"]
    assert said.prediction == model.predict(run / "picture.png", TEXT) and said.answer == said.prediction.answer
    assert sorted(said.instruments) == instrument_names()
    pieces = _pieces(model)
    assert max(map(len, pieces)) > 1
    batch = model.processor.batch_of([run / "picture.png"], [TEXT])
    target = np.array([model.answers.index(said.answer)], np.int32)
    asked = Question(batch=batch, target=target, head="vqa", spec=model.spec)
    names = ("chefer", "gradient_input")
    for name, direct in jax.jit(lambda params: {n: explain(n, _module(model, params), asked) for n in names})(
        model.params
    ).items():
        found = said.instruments[name]
        _close(found.text, [direct.text[0, piece].sum() for piece in map(np.array, pieces)])
        _close(found.image, direct.image[0, : len(said.patches)])
        assert (found.words is None) == (direct.words is None)
        if found.words is not None:
            seen = np.asarray(direct.words)[0, :, : len(said.patches)]
            _close(found.words, [seen[piece].mean(0) for piece in pieces])


def _module(model: ss.Model, params):
    return nnx.merge(model.graphdef, params)


def test_heads_are_what_the_weights_say(run, model, said):
    pieces, heads = _pieces(model), said.heads
    batch = model.processor.batch_of([run / "picture.png"], [TEXT])
    weights = np.asarray(model(batch, attention=True).attention["self"])[:, 0]
    text, words, patches = batch.text.ids.shape[1], sum(map(len, pieces)), len(said.patches)
    to_image = weights[:, :, :words, text : text + patches]
    to_text = weights[:, :, text : text + patches, :words]
    _close(heads.to_image, np.stack([to_image[:, :, piece].mean(2) for piece in pieces], 2))
    _close(heads.to_text, np.stack([to_text[..., piece].sum(-1) for piece in pieces], -1))
    _close(heads.fertility, to_image.sum(2).mean((0, 1)))
    covered = to_image.cumsum(2).mean((0, 1))
    _close(heads.coverage, [covered[piece].mean(0) for piece in pieces])
    shares = to_image.sum(2) / to_image.sum((2, 3))[..., None]
    own = np.maximum(weights[:, :, :words], 1e-30)
    wanted = {
        "entropy, words": -(own * np.log(own)).sum(-1).mean(-1),
        "share, text to image": to_image.sum(-1).mean(-1),
        "share, image to text": to_text.sum(-1).mean(-1),
        "evenness": np.exp(-(shares * np.log(shares)).sum(-1)) / patches,
        "fertility": to_image.sum(2).max(-1),
        "mutual attention": np.sqrt(to_image * to_text.swapaxes(-1, -2)).max((-1, -2)),
        "fall without it": _falls(model, batch, model.answers.index(said.answer), len(weights[0])),
    }
    assert set(heads.tables) == {*wanted, "entropy, image"}
    for name, values in wanted.items():
        _close(heads.tables[name], values)
    spoken = np.array(heads.to_image)
    spoken[:, :, [0, -1]] = 0  # special tokens belong to no mode
    _close(heads.modes.strength, np.linalg.svd(spoken, compute_uv=False)[..., :3])
    _close(heads.mean_modes.patches, modes(spoken.mean((0, 1)), np.ones(spoken.shape[2:], bool), 3).patches)
    assert heads.similarity["self"].shape == (1, 2, 1, 2)


def _falls(model: ss.Model, batch, answer: int, heads: int):
    """Of one layer: the projection of its heads' outputs reads zeros from one of them."""

    @jax.jit
    def logit(params):
        module = _module(model, params)
        return module.heads["vqa"](module(batch))[0, 0, answer]

    whole, kernel = logit(model.params), model.params["encoder"]["blocks"]["attention"]["out"]["kernel"]
    size = kernel.shape[1] // heads

    def without(head):
        blocks = model.params["encoder"]["blocks"]
        out = {**blocks["attention"]["out"], "kernel": kernel.at[:, head * size : (head + 1) * size].set(0)}
        blocks = {**blocks, "attention": {**blocks["attention"], "out": out}}
        return logit({**model.params, "encoder": {**model.params["encoder"], "blocks": blocks}})

    return [[whole - without(head) for head in range(heads)]]


def test_two_streams_have_tables_of_each_kind_of_attention():
    asked, batch = question("shared"), question("shared").batch
    model = model_of("shared")

    @jax.jit
    def found():
        weights = model(batch, attention=True).attention
        return weights, looks(weights, batch)

    weights, seen = jax.device_get(found())
    said = tables(seen, asked.batch)
    for name, each in weights.items():
        own = np.maximum(each[:, 0][:, :, np.asarray(queries_of(name, batch, each.shape[-2]))[0]], 1e-30)
        _close(said[f"entropy, {name.replace('_', ' ')}"], -(own * np.log(own)).sum(-1).mean(-1))
    _close(said["share, text to image"], 1)  # a layer that crosses reads nothing else


def test_without_layers_there_is_no_attention_to_show():
    heads = {"vqa": HeadConfig(size=7)}
    apart = dict(text_encoder="transformer", text_layers=1, image_encoder="transformer", image_layers=1, join="concat")
    bare = toy.replace(CONFIG, num_layers=0, **apart)
    module = nnx.eval_shape(lambda: SingleStream(bare, toy.SPEC, heads=heads, rngs=nnx.Rngs(0)))
    graph, params = nnx.split(module)
    found = jax.eval_shape(lambda params: study(nnx.merge(graph, params), question("one")), params)
    assert found.looks is None and tuple(found.instruments) == WITHOUT_ATTENTION


def test_what_cannot_be_explained_is_refused(run, model):
    for image, text, answer, message in (
        (run / "none.png", TEXT, "", "none.png: no such image file"),
        (run / "picture.png", "is it red? " * 9, "", "the text is longer than the 16 tokens that the model reads"),
        (run / "picture.png", TEXT, "mauve", "the model does not know the answer 'mauve'; it has "),
    ):
        with pytest.raises(ss.DataError, match=message):
            explain_answer(model, image, text, answer)


def test_the_page_carries_maps_by_their_largest_number(said):
    page = page_of(said, title="a </script> run")
    data = data_of(page)
    assert page.count("<script") == 2 and "default-src 'none'" in page
    for shown in data["instruments"]:
        image = said.instruments[shown["name"].replace(" ", "_")].image
        np.testing.assert_allclose(shown["image"], image / np.abs(image).max(), atol=1e-4)
    regions = data_of(page_of(dataclasses.replace(said, images=(), heads=None, regions=True), title=""))
    assert regions["image_token"] == "region" and len(regions["images"]) == 1 and regions["heads"] is None


def test_words_are_shaded_by_those_of_the_text(said):
    """What special tokens gather is often far more, and would leave every word pale."""
    text = np.array([-90.0, 1, 0, -2, 0.5, 0, 0, 40], np.float32)
    assert len(text) == len(said.words)
    loud = said.instruments["chefer"]._replace(text=text)
    data = data_of(page_of(dataclasses.replace(said, instruments={"chefer": loud}), title=""))
    assert data["instruments"][0]["text"] == [-1, 0.5, 0, -1, 0.25, 0, 0, 1]
    assert data["special"] == [True, *[False] * 6, True]


def _maps(browser) -> list[str]:
    script = "return [...document.querySelectorAll('.map .patch')].map((n) => n.style.getPropertyValue('--veil'))"
    return browser.execute_script(script)


@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_in_a_browser(browser, said, tmp_path, width):
    write_explained(said, tmp_path / "page.html", title="a run")
    open_page(browser, tmp_path / "page.html", width=width)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    assert browser.execute_script("return document.querySelectorAll('.instrument').length") == len(said.instruments)
    click = "document.querySelector(arguments[0]).click()"
    browser.execute_script(click, ".side [data-word='4']")
    first = _maps(browser)
    browser.execute_script(click, ".side [data-word='1']")
    assert _maps(browser) != first
    # The last instrument but one is occlusion; its right map is the word's.
    values = said.instruments["occlusion"].words[1]
    nodes = "return [...document.querySelectorAll('[data-instrument=occlusion] .pair > :nth-child(2) .patch')]"
    veils = browser.execute_script(nodes + ".map((n) => +n.style.getPropertyValue('--veil'))")
    np.testing.assert_allclose(veils, 0.88 * (1 - np.maximum(values, 0) / np.abs(values).max()), atol=2e-3)
    assert text_of(browser, ".where") == "Mean of all layers and heads"
    tables = "return [...document.querySelectorAll('.tables .table h3')].map((node) => node.textContent)"
    assert {*said.heads.tables, "all heads"} == set(browser.execute_script(tables))
    browser.execute_script(click, ".cell[data-head='1']")
    assert text_of(browser, ".where") == "Layer 1, head 2"
    share = said.heads.to_image[0, 1, 1].sum()
    assert f"“is” gives {100 * share:.0f}% to the picture" in text_of(browser, ".triple figcaption")
    shown = [said.heads.coverage[1], said.heads.fertility, np.abs(said.heads.modes.patches[0, 1, 0])]
    for values, place in zip(
        shown, (".triple > :nth-child(2)", ".triple > :nth-child(3)", ".modes .mode"), strict=True
    ):
        nodes = f"return [...document.querySelector('.close {place}').querySelectorAll('.patch')]"
        veils = browser.execute_script(nodes + ".map((n) => +n.style.getPropertyValue('--veil'))")
        np.testing.assert_allclose(veils, 0.88 * (1 - values / values.max()), atol=2e-3)
    strength = said.heads.modes.strength[0, 1, 0]
    caption = text_of(browser, ".modes figcaption").partition("strength ")[2]
    assert float(caption) == pytest.approx(strength, rel=0.02)
    assert complaints(browser) == []


def _count(browser, selector: str) -> int:
    return browser.execute_script("return document.querySelectorAll(arguments[0]).length", selector)


@pytest.mark.parametrize("located", [True, False])
def test_regions_without_attention_in_a_browser(browser, said, tmp_path, located):
    """Their boxes on grey, or a list of their numbers, with three windows of sound below the maps, that of what counts
    twice as much as any region; those that a pruning dropped stand apart, layer by layer."""
    instruments = {name: _with_sound(said.instruments[name]) for name in WITHOUT_ATTENTION}
    size = len(said.patches)
    pruned = Pruned(method="merge", layers=(1, 3), gone_after=np.array([1, 3] + [0] * (size - 2)))
    regions = dict(images=(), heads=None, regions=True, located=located, pruned=pruned, sound=np.eye(6, 4))
    plain = dataclasses.replace(said, instruments=instruments, **regions)
    write_explained(plain, tmp_path / "page.html", title="a run")
    open_page(browser, tmp_path / "page.html", width=390)
    assert _count(browser, ".instrument") == 3 and _count(browser, ".pruned .map") == 2
    kind = ".region" if located else ".chip"
    assert _count(browser, f".pruned {kind}.gone") == 3 and _count(browser, f".pruned {kind}") == 2 * size
    assert _count(browser, f".instrument {kind}.strongest") == 4  # of three answers, and of a word by occlusion
    assert (
        text_of(browser, ".pruned figcaption") == f"after layer 1: {size - 1} of {size} left, 1 merged into others here"
    )
    assert _count(browser, ".instrument .sound:not([hidden]) .patch") == 3 * 4  # of three answers, and of a word
    windows = "[...document.querySelectorAll('.instrument .sound .patch')]"
    veils = f"return {windows}.map((n) => n.style.getPropertyValue('--veil'))"
    assert browser.execute_script(veils)[:3] == ["0.000", "0.440", "0.880"]
    much = (
        "return [...document.querySelectorAll('.instrument:first-child .map:first-child [title]')].map((n) => n.title)"
    )
    assert max(float(title.split()[2]) for title in browser.execute_script(much)) == 0.5
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 390
    assert complaints(browser) == []


def _with_sound(relevance: Relevance) -> Relevance:
    most = 2 * np.abs(relevance.image).max() * np.array([1, 0.5, 0], np.float32)
    words = None if relevance.words is None else np.zeros((len(relevance.words), 3), np.float32)
    return relevance._replace(audio=most, words_audio=words)


def _program(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *map(str, arguments)], capture_output=True, text=True, timeout=300, cwd=ROOT)


@pytest.mark.slow
def test_the_command_writes_a_page_and_says_so(run, said):
    page, other = run / "page.html", next(a for a in said.prediction.probabilities if a != said.answer)
    done = _program(run / "picture.png", TEXT, f"--workdir={run / 'run'}", f"--output={page}", f"--answer={other}")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["answer"] == other and told["page"] == str(page)
    assert told["probability"] == pytest.approx(said.prediction.probabilities[other], abs=1e-4)
    data = data_of(page.read_text(encoding="utf-8"))
    assert (data["text"], data["answer"], data["predicted"]) == (TEXT, other, said.answer)


def test_the_command_says_what_is_wrong(run):
    output, workdir = f"--output={run / 'wrong.html'}", f"--workdir={run / 'run'}"
    for arguments, message in (
        ((run / "picture.png", workdir, output), 'singlestream explain: "TEXT" is missing'),
        ((run / "none.png", f"so: {TEXT}", workdir, output), "none.png: no such file"),
        ((run / "picture.png", TEXT, output), "--workdir is missing"),
        ((run / "picture.png", TEXT, workdir, f"--output={run}"), "expected a page to write"),
        ((run / "run" / "config.json", TEXT, workdir, output), "config.json: not a readable image"),
    ):
        done = _program(*arguments)
        assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (1, "", 1), done.stderr
        assert message in done.stderr
    assert not (run / "wrong.html").exists()
