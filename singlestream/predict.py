"""A trained model in Python: pictures and questions in, answers out; or a batch in, everything out."""

from __future__ import annotations

import dataclasses
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, overload

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from singlestream.batch import Batch, Encoded, Spec
from singlestream.config import Config, ConfigError
from singlestream.data.audio import Sound
from singlestream.data.processor import Processor
from singlestream.data.record import DataError
from singlestream.data.visual import Visual
from singlestream.interop.build import save
from singlestream.interop.plan import Plan
from singlestream.interop.rules import Account
from singlestream.model.answering import WANTED, answering, probabilities
from singlestream.model.build import AnyModel
from singlestream.model.captions import WRITING, Caption, Search, Writer, writing
from singlestream.model.pruning.config import PruningConfig
from singlestream.model.pruning.run import set_pruning
from singlestream.model.single_stream import SingleStream

MAX_ROWS = 64  # of a batch of `predict`; a longer list takes several

# One example's pictures: one of them, or a tuple of several.
Pictures = Visual | tuple[Visual, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prediction:
    """An answer, its probability, and the probability of every answer the model knows, the highest first.

    Of a run on `classify` answers are labels. With its option `several` each label is there or not: the probabilities
    do not add up to 1, and those above one half are the labels that the run gives.
    """

    answer: str
    probability: float
    probabilities: Mapping[str, float]


class Model:
    """A model with what it needs to read pictures and texts. `singlestream.load` makes one from a folder.

    Attributes:
        module: the Flax NNX module, for use in other JAX code.
        graphdef, params: its two halves, for `jax.jit`: `nnx.merge(graphdef, params)` is the module.
        spec: sizes of vocabulary and answers, ids of special tokens; by default the processor's.
        step: of its checkpoint; 0 for published weights.
        plan, account: of published weights, which family and dialect they are, and what came from where. A run that was
            tuned from such weights has a plan, how `save_pretrained` writes it; any other run has neither.
    """

    def __init__(
        self,
        *,
        module: AnyModel,
        processor: Processor | None,
        config: Config | None,
        spec: Spec | None = None,
        step: int = 0,
        plan: Plan | None = None,
        account: Account | None = None,
    ):
        self.account = account
        self._processor, self._config, self.step, self.plan = processor, config, step, plan
        self.spec = spec or self.processor.spec
        self.graphdef, state = nnx.split(module)
        # Once: parameters in numpy would travel to the device with every call.
        self.params: dict[str, Any] = jax.device_put(nnx.to_pure_dict(state))
        self.module: AnyModel = nnx.merge(self.graphdef, self.params)
        self._encode = jax.jit(self._encode_fn, static_argnames="attention")
        self._answer = jax.jit(self._answer_fn)
        self._writers: dict[Search, Writer] = {}

    @property
    def processor(self) -> Processor:
        """Raises ConfigError where published weights came without a vocabulary."""
        if self._processor is None:
            raise ConfigError("these weights came without a vocabulary (vocab.txt beside them): give batches instead")
        return self._processor

    @property
    def config(self) -> Config:
        """The settings of the run; of published weights those of model and data. Raises ConfigError as `processor`."""
        if self._config is None:
            raise ConfigError("these weights came without a vocabulary (vocab.txt beside them), so without settings")
        return self._config

    def move_data(self, folder: str) -> None:
        """From now on the data lies in another folder than `config.data.dir` says."""
        self._config = dataclasses.replace(self.config, data=dataclasses.replace(self.config.data, dir=folder))

    def pruned(self, **settings: Any) -> Model:
        """The same model, with the same parameters, whose later layers do without some image tokens.

        Args:
            settings: of `PruningConfig` (`config.model.pruning`), such as `keep=0.5`, `layers=(2,)`, `method="merge"`;
                what is not named is as in that class, so `pruned()` keeps every token.

        Raises:
            ConfigError: settings that do not go together or with this model, or a model of two streams.
        """
        module = nnx.merge(self.graphdef, self.params)
        if not isinstance(module, SingleStream):
            raise ConfigError("pruned needs a single-stream model: of two streams, each reads the other whole")
        unknown = settings.keys() - {field.name for field in dataclasses.fields(PruningConfig)}
        if unknown:
            names = ", ".join(field.name for field in dataclasses.fields(PruningConfig))
            raise ConfigError(f"pruned: no setting {', '.join(sorted(unknown))}: choose of {names}")
        try:
            set_pruning(module, PruningConfig(**settings))
        except ValueError as error:
            raise ConfigError(str(error)) from error
        config = self._config and dataclasses.replace(self._config, model=module.config)
        known: dict[str, Any] = {"spec": self.spec, "step": self.step, "plan": self.plan, "account": self.account}
        return Model(module=module, processor=self._processor, config=config, **known)

    @property
    def answers(self) -> tuple[str, ...]:
        """The answers that it knows, by id."""
        return self.processor.answers

    @property
    def heads(self) -> Any:
        """The heads by name: `model.heads["vqa"](model(batch))` are logits [B, K, answers]."""
        return self.module.heads

    @property
    def num_parameters(self) -> int:
        return sum(leaf.size for leaf in jax.tree.leaves(self.params))

    def __call__(self, batch: Batch, *, attention: bool = False) -> Encoded:
        """Encodes a batch (compiled once for its shapes).

        Args:
            batch: from `make_batch`, or from `processor.batch_of(images, texts)`.
            attention: also return the weights, `encoded.attention["self"]` [layers, B, H, L, L], text tokens first.

        Raises:
            BatchError: a field of the wrong shape or dtype, or out of range, by name.
        """
        self.module.check(batch)
        return self._encode(self.params, batch, attention=attention)

    @overload
    def predict(self, image: Pictures, text: str, *, audio: Sound | None = None) -> Prediction: ...
    @overload
    def predict(
        self, image: Pictures | list[Any], text: str | list[str], *, audio: Sound | list[Any] | None = None
    ) -> Prediction | list[Prediction]: ...
    def predict(
        self, image: Pictures | list[Any], text: str | list[str], *, audio: Sound | list[Any] | None = None
    ) -> Prediction | list[Prediction]:
        """Answers a question about a picture, or many.

        Args:
            image: a path, PIL image or array ([H, W], [H, W, 3] or [H, W, 4]), or the regions that a detector found
                (`RegionFeatures`, or their file), whichever the model reads; a tuple holds the several pictures of
                one example; a list holds many examples.
            text: a question, or a list of them. One picture serves many questions, one question many pictures.
            audio: what is heard with the picture, where the model reads audio: a file .wav, or samples in [-1, 1],
                `config.data.audio_rate` a second; one for all, or a list, None for silence.

        Returns:
            A Prediction, or a list of them where picture, question or audio was a list.

        Warns:
            UserWarning: a question is longer than the run's `config.data.text_length` tokens, and is cut to it.

        Raises:
            DataError: a picture or sound that cannot be read, a sound for a model that reads none, an empty text, or
                lists of different lengths.
            ConfigError: the run has no answers (it was not trained on `vqa`, `nlvr` or `classify`).
        """
        if not answering(self.heads):
            raise ConfigError(f"predict needs the head {WANTED}; this run has {', '.join(self.heads) or 'none'}")
        length = next((len(v) for v in (text, image, audio) if isinstance(v, list)), None)
        single, length = length is None, 1 if length is None else length
        images, texts, sounds = (v if isinstance(v, list) else [v] * length for v in (image, text, audio))
        if len(images) != len(texts):
            raise DataError(f"{len(images)} images and {len(texts)} texts: expected one text for each image")
        if len(sounds) != len(texts):
            raise DataError(f"{len(sounds)} sounds and {len(texts)} texts: expected one sound (or None) for each text")
        results = [prediction for chunk in _chunks(images, texts, sounds) for prediction in self._predict(*chunk)]
        for cut in filter(self.processor.truncates, dict.fromkeys(texts)):  # type: ignore[arg-type]
            length = self.processor.data.text_length
            warnings.warn(f"the question {cut!r} is longer than {length} tokens, its end was not read", stacklevel=2)
        return results[0] if single else results

    def caption(self, image: Pictures | list[Any], search: Search | None = None) -> Caption | list[Caption]:
        """Writes a sentence about a picture, or many.

        Args:
            image: as in `predict`; a list holds many.
            search: how words are chosen, by default `Search()`: the most probable word each time.

        Raises:
            DataError: a picture that cannot be read.
            ConfigError: the run writes no captions (it was not trained on `caption` or `prefix_lm`).
        """
        search, head = search or Search(), writing(self.heads)
        if not head:
            wanted = " or ".join(repr(name) for name in WRITING)
            raise ConfigError(f"caption needs the head {wanted}; this run has {', '.join(self.heads) or 'none'}")
        if search not in self._writers:
            self._writers[search] = Writer(self.graphdef, head, self.processor.tokenizer, search)
        writer = self._writers[search]
        images = image if isinstance(image, list) else [image]
        # A row needs some text; what it says is not read.
        texts = [self.processor.tokenizer.token(self.processor.tokenizer.mask_id)] * len(images)
        chunks = (self._batch(*chunk) for chunk in _chunks(images, texts, [None] * len(images)))
        captions = [caption for batch, count in chunks for caption in writer(self.params, batch)[:count]]
        return captions if isinstance(image, list) else captions[0]

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Writes weights as published ones are: `model.safetensors`, `config.json`, and the processor's files.

        `transformers` opens the folder with `from_pretrained` where the family's dialect is its own. A run that began
        with published weights is written as the model of their family that has its heads, with its answers.

        Warns:
            UserWarning: heads of a run for which that model has no place, and which are not written.

        Raises:
            ConfigError: the model is of no published family, or has settings that no file of the family can say, or
                the folder is a run's, whose settings it would replace.
            WeightsError: the folder cannot be written.
        """
        if self.plan is None:
            raise ConfigError(
                "save_pretrained needs a model of a published family: published weights, or a run that config.init "
                "started from some; this run's model is its own"
            )
        if self.plan.fresh:
            raise ConfigError(f"this model is a start from {self.plan.family}, which is read and not written")
        if (Path(folder) / "spec.json").exists():
            raise ConfigError(
                f"{os.fspath(folder)} is a run's folder, which holds a config.json of its own: name another"
            )
        usual, own = type(self.plan.config)(), self.plan.config
        unsaid = [name for name in ("attention", "direction", "pruning") if hasattr(own, name)]
        changed = [name for name in unsaid if getattr(own, name) != getattr(usual, name)]
        if changed:
            raise ConfigError(
                f"save_pretrained: config.model.{changed[0]} is {getattr(own, changed[0])!r}, and no file of "
                f"{self.plan.family} says so; whoever opened it would compute something else"
            )
        left_out = sorted(set(self.heads) - set(self.plan.heads))
        if left_out:
            names = self.plan.settings.get("architectures") or (f"{self.plan.family} ({self.plan.dialect})",)
            warnings.warn(f"not written: {', '.join(left_out)}; {names[0]} has no such head", stacklevel=2)
        save(self.plan, self.module, folder)
        if self._processor is not None:
            self._processor.save_pretrained(os.fspath(folder))

    def _predict(self, *examples: Sequence[Any]) -> Iterator[Prediction]:
        batch, count = self._batch(*examples)
        for row in np.asarray(self._answer(self.params, batch))[:count, 0]:
            order = np.argsort(-row, kind="stable")
            probabilities = {self.answers[i]: float(row[i]) for i in order}
            yield Prediction(
                answer=self.answers[order[0]], probability=float(row[order[0]]), probabilities=probabilities
            )

    def _batch(self, *examples: Sequence[Any]) -> tuple[Batch, int]:
        """Rows of one example each (pictures, texts, sounds), and how many of them count."""
        count = len(examples[0])
        spare = (1 << (count - 1).bit_length()) - count  # few sizes of a batch, so that few programs are compiled
        return self.processor.batch_of(*([*part, *[part[-1]] * spare] for part in examples)), count

    def _encode_fn(self, params: Any, batch: Batch, *, attention: bool) -> Encoded:
        return nnx.merge(self.graphdef, params)(batch, attention=attention)

    def _answer_fn(self, params: Any, batch: Batch) -> Float[Array, "B K answers"]:
        module, head = nnx.merge(self.graphdef, params), answering(self.heads)
        return probabilities(module.heads[head](module(batch)), head, self.config)


def _chunks(*parts: Sequence[Any]) -> Iterator[list[Sequence[Any]]]:
    for start in range(0, len(parts[0]), MAX_ROWS):
        yield [part[start : start + MAX_ROWS] for part in parts]
