"""Scores of captions are those of the library's own evaluation."""

from __future__ import annotations

import importlib.util
import random
import shutil

import pytest

from singlestream.caption_scores import caption_scores, missing

WORDS = "a the two red ring, rings cross (small) large left-of 'under' and. is it? dog's DOG !".split()


def test_a_picture_without_a_reference_is_an_error():
    with pytest.raises(ValueError, match="2 captions, 1 lists"):
        caption_scores(["a", "b"], [["a"]])
    with pytest.raises(ValueError, match="each needs one or more"):
        caption_scores(["a"], [[]])


def test_what_has_to_be_installed_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "pycocoevalcap is not installed: pip install" in missing()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert "install Java" in missing()


@pytest.mark.skipif(bool(missing()), reason=missing())
def test_five_hundred_captions_score_as_the_librarys_own_evaluation(monkeypatch):
    """`COCOEvalCap.evaluate` itself, without METEOR and SPICE, whose programs it would download."""
    evaluation = pytest.importorskip("pycocoevalcap.eval")
    draw = random.Random(0)

    def text() -> str:
        return " ".join(draw.choices(WORDS, k=draw.randint(3, 12)))

    captions = [text() for _ in range(500)]
    references = [[text() for _ in range(draw.randint(1, 5))] + [captions[i]] * (i % 3 == 0) for i in range(500)]

    class Nothing:
        def method(self):
            return "nothing"

        def compute_score(self, truth, said):
            return 0.0, []

    class Truth:
        imgToAnns = {i: [{"caption": each} for each in some] for i, some in enumerate(references)}

        def getImgIds(self):
            return list(self.imgToAnns)

    class Said(Truth):
        imgToAnns = {i: [{"caption": each}] for i, each in enumerate(captions)}

    monkeypatch.setattr(evaluation, "Meteor", Nothing)
    monkeypatch.setattr(evaluation, "Spice", Nothing)
    own = evaluation.COCOEvalCap(Truth(), Said())
    own.evaluate()
    names = {"ROUGE_L": "rouge_l", "CIDEr": "cider", **{f"Bleu_{n}": f"bleu_{n}" for n in range(1, 5)}}
    expected = {names[name]: float(value) for name, value in own.eval.items() if name in names}
    assert caption_scores(captions, references) == expected
    assert 0 < expected["bleu_4"] < 1 and expected["cider"] > 0
