"""The mean of the attention weights over all layers and heads."""

from __future__ import annotations

from singlestream.explain.layers import attention_of, joined, over_heads, relevance_of
from singlestream.explain.question import Question, Relevance
from singlestream.model.build import AnyModel


def explain(model: AnyModel, question: Question) -> Relevance:
    """Of two streams a layer counts as one matrix over all tokens, 0 where nothing is read (`layers.joined`)."""
    return relevance_of(model, question, joined(model, over_heads(attention_of(model, question))).mean(0))
