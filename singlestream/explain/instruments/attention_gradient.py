"""Attention x gradient: weights, where a larger one would raise the answer (Grad-SAM, Barkan et al. 2021)."""

from __future__ import annotations

from singlestream.explain.layers import attention_and_gradient, joined, positive, relevance_of
from singlestream.explain.question import Question, Relevance
from singlestream.model.build import AnyModel


def explain(model: AnyModel, question: Question) -> Relevance:
    """The mean over layers and heads of (gradient x weight)+; of two streams by `layers.joined`."""
    return relevance_of(model, question, joined(model, positive(*attention_and_gradient(model, question))).mean(0))
