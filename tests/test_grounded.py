"""What an evaluation writes of grounding, beside what the heads say of each text read by itself."""

from __future__ import annotations

import dataclasses
import json

import jax
import numpy as np
import pytest
from flax import nnx

import singlestream as ss
from singlestream.config import Config, DataConfig, ModelConfig
from singlestream.data.pipeline import eval_batches
from singlestream.data.record import Mention, Record, RegionFeatures, Sentence
from singlestream.data.text import Tokenizer
from singlestream.grounded import ground_texts, summarise_groundings
from singlestream.model.boxes import iou
from singlestream.objectives.ground import OF, Objective, Options
from tests.model.test_boxes import random_boxes

A, B = random_boxes(5, 2)
TEXTS = ("the red thing", "a cat and dogs", "all of it")
# Of each text its phrases: characters and boxes. Two words of one thing are one phrase; what has two boxes is none.
NAMED = (((4, 7, [A]), (8, 13, [A])), ((2, 5, [B]), (10, 14, [A, B])), ())
PHRASES = [("a", "red thing", A), ("b", "cat", B)]
WHOLE = [("a", TEXTS[0], A), ("b", TEXTS[1], None), ("c", TEXTS[2], None)]


class Pictures:
    """Two records: a picture with three regions and the first two texts, another with the third."""

    region_classes = {}

    def __init__(self):
        said = [
            Sentence(
                id=name, text=text, mentions=tuple(Mention(start=s, end=e, boxes=np.stack(b)) for s, e, b in named)
            )
            for name, text, named in zip("abc", TEXTS, NAMED, strict=True)
        ]
        rng = np.random.default_rng(0)
        self.records = [
            Record(
                id=f"{i}",
                images=(),
                texts=texts,
                picture=i,
                regions=(RegionFeatures(features=rng.normal(size=(3, 6)).astype("f"), boxes=random_boxes(i, 3)),),
            )
            for i, texts in enumerate((tuple(said[:2]), tuple(said[2:])))
        ]

    def __len__(self):
        return len(self.records)

    def __getitem__(self, i):
        return self.records[i]

    def texts(self, i):
        return self.records[i].texts


@pytest.fixture(scope="module")
def model():
    """A model of random weights with the heads for both kinds of expressions."""
    shape = dict(image_stem="regions", image_positions="boxes", region_dim=6, width=16, num_layers=1, num_heads=2)
    config = Config(
        data=DataConfig(texts="captions", text_length=8, max_patches=4, mean_region=True, texts_per_row=2, copies=True),
        model=ModelConfig(mlp_dim=32, **shape),
        objectives={"ground": 1.0},
    )
    tokenizer = Tokenizer.train(TEXTS, 80)
    processor = ss.Processor(data=config.data, model=config.model, tokenizer=tokenizer, mentions=True)
    objectives = [Objective(Options(of=of)) for of in OF]
    heads = {k: head for each in objectives for k, head in each.heads(config.model, processor.spec).items()}

    def make():
        return ss.SingleStream(config.model, processor.spec, heads=heads, rngs=nnx.Rngs(params=0))

    params = jax.jit(lambda: nnx.state(make()))()
    return ss.Model(module=nnx.merge(nnx.graphdef(nnx.eval_shape(make)), params), processor=processor, config=config)


@pytest.fixture(scope="module")
def said(model):
    """The logits of both heads for each text alone with its picture."""
    source = Pictures()
    batch = model.processor.batch_of([source[i].regions[0] for i in (0, 0, 1)], TEXTS)

    @jax.jit
    def read(params, batch):
        module = nnx.merge(model.graphdef, params)
        encoded = module(batch)
        return {name: head(encoded) for name, head in module.heads.items()}

    return jax.device_get(read(model.params, batch))


@pytest.mark.parametrize(("of", "asked"), [("phrases", PHRASES), ("texts", WHOLE)])
def test_lines_are_what_the_heads_say(model, said, of, asked):
    source = Pictures()
    config = dataclasses.replace(model.config, objective_options={"ground": {"of": of}})
    run = ss.Model(module=model.module, processor=model.processor, config=config)
    found = ground_texts(run, eval_batches(source, model.processor, batch_size=2))
    lines = [json.loads(each.to_json()) for each in found]
    hits = []
    for line, (name, phrase, truth) in zip(lines, asked, strict=True):
        number = "abc".index(name)
        record, text = source[number // 2], TEXTS[number]
        assert (line["id"], line["phrase"]) == (name, phrase) == (name, text[slice(*line["characters"])])
        if of == "texts":
            scores = said["grounding"][number, :, 0]
        else:
            spans = model.processor.tokens(text).spans
            (last,) = (i for i, span in enumerate(spans) if span[1] == line["characters"][1])
            scores = said["phrase"][number, last]
        assert line["region"] == scores[:4].argmax() - 1  # the mean of all comes first
        box = np.array([0, 0, 1, 1]) if line["region"] < 0 else record.regions[0].boxes[line["region"]]
        np.testing.assert_allclose(line["box"], box, atol=1e-6)
        if truth is None:
            assert line["truth"] is line["iou"] is None
            continue
        np.testing.assert_allclose(line["truth"], truth, atol=1e-6)
        assert line["iou"] == pytest.approx(float(iou(np.asarray(line["box"]), truth)), abs=1e-5)
        hits.append(line["iou"] >= 0.5)
    metrics = summarise_groundings(found)
    assert metrics["ground/expressions"] == len(asked) and metrics["ground/accuracy"] == np.mean(hits)
    assert metrics["ground/accuracy/low"] <= metrics["ground/accuracy"] <= metrics["ground/accuracy/high"]
