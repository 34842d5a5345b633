"""The corpus of the trained experiments, and that each claim, judged by the runs on the page, can be broken."""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from pathlib import Path

import jax
import numpy as np
import pytest

from lab import (
    c16_pruning,
    c20_hops,
    c21_streams,
    c22_fusion,
    c23_alignment,
    c24_both_ways,
    pairs,
    report,
    rows,
    small,
)
from lab.experiment import find, load, passed

RUNS = rows.read(Path(__file__).with_name("trained.jsonl"))  # of the page: runs/lab.jsonl, kept
PAGE = Path(__file__).parents[2] / "docs" / "theory.md"
TRAINED = [number for number in find() if load(number).arms]
REFUTED = (20, 21, 22)  # claims that fail as they stand: see docs/theory.md


@functools.cache
def start(config):
    """Parameters before any training; directions of one model share them."""
    return small.untrained(small.key_of(0), config)


def results(number, change=lambda arm, result: {}):
    """What `judge` gets, each run with something changed."""
    experiment = load(number)
    found = {arm: [RUNS[number, seed, arm] for seed in experiment.seeds] for arm in experiment.arms}
    return [
        {arm: {**found[arm][i], **change(arm, found[arm][i])} for arm in experiment.arms}
        for i in range(len(experiment.seeds))
    ]


def random_tokens(arm, result):
    """What is kept by the attention of a model that has learned nothing."""
    question, config = pairs.sparse(np.random.default_rng(0), 64), c16_pruning.config_of(3)
    kept = c16_pruning.measure(start(c16_pruning.config_of(12)), config, question)[1]
    return {"kept": [1.0, 1.0, 1.0, float(np.mean(kept)), 0.0]}


def all_ways(arm, result):
    """Words that read each other, where they should be a sum."""
    both = c20_hops.config_of("both")
    return {"words": small.interaction(start(both), both, "pair", "words")} if "words" in result else {}


def wider(arm, result):
    """Two streams that have as many numbers as they like."""
    return c21_streams.sizes(small.TWO) if arm == "two, parameters" else {}


def multiplied(arm, result):
    """A late product in place of the late sum."""
    config = dataclasses.replace(c22_fusion.config_of("late product"), text_layers=1, image_layers=1)
    return {"sides": small.interaction(start(config), config, "read", "sides")} if "sides" in result else {}


def cut(arm, result):
    """The gradient where no cross attention carries it."""
    config = c23_alignment.config_of("apart")
    norms = c23_alignment.gradients(start(config), config, pairs.name(np.random.default_rng(0), 8))
    return {"share": float(norms["image"] / norms["text"])}


def unlearned(arm, result):
    """The spotlight of a model that was not trained."""
    config, (way, kind, _) = c24_both_ways.config_of(arm), c24_both_ways.ASKING[arm]
    return {"pointing": small.pointing(start(config), config, kind)[way]}


BREAKS = {16: random_tokens, 20: all_ways, 21: wider, 22: multiplied, 23: cut, 24: unlearned}


@pytest.mark.slow
@pytest.mark.parametrize("number", TRAINED)
def test_fails_without_its_mechanism(number):
    judge = load(number).module.judge
    change = functools.cache(lambda arm: BREAKS[number](arm, RUNS[number, 0, arm]))  # of each arm once
    whole, broken = judge(results(number)), judge(results(number, lambda arm, result: change(arm)))
    assert passed(whole) == (number not in REFUTED)
    assert any(was.passed and not now.passed for was, now in zip(whole, broken, strict=True))


@pytest.mark.parametrize("number", TRAINED)
def test_the_page_shows_these_runs(number):
    experiment = load(number)
    lines = report.rows(experiment, experiment.module.judge(results(number)))[1:]
    assert "\n".join(lines) in PAGE.read_text(encoding="utf-8")


CELL = re.compile(r"\| \d+ \| (.+) \| (\S+) \| (\S+) to (\S+) \| (.*) \| (pass|FAIL|) \|")


@pytest.mark.parametrize("number", find())
def test_the_page_says_what_the_file_says_and_its_numbers(number):
    """Claim, parts, and verdicts that follow from what was measured and what was wanted."""
    experiment = load(number)
    (section,) = re.findall(rf"^## {number}\. .*?(?=^## \d|\Z)", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    assert section.startswith(f"## {number}. {experiment.claim.rstrip('.')}\n")
    for name, text in experiment.parts.items():
        assert f"**{name}:** {text}\n" in section
    verdicts = []
    for _, median, smallest, largest, wanted, verdict in CELL.findall(section):
        low, middle, high = float(smallest), float(median), float(largest)
        assert low <= middle <= high
        least, most = (
            float(found[1]) if (found := re.search(rf"{word} (\S+?)(?:,|$)", wanted)) else bound
            for word, bound in (("at least", -math.inf), ("at most", math.inf))
        )
        assert bool(verdict) == bool(wanted)
        if verdict == "pass":
            assert least <= low and high <= most
        verdicts.append(verdict)
    assert any(verdicts)
    assert f"**{'FAIL' if 'FAIL' in verdicts else 'pass'}**\n" in section
    assert all((PAGE.parent / image).is_file() for image in re.findall(r"!\[.*?\]\((\S+?)\)", section))


def the_answer(kind, things, words, types):
    """By reading the question: things are (colour, shape, mark)."""
    colour = {thing[0]: thing for thing in things}
    if kind in ("read", "sparse"):
        return colour[words[1]][2]
    if kind == "pair":
        return next(m for c, s, m in things if (c, pairs.COLOURS + s) == tuple(words))
    if kind == "chain":
        return next(m for c, s, m in things if s == colour[words[1]][1] and m != pairs.NONE)
    if kind == "twice":
        marks = [m for _, _, m in things]
        return next(m for m in marks if marks.count(m) == 2)
    if kind == "last":
        return max(words) - pairs.COLOURS
    if kind == "name":
        return next(m for c, s, m in things if words[0] in (c, pairs.COLOURS + s))
    thing = next(thing for thing in things if thing[0] != pairs.NONE)
    return next(t for w, t in zip(words, types, strict=True) if w in (thing[0], pairs.COLOURS + thing[1]))


@pytest.mark.parametrize("kind", pairs.KINDS)
def test_questions_have_the_answers_that_they_say(kind):
    question = pairs.KINDS[kind](np.random.default_rng(0), 50)
    for things, words, types, named, answer in zip(*(x.tolist() for x in question), strict=True):
        assert the_answer(kind, things, words, types) == answer
        for word, place in zip(words, named, strict=True):
            assert place == pairs.NONE or word in (things[place][0], pairs.COLOURS + things[place][1])
    assert len(set(question.named[question.named != pairs.NONE].tolist())) != 1  # things are laid in any order


@pytest.mark.parametrize("config", [c20_hops.config_of("three hops"), small.TWO], ids=["one stream", "two"])
def test_training_takes_a_step_and_tells_what_is_right(config):
    """Shapes alone: compiling a training takes longer than all of this file."""
    rng = np.random.default_rng(0)
    seen = pairs.Question(*(x[None] for x in pairs.questions(rng, ("read", "pair"), 4)))
    new = pairs.questions(rng, ("read",), 6)
    params, losses, right = small.fit.eval_shape(small.key_of(0), config, seen, new, 1e-3)
    assert (losses.shape, right.shape) == ((1,), (6,))
    first = small.untrained.eval_shape(small.key_of(0), config)
    assert jax.tree.map(lambda x: x.shape, params) == jax.tree.map(lambda x: x.shape, first)
