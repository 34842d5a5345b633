"""Answers normalised and given points as the VQA benchmark's own code does it: equal on 5,000, bit for bit."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

from singlestream.data.official_vqa import accuracy, normalise, points
from tests.data.vqa_recipe import CASES, cases

GOLDEN = Path(__file__).parent / "golden" / "official_vqa.json.gz"


def test_every_answer_is_read_and_scored_as_the_official_code_does():
    golden = json.loads(gzip.decompress(GOLDEN.read_bytes()))
    given = cases()
    assert len(golden["normal"]) == len(golden["percent"]) == len(given) == CASES
    assert [normalise(said) for said, _ in given] == golden["normal"]
    assert [100 * accuracy(said, answers) for said, answers in given] == golden["percent"]
    # The cases reach every score, and both kinds of agreement.
    assert {round(percent) for percent in golden["percent"]} == {0, 30, 60, 90, 100}
    assert 500 < sum(len(set(answers)) == 1 for _, answers in given) < 2000


def test_points_are_the_accuracies_of_what_was_said():
    for _, answers in cases()[::50]:
        found = points(answers)
        assert found == {said: accuracy(said, answers) for said in found}
        assert list(found.values()) == sorted(found.values(), reverse=True)
        assert accuracy("nobody said this", answers) == 0
