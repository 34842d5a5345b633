"""The shipped configs, cut to two steps, a tiny model and a handful of pictures: they train, evaluate, make a page.

What they reach is not asked here.
"""

from __future__ import annotations

import base64
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import singlestream as ss
from singlestream.config import Config
from singlestream.data.sources import open_split
from singlestream.evaluate import evaluate
from singlestream.train import loop
from singlestream.train.folder import RunFolder
from singlestream.train.metrics import read_rows
from singlestream.train.sharding import make_mesh
from singlestream.words import group_words
from tests.data import toy_published as toy
from tests.data.toy_nlvr import write_nlvr
from tests.data.toy_regions import vilbert_line, write_table
from tests.explain.browser import complaints, hover, open_page, start_browser, text_of, veils  # noqa: F401  (a fixture)
from tests.test_configs import read
from tests.train.conftest import scenes  # noqa: F401  (a fixture)
from tests.train.toy import OPTIONS

pytestmark = pytest.mark.slow

SIZES = dict(width=16, num_layers=1, num_heads=2, mlp_dim=32, stem_width=4)
STEPS = dict(
    num_steps=2,
    batch_size=2,
    accumulate=1,
    warmup_steps=1,
    log_every=1,
    eval_every=2,
    eval_batches=1,
    checkpoint_every=2,
)
# Their variants are the same programs on other texts, or with fewer objectives.
NAMES = ("quickstart", "scenes_pretrain", "nlvr")


def write_corpora(folder: Path) -> Path:
    """Three corpora in one folder: their files have different names."""
    for write in (toy.write_coco, toy.write_visual_genome, toy.write_conceptual_captions):
        write(folder)
    return folder


# Of recipes for datasets of which the tests have miniatures: those, a split with answers, what the recipe is about.
PUBLISHED = {
    "vcr": (toy.write_vcr, "validation", "choose/accuracy"),
    "hateful_memes": (toy.write_hateful_memes, "validation", "classify/auroc"),
    "refcoco": (toy.write_refcoco, "testA", "ground/accuracy"),
    "flickr30k_entities": (toy.write_flickr30k, "test", "ground/accuracy"),
    "retrieve": (toy.write_flickr30k, "test", "retrieve/image/r1"),
    "pretrain_coco": (toy.write_coco, "test", "mlm/accuracy"),
    "coco_caption": (toy.write_coco, "test", "prefix_lm/accuracy"),
    "snli_ve": (toy.write_snli_ve, "test", "vqa/accuracy"),
    "nlvr2": (toy.write_nlvr2, "test", "vqa/accuracy"),
    "clevr": (toy.write_clevr, "validation", "vqa/accuracy"),
    "pretrain_mixture:albef": (write_corpora, "test", "mlm/accuracy"),
}
MINIATURE = dict(shorter_side=16, max_patches=6, text_length=16)  # of pictures of 24 x 16 pixels, in patches of 8


def cut(name: str, folder: Path) -> Config:
    """A shipped config with everything small that may be small."""
    config = read(name)
    options = OPTIONS if config.data.name == "scenes" else {}
    deep = {"locate": {"layer": 1}} if "locate" in config.objectives else {}
    cache = jax.config.jax_compilation_cache_dir or "none"
    corpora = {
        key: dataclasses.replace(
            corpus,
            dir=str(folder),
            options={**corpus.options, **({"held_out": 1} if "held_out" in corpus.options else {})},
        )
        for key, corpus in config.data.corpora.items()
    }
    return dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, dir=str(folder), options=options, corpora=corpora),
        model=dataclasses.replace(config.model, **SIZES),
        objective_options={**config.objective_options, **deep},
        train=dataclasses.replace(config.train, **STEPS, cache_dir=cache, huge_pages=False),
    )


@pytest.fixture(scope="module")
def trained(scenes, tmp_path_factory) -> Callable[[str], Path]:  # noqa: F811
    """`trained(name)`: the folder of that config's run, trained and evaluated once."""
    base = tmp_path_factory.mktemp("recipes")
    nlvr = write_nlvr(base / "data")
    done: dict[str, Path] = {}

    def run(name: str) -> Path:
        if name not in done:
            folder = base / name
            config = cut(name, nlvr if name == "nlvr" else scenes)
            if name == "nlvr":  # its page shows every layer
                config = dataclasses.replace(config, model=dataclasses.replace(config.model, num_layers=2))
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(loop, "make_mesh", lambda config: make_mesh(config, jax.devices()[:1]))
                loop.train(config, folder)
            evaluate(folder, split="test", report=True)
            done[name] = folder
        return done[name]

    return run


@pytest.mark.parametrize("name", NAMES)
def test_it_trains_and_evaluates(trained, name):
    folder = trained(name)
    config = RunFolder.at(folder).read_config()
    rows = read_rows(RunFolder.at(folder))
    steps = [(row["step"], row["split"]) for row in rows]
    assert steps == [(1, "train"), (2, "train"), (2, "validation"), (2, "results")]
    assert all(np.isfinite(row["loss"]) and row["loss"] > 0 for row in rows)
    metrics = json.loads((folder / "eval/test/metrics.json").read_text())
    assert config.train.best_metric in metrics
    assert set(config.objectives) <= {key.partition("/")[0] for key in metrics}
    answers = "vqa" in config.objectives
    assert (folder / "eval/test/predictions.jsonl").is_file() == answers
    assert bool(page_data(folder)["examples"]) == answers


@pytest.mark.parametrize("name", PUBLISHED)
def test_it_trains_and_evaluates_on_the_published_files(name, tmp_path, monkeypatch):
    write, split, measured = PUBLISHED[name]
    config = cut(name, write(tmp_path / "data"))
    shipped = read(name)
    options = {key: {**of, **({"queue": 4} if key == "itc" else {})} for key, of in shipped.objective_options.items()}
    config = dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, **MINIATURE, options=shipped.data.options),
        model=dataclasses.replace(config.model, patch_size=8, image_grid=(2, 3)),
        objective_options=options,
    )
    monkeypatch.setattr(loop, "make_mesh", lambda config: make_mesh(config, jax.devices()[:1]))
    results = loop.train(config, tmp_path / "run")
    assert np.isfinite(results["loss"]) and config.train.best_metric in results
    found = evaluate(tmp_path / "run", split=split, shortlist=2 if name == "retrieve" else 0)
    assert 0 <= found[measured] <= 1
    if name == "coco_caption":  # the picture by COCO's id
        results = json.loads((tmp_path / "run/eval/test/captions_results.json").read_text())
        assert [each["image_id"] for each in results] == [73]


def write_regions(folder: Path) -> Path:
    """Captions of three pictures, of which a detector's regions with the probabilities of all classes are known."""
    folder.mkdir()
    names = ["cat", "dog", "hat"]
    write_table(folder / "features.tsv", names, vilbert_line)
    for split in ("train", "validation"):
        lines = [{"image": name, "caption": f"a {name} that sleeps"} for name in names]
        toy.write(folder / f"{split}.jsonl", lines, lines=True)
    return folder


def test_uniter_pretrains_on_a_detectors_regions(tmp_path, monkeypatch):
    """Of four objectives one a step, among them masked regions held against the detector's probabilities."""
    config = cut("uniter", write_regions(tmp_path / "data"))
    config = dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, max_patches=4, text_length=8, options=read("uniter").data.options),
        model=dataclasses.replace(config.model, region_dim=6),
    )
    monkeypatch.setattr(loop, "make_mesh", lambda config: make_mesh(config, jax.devices()[:1]))
    results = loop.train(config, tmp_path / "run")
    names = {"itm/loss", "mlm/loss", "mrm/distribution_loss", "mrm/features_loss", "wpa/loss"}
    assert names <= set(results) and all(np.isfinite(value) for value in results.values())


# ---- the page of several pictures an example -------------------------------------------------------------------------


def page_data(folder: Path) -> dict[str, Any]:
    page = (folder / "eval/test/report.html").read_text()
    return json.loads(page.split('id="data">')[1].split("</script>")[0])


def unpack(packed: dict[str, Any], num_queries: int, num_keys: int) -> np.ndarray:
    """The weights [layers, H, queries, keys] that the page carries as bytes."""
    shape = packed["layers"], packed["heads"], num_queries, num_keys
    levels = np.frombuffer(base64.b64decode(packed["levels"]), np.uint8).reshape(shape)
    return levels / 255 * np.frombuffer(base64.b64decode(packed["scale"]), "<f4").reshape(*shape[:-1], 1)


def test_the_page_of_three_pictures_holds_the_models_attention(trained):
    """Words and patches of every picture, in both directions, as the model gives them for that example alone."""
    folder = trained("nlvr")
    model = ss.load(folder)
    source = open_split(model.config.data, "test")
    records = {source.texts(i)[0].id: source[i] for i in range(len(source))}
    examples = page_data(folder)["examples"]
    assert sorted(example["id"] for example in examples) == sorted(records)
    for example in examples:
        record = records[example["id"]]
        words, pieces = group_words(model.processor, record.texts[0])
        assert [word["text"] for word in example["words"]] == [word.text for word in words]
        patches = np.array(example["patches"])
        assert patches[:, 0].tolist() == [0] * 25 + [1] * 25 + [2] * 25 and len(example["images"]) == 3
        batch = model.processor.batch_of([record.images], [record.texts[0].text])
        weights = np.asarray(model(batch, attention=True).attention["self"])[:, 0]
        words_end = batch.text.ids.shape[1]
        to_image = np.stack([weights[:, :, piece, words_end:].mean(2) for piece in pieces], 2)
        to_text = np.stack([weights[:, :, words_end:, piece].sum(-1) for piece in pieces], -1)
        for packed, wanted in ((example["to_image"], to_image), (example["to_text"], to_text)):
            np.testing.assert_allclose(unpack(packed, *wanted.shape[2:]), wanted, atol=0.002)


def test_the_page_of_three_pictures_in_a_browser(browser, trained):
    folder = trained("nlvr")
    example = page_data(folder)["examples"][0]
    open_page(browser, folder / "eval/test/report.html")
    held = "return [...document.querySelectorAll('.picture')].map((n) => n.querySelectorAll('.patch').length)"
    assert browser.execute_script(held) == [25, 25, 25]
    before = veils(browser)
    hover(browser, "[data-word='3']")
    assert veils(browser) != before and f"“{example['words'][3]['text']}”" in text_of(browser, ".saying")
    weights = unpack(example["to_image"], len(example["words"]), 75)[:, :, 3].mean((0, 1))
    assert float(veils(browser)[weights.argmax()]) == 0  # no pointing score here: the mean of the heads is shown
    hover(browser, "[data-patch='62']")  # the middle of the third picture
    assert [i for i, veil in enumerate(veils(browser)) if float(veil) == 0] == [62]
    assert "This patch gives" in text_of(browser, ".saying")
    shares = browser.execute_script(
        "return [...document.querySelectorAll('[data-word]')].map((n) => +n.style.getPropertyValue('--share'))"
    )
    reads = unpack(example["to_text"], 75, len(example["words"]))[:, :, 62].mean((0, 1))
    np.testing.assert_allclose(shares, 0.6 * reads / reads.max(), atol=0.001)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 1280
    assert complaints(browser) == []
