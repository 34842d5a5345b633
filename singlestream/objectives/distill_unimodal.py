"""Hints of a published model that reads one modality: BERT of the text, ViT or DeiT of the patches.

States are regressed as in Romero et al. 2015 (FitNets, equation 3) and Jiao et al. 2020 (TinyBERT, equation 8), towards
states whitened as in Wei et al. 2022 ("Contrastive learning rivals masked image modeling in fine-tuning via feature
distillation", section 3); words are distilled as in Hinton et al. 2015 (section 2), at temperature 1.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float

from singlestream.batch import Array, Batch
from singlestream.config import ConfigError
from singlestream.model.heads import HeadConfig
from singlestream.model.unimodal import pictures_alone, text_alone
from singlestream.objectives import base

KEY = "config.objective_options.distill_unimodal"
WANTED = {"text": "a BERT", "image": "a ViT or DeiT"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """`text`, `image`: folders of a BERT and of a ViT or DeiT; one of them will do. `words`: BERT's distribution over
    the words that `mlm` masks is a target, too.
    """

    text: str = ""
    image: str = ""
    words: bool = False

    def __post_init__(self) -> None:
        if self.words and not self.text:
            raise ValueError(f"{KEY}.words=True: the distribution over words is BERT's, set {KEY}.text to its folder")


class Objective(base.Objective):
    """`text_loss`, `image_loss`: of each token, a linear map of the model's last state against the teacher's last
    state, mean squared error over the teacher's numbers. These are whitened (mean 0 and variance 1 over each token), so
    that 1 is what a map to 0 has, whoever the teacher is. `words_loss`: KL(teacher || model) of the masked words.

    The teacher reads its modality alone, one text or one picture at a time, unmasked for the states; the model reads
    both. The teacher's parameters are the objective's state: nothing trains them, and the run's checkpoints hold them.
    """

    def __init__(self, options: Options):
        super().__init__(options)
        self.needs = ("mlm",) if options.words else ()
        self._num_images = 1
        parts = {"text": options.text, "image": options.image, "words": options.words}
        self.terms = {f"{name}_loss": 1.0 for name, there in parts.items() if there}

    def published(self):
        return {name: where for name in WANTED if (where := getattr(self.options, name))}

    def check(self, config):
        if not self.models:
            raise ConfigError(f"{KEY}: set .text to the folder of a BERT, .image to that of a ViT or DeiT, or both")
        for name, model in self.models.items():
            if model.reads != name:
                raise ConfigError(f"{KEY}.{name}: {WANTED[name]} is needed, this model reads {model.reads}")
        if "text" in self.models:
            _check_text(self.models["text"], config.data)
        if "image" in self.models:
            _check_image(self.models["image"], config.model.inputs)
        if self.options.words and "mlm" not in self.models["text"].heads:
            raise ConfigError(f"{KEY}.words=True: the BERT in {KEY}.text came without its head of masked words")

    def heads(self, config, spec):
        self._num_images = config.inputs.num_images
        return {
            f"teacher_{name}": HeadConfig(size=model.config.width, source=name) for name, model in self.models.items()
        }

    def init_state(self, spec):
        return {name: model.empty_params() for name, model in self.models.items()}

    def loss(self, encode, heads, batch, spec, key, state):
        teachers = {name: model.with_params(state[name]) for name, model in self.models.items()}
        metrics = {}
        for name, teacher in teachers.items():
            wanted = getattr(teacher(self._alone(name, batch)), name)
            found = heads[f"teacher_{name}"](encode(batch))
            metrics[f"{name}_loss"] = regression(wanted, found, getattr(batch, name).segments > 0)
        if self.options.words:
            masked, chosen = encode.view("mlm", base.made_before)
            wanted = teachers["text"].heads["mlm"](teachers["text"](text_alone(masked)))
            metrics["words_loss"] = base.divergence(wanted, heads["mlm"](encode(masked)), chosen)
        return metrics, state

    def _alone(self, name: str, batch: Batch) -> Batch:
        """What a teacher reads."""
        if name == "text":
            return text_alone(batch)
        size = self.models[name].config.patch_size
        return pictures_alone(batch, patch_size=size, num_images=self._num_images)


def regression(wanted: Float[Array, "B S D"], found: Float[Array, "B S D"], mask: Bool[Array, "B S"]) -> base.Sums:
    """Sum over tokens of the squared error, its mean over D, towards whitened states; no gradient for `wanted`."""
    wanted = jax.lax.stop_gradient(wanted.astype(jnp.promote_types(wanted.dtype, jnp.float32)))
    apart = wanted - wanted.mean(-1, keepdims=True)
    white = apart * jax.lax.rsqrt(jnp.square(apart).mean(-1, keepdims=True) + 1e-6)
    return base.masked_sum(jnp.square(found - white).mean(-1), mask)


def _check_text(model, data) -> None:
    limit = model.config.max_text_length
    if data.text_length > limit:
        raise ConfigError(
            f"config.data.text_length={data.text_length} is more than the {limit} positions of the BERT in {KEY}.text"
        )
    if data.task >= 0:
        raise ConfigError(
            f"config.data.task={data.task}: the BERT in {KEY}.text knows no token for a task, set it to -1"
        )


def _check_image(model, inputs) -> None:
    if inputs.image_stem == "regions":
        raise ConfigError(
            f"{KEY}.image: a ViT reads patches, but config.model.image_stem='regions'; choose a model of patches"
        )
    if inputs.patch_size != model.config.patch_size:
        raise ConfigError(
            f"config.model.patch_size={inputs.patch_size}, but the patches of the ViT in {KEY}.image have "
            f"{model.config.patch_size} pixels: set it to {model.config.patch_size}"
        )
