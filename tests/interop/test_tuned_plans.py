"""How runs are written: every family and dialect, read again by its own rules. No torch."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flax import nnx

import singlestream as ss
from singlestream import interop
from singlestream.batch import Spec
from singlestream.interop import uniter
from singlestream.interop.build import answer_names, build, by_path, families, find_plan, unbuild
from singlestream.interop.plan import Plan
from singlestream.interop.rules import Rules
from singlestream.interop.tuned import family_heads, family_rows, tuned_plan
from singlestream.model.attention.config import AttentionConfig
from singlestream.model.build import build_model
from singlestream.model.config import ModelConfig
from singlestream.model.heads import HeadConfig
from singlestream.model.pruning.config import PruningConfig
from singlestream.model.two_stream_config import TwoStreamConfig
from tests.interop.compare import held
from tests.interop.toy_vilt import write_vilt

ANSWERS = ("no", "yes")  # as few as NLVR2's
SPEC = Spec(vocab_size=30, num_answers=len(ANSWERS))
SMALL = dict(width=16, num_layers=2, num_heads=2, mlp_dim=24, max_text_length=12, pooler=True)
STREAMS = dict(width=16, num_heads=2, mlp_dim=24, cross_width=16, cross_heads=2, image_width=16, image_heads=2)
STREAMS |= dict(image_mlp_dim=24, region_dim=20, max_text_length=12)
REGIONS = dict(norm="post", norm_eps=1e-12, image_stem="regions", region_dim=20, **SMALL)
VILT = dict(text_norm=True, modality="pictures", image_grid=(3, 3), position_resize="corners", image_cls=True, **SMALL)
VISUALBERT = dict(embed_norm=True, modality="image", image_positions="constant", **REGIONS)
MODELS: dict[tuple[str, str], Any] = {
    ("vilt", "transformers"): ModelConfig(norm_eps=1e-12, **VILT),
    ("vilt", "authors"): ModelConfig(norm_eps=1e-6, embed_norm_eps=1e-12, **VILT),
    ("visualbert", "transformers"): ModelConfig(first_image_type=1, **VISUALBERT),
    ("visualbert", "authors"): ModelConfig(num_images=2, **VISUALBERT),
    ("uniter", "authors"): ModelConfig(
        text_norm=True, image_norm="each", modality="token_types", image_positions="boxes7", **REGIONS
    ),
    ("lxmert", "transformers"): TwoStreamConfig.named("lxmert_tiny", **STREAMS),
    ("lxmert", "authors"): TwoStreamConfig.named("lxmert_tiny", **STREAMS),
    ("vilbert", "authors"): TwoStreamConfig.named("vilbert_tiny", **STREAMS),
}
# Heads of objectives, by the objectives.
HEADS = {
    "vqa": HeadConfig(kind="classifier", size=len(ANSWERS)),
    "mlm": HeadConfig(kind="vocabulary", size=SPEC.vocab_size, source="text"),
    "itm": HeadConfig(size=2),
    "locate_region": HeadConfig(size=5, source="image"),
}


def written(family: str, dialect: str, *names: str) -> tuple[Plan, dict[str, HeadConfig]]:
    """How a run with some of the objectives is written, and its heads."""
    config = MODELS[family, dialect]
    bare = Plan(family=family, dialect=dialect, config=config, spec=SPEC, heads={}, rules=Rules(rules=()))
    heads = family_heads(bare, {name: HEADS[name] for name in names})
    origin = {"family": family, "dialect": dialect, "settings": {"dtype": "float16", "id2label": {"0": "old"}}}
    return tuned_plan(origin, config, SPEC, heads, ANSWERS), heads


def check_written(family: str, dialect: str, *names: str) -> list[str]:
    """What is written is read again as the same; returns the keys."""
    plan, heads = written(family, dialect, *names)
    module = build_model(plan.config, SPEC, heads=heads, rngs=nnx.Rngs(params=0))
    tensors = held(dict(unbuild(plan, module)))
    again = find_plan(tensors, plan.settings, where="the test")
    assert (again.family, again.dialect, again.heads) == (family, dialect, dict(plan.heads))
    assert dataclasses.replace(again.config, dropout=0.0, attention_dropout=0.0) == plan.config
    mine = by_path(module)
    for path, value in by_path(build(again, tensors, where="the test")[0]).items():
        np.testing.assert_array_equal(value, mine[path], err_msg=path)
    assert answer_names(again) == (ANSWERS if "vqa" in plan.heads else ())
    return list(tensors)


def test_every_family_is_here():
    assert {family for family, _ in MODELS} == {name for name, each in families().items() if hasattr(each, "forms")}


@pytest.mark.parametrize(("family", "dialect"), MODELS)
@pytest.mark.parametrize("names", [("vqa",), ("mlm", "itm", "locate_region")])
def test_what_is_written_is_read_again(family, dialect, names):
    check_written(family, dialect, *names)


def test_a_family_is_one_file(tmp_path, monkeypatch):
    """Found by its name, read and written: UNITER's file with other keys."""
    source = Path(uniter.__file__).read_text(encoding="utf-8").replace("img_", "pic_").replace('"uniter', '"newcomer')
    (tmp_path / "newcomer.py").write_text(source, encoding="utf-8")
    monkeypatch.setattr(interop, "__path__", [*interop.__path__, str(tmp_path)])
    monkeypatch.setitem(MODELS, ("newcomer", "authors"), MODELS["uniter", "authors"])
    keys = check_written("newcomer", "authors", "vqa")
    assert "newcomer.pic_embeddings.pic_linear.weight" in keys
    assert all(key.startswith(("newcomer.", "vqa_output.")) for key in keys)


@pytest.mark.parametrize(
    ("family", "names", "architecture", "kept"),
    [
        ("vilt", ("vqa", "mlm"), "ViltForQuestionAnswering", ("vqa",)),
        ("vilt", ("mlm", "itm"), "ViltForMaskedLM", ("mlm",)),
        ("vilt", ("itm", "locate_region"), "ViltModel", ()),
        ("visualbert", ("vqa", "mlm", "itm"), "VisualBertForQuestionAnswering", ("vqa",)),
        ("visualbert", ("mlm", "itm", "locate_region"), "VisualBertForPreTraining", ("mlm", "itm")),
        ("visualbert", ("mlm",), "VisualBertModel", ()),
        ("lxmert", ("vqa", "mlm"), "LxmertForQuestionAnswering", ("vqa",)),
        ("lxmert", ("vqa", "mlm", "itm"), "LxmertForPreTraining", ("vqa", "mlm", "itm")),
    ],
)
def test_the_class_is_one_that_has_the_heads(family, names, architecture, kept):
    plan, _ = written(family, "transformers", *names)
    assert plan.settings["architectures"] == [architecture] and set(plan.heads) == set(kept)
    assert ("id2label" in plan.settings) == ("vqa" in kept) and "dtype" not in plan.settings


def test_the_authors_dialects_hold_every_head_that_they_know():
    for family, dialect in MODELS:
        if dialect == "authors":
            plan, heads = written(family, dialect, *HEADS)
            assert set(plan.heads) == {"vqa", "mlm", "itm"} and set(heads) == set(HEADS), family


def test_rows_are_those_of_the_family_and_the_task():
    config = TwoStreamConfig.named("vilbert_tiny", num_tasks=3, **STREAMS)
    plan = dataclasses.replace(written("vilbert", "authors")[0], config=config)
    assert family_rows(plan, ("vqa",)) == {"mean_region": True, "task": 1}
    assert family_rows(plan, ("mlm",)) == {"mean_region": True}
    asking, learning = (family_rows(written("visualbert", "authors")[0], names) for names in (("vqa",), ("mlm", "itm")))
    assert asking == {"mask_last": True} and learning == {}


def test_a_heads_form_is_that_of_the_weights_before_that_of_the_family():
    """The first ViLBERT answers in another way than the second; the size is the run's."""
    old = HeadConfig(kind="weight_norm", size=7)
    plan, _ = written("vilbert", "authors")
    ours = family_heads(dataclasses.replace(plan, heads={"vqa": old}), HEADS)
    assert ours["vqa"] == dataclasses.replace(old, size=len(ANSWERS))
    assert family_heads(plan, HEADS)["vqa"].kind == "answers"
    other = {"grounding": HeadConfig(size=4)}  # of the same name, but of an example and not of its regions
    assert family_heads(plan, other) == other


@pytest.mark.parametrize(
    "changes",
    [{"attention": AttentionConfig(score="cosine")}, {"pruning": PruningConfig(method="drop", layers=(1,), keep=0.5)}],
    ids="".join,
)
def test_settings_that_no_published_file_can_say_are_not_written(tmp_path, changes):
    write_vilt(tmp_path / "vilt", ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a"], ["yes", "no"])
    model = ss.load(tmp_path / "vilt")
    model.save_pretrained(tmp_path / "same")
    model.plan = dataclasses.replace(model.plan, config=dataclasses.replace(model.plan.config, **changes))
    (name,) = changes
    with pytest.raises(ss.ConfigError, match=rf"config\.model\.{name} is .*, and no file of vilt says so"):
        model.save_pretrained(tmp_path / "other")
    assert not (tmp_path / "other").exists()
