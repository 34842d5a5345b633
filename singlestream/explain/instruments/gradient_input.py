"""Gradient x input over the embedded tokens: the cheapest of its kind, and the baseline for the others."""

from __future__ import annotations

import jax

from singlestream.explain.embedded import split, way
from singlestream.explain.question import Question, Relevance
from singlestream.model.build import AnyModel


def explain(model: AnyModel, question: Question) -> Relevance:
    """The answer's change to first order if a token became blank, with the sign turned.

    Gradient times input (Shrikumar et al. 2016), the input counted from the blank batch of `embedded.blank`.
    """
    full, empty, answers = way(model, question)
    gradient = jax.grad(lambda x: answers(x).sum())(full)
    return split(jax.tree.map(lambda x, start, slope: (x - start) * slope, full, empty, gradient), question)
