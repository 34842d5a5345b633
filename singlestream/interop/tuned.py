"""Runs that were tuned from published weights: the heads of their family, and how they are written back.

What a run keeps of the weights it started from is their `origin`, a few names and their `config.json`; everything else
its own settings and heads tell.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from singlestream.batch import Spec
from singlestream.interop.build import families
from singlestream.interop.forms import architecture, forms_for, join
from singlestream.interop.plan import LABELS, Plan, named_labels
from singlestream.interop.rules import WeightsError
from singlestream.model.heads import HeadConfig
from singlestream.model.two_stream_config import ModelSettings

# Of the weights' config.json, what is not true of a run's: names of answers, and the numbers' type.
NOT_INHERITED = (*LABELS, "num_labels", "dtype", "torch_dtype")
ONE_EACH = ("pooled", "second_last")  # sources that give one vector an example


def origin_of(plan: Plan) -> dict[str, Any] | None:
    """What a run has to remember of published weights, as JSON; None of a start, whose family has no heads to write."""
    if not _is_written(plan.family):
        return None
    return {"family": plan.family, "dialect": plan.dialect, "settings": dict(plan.settings)}


def family_heads(plan: Plan, heads: Mapping[str, HeadConfig]) -> dict[str, HeadConfig]:
    """The heads of objectives, in the form that the family of published weights has for them.

    That is the weights' own head of the name, else what the family's files can hold; the size is the objective's. A
    head that the family does not know, or that reads something else there, stays what it is.
    """
    forms = families()[plan.family].forms(plan.dialect, "") if _is_written(plan.family) else []
    known = {**{form.name: form.head for form in reversed(forms)}, **plan.heads}
    return {
        name: dataclasses.replace(known[name], size=head.size)
        if name in known and _read_alike(known[name], head)
        else head
        for name, head in heads.items()
    }


def family_rows(plan: Plan, heads: Collection[str]) -> dict[str, Any]:
    """How rows are made for these heads of a family, other than by default: fields of `DataConfig`."""
    family = families()[plan.family]
    return family.rows(plan.config, heads) if hasattr(family, "rows") else {}


def _is_written(name: str) -> bool:
    """Whether the family has what writes a run; BERT and ViT have not."""
    return hasattr(families().get(name), "forms")


def _read_alike(one: HeadConfig, other: HeadConfig) -> bool:
    return one.source == other.source or (one.source in ONE_EACH and other.source in ONE_EACH)


def tuned_plan(
    origin: Mapping[str, Any],
    config: ModelSettings,
    spec: Spec,
    heads: Mapping[str, HeadConfig],
    answers: Sequence[str],
) -> Plan:
    """How a run is written as published weights; `plan.heads` are those that are.

    In transformers' dialect those of one class, since it opens no other file without complaint: the first of the
    family's that the run has all heads of, or the model without any. Tied weights are written once.

    Args:
        origin: from `origin_of`.
        config, spec, heads, answers: the run's.

    Raises:
        WeightsError: `origin` names no family or dialect that there is.
    """
    name, dialect = origin["family"], origin["dialect"]
    if not _is_written(name):
        raise WeightsError(f"the run started from {name!r}, a family that is not written here")
    family = families()[name]
    written = {form.name: form.head for form in forms_for(heads, family.forms(dialect, ""))}
    if dialect == "transformers":
        kind = architecture(family.ARCHITECTURES, written)
        written = {name: head for name, head in written.items() if name in (*kind.heads, *kind.optional)}
    prefix = family.standard_prefix(dialect, written)
    rules = join(family.body(config, dialect, prefix), forms_for(written, family.forms(dialect, prefix)))
    inherited = {key: value for key, value in origin["settings"].items() if key not in NOT_INHERITED}
    settings = {**inherited, **family.config_json(dialect, config, spec, written)}
    return Plan(
        family=name,
        dialect=dialect,
        config=config,
        spec=spec,
        heads=written,
        rules=dataclasses.replace(rules, copies=()),
        settings={**settings, **(named_labels(answers) if "vqa" in written else {})},
    )
