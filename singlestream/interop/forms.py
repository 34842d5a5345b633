"""The heads that a family has: each said once, for the files that are read and for the runs that are written."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence

from singlestream.interop.parts import linear, norm, one, transform
from singlestream.interop.plan import shape_of
from singlestream.interop.rules import Constant, Copy, Rule, Rules, Tensor
from singlestream.model.heads import HeadConfig

ANY = 0  # size of a head that a file or a run has yet to say


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeadForm:
    """A head as the files of a family hold it.

    Attributes:
        name: ours.
        head: what it computes, of any size.
        size_key: the key whose first axis is its size; a file that has the key has the head.
        rules, copies: where its numbers are.
    """

    name: str
    head: HeadConfig
    size_key: str
    rules: Sequence[Rule]
    copies: Sequence[Copy] = ()

    def sized(self, size: int) -> HeadForm:
        return dataclasses.replace(self, head=dataclasses.replace(self.head, size=size))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Architecture:
    """A class of transformers, the heads that it has, and those that its settings can give it."""

    name: str
    heads: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()


def linear_form(name: str, source: str, theirs: str) -> HeadForm:
    """A projection and no more."""
    head = HeadConfig(size=ANY, source=source)
    return HeadForm(name=name, head=head, size_key=f"{theirs}.weight", rules=linear(f"heads/{name}/out", theirs))


def words_form(theirs: str, words: str) -> HeadForm:
    """BERT's masked-language head `theirs` (BertLMPredictionHead), whose decoder is the table `words`.

    transformers also writes the decoder's bias, which is the head's.
    """
    return HeadForm(
        name="mlm",
        head=HeadConfig(kind="vocabulary", size=ANY, source="text"),
        size_key=f"{theirs}.bias",
        rules=[*transform("heads/mlm", f"{theirs}.transform"), one("heads/mlm/bias", f"{theirs}.bias")],
        copies=[
            Copy(key=f"{theirs}.decoder.weight", of=words),
            Copy(key=f"{theirs}.decoder.bias", of=f"{theirs}.bias"),
        ],
    )


def answers_form(name: str, source: str, theirs: str, *, kind: str = "answers") -> HeadForm:
    """Linear, GELU, LayerNorm, Linear: the answer heads of LXMERT, UNITER and ViLBERT."""
    ours = f"heads/{name}"
    return HeadForm(
        name=name,
        head=HeadConfig(kind=kind, size=ANY, source=source),
        size_key=f"{theirs}.3.weight",
        rules=[
            *linear(f"{ours}/hidden", f"{theirs}.0"),
            *norm(f"{ours}/norm", f"{theirs}.2"),
            *linear(f"{ours}/out", f"{theirs}.3"),
        ],
    )


def forms_in(tensors: Mapping[str, Tensor], forms: Sequence[HeadForm]) -> list[HeadForm]:
    """The heads that a file has, with its sizes; of two forms of one head, both of which are there, the later."""
    found = {form.name: form for form in forms if form.size_key in tensors}
    return [form.sized(shape_of(tensors, form.size_key)[0]) for form in found.values()]


def forms_for(heads: Mapping[str, HeadConfig], forms: Sequence[HeadForm]) -> list[HeadForm]:
    """The forms that a run's heads have, with their sizes: the first that fits; none where a head has no form."""
    found: dict[str, HeadForm] = {}
    for form in forms:
        head = heads.get(form.name)
        if head is not None and form.sized(head.size).head == head:
            found.setdefault(form.name, form.sized(head.size))
    return list(found.values())


def heads_of(forms: Sequence[HeadForm]) -> dict[str, HeadConfig]:
    return {form.name: form.head for form in forms}


def join(
    body: Sequence[Rule],
    forms: Sequence[HeadForm],
    *,
    copies: Sequence[Copy] = (),
    constants: Sequence[Constant] = (),
) -> Rules:
    """The rules of a model and of its heads, and whatever else its file holds."""
    return Rules(
        rules=[*body, *(rule for form in forms for rule in form.rules)],
        copies=[*(copy for form in forms for copy in form.copies), *copies],
        constants=constants,
    )


def architecture(known: Sequence[Architecture], heads: Collection[str]) -> Architecture:
    """The first class all of whose heads are there; the last of `known` has none."""
    return next(each for each in known if set(each.heads) <= set(heads))
