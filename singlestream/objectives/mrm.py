"""Masked regions or patches, from the others and the text (Chen et al. 2020, UNITER, section 3.2).

The text stays whole here as the picture does in `mlm`: one modality is masked at a time.
"""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from singlestream.batch import Array, Batch, Patches, Regions, Spec
from singlestream.model.heads import HeadConfig
from singlestream.objectives import base

TARGETS = ("features", "classes", "distribution", "pixels")
GREY = 128  # of a masked patch: the middle, next to 0 where it is embedded


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """`rate` of the image tokens are predicted; `targets`: what of them, some of `TARGETS`."""

    rate: float = 0.15
    targets: tuple[str, ...] = ("classes",)

    def __post_init__(self) -> None:
        if not 0 < self.rate < 1:
            raise ValueError(f"config.objective_options.mrm.rate={self.rate}: must be in (0, 1)")
        for name in self.targets or ("",):
            if name not in TARGETS:
                raise ValueError(f"config.objective_options.mrm.targets: {name!r}, choose of {', '.join(TARGETS)}")


class Objective(base.Objective):
    """What a masked image token shows, a loss for each of `options.targets`:

    `features` of a region: squared error, its mean over the numbers (MRFR). `classes`: cross-entropy of each attribute
    of what lies there, the background among them (MRC). `distribution`: KL to a detector's probabilities for the
    classes of the first attribute, the background first (MRC-kl), from `Batch.targets["region_distribution"]`; where
    those are all 0, nothing is known.
    `pixels` of a patch, normalised by its own mean and variance: squared error (He et al. 2022, MAE, section 3).
    One head says all of them, after one hidden layer, as LXMERT's does.

    A masked region's features become 0, a masked patch grey, also where its neighbours' margins show it; boxes and
    places stay. A mean of regions (`config.data.mean_region`) is never masked, and becomes that of those that are not,
    as in ViLBERT's code. With `config.model.direction="prefix"` no picture reads its text, so only the rest of it is
    left.
    """

    def __init__(self, options: Options):
        super().__init__(options)
        needed = {"classes": "region_class", "distribution": "region_distribution"}
        self.targets = tuple(needed[target] for target in options.targets if target in needed)
        self.terms = {f"{target}_loss": 1.0 for target in options.targets}
        self._margin, self._mean_region = 0, False
        self._sizes: list[int] = []

    def heads(self, config, spec):
        inputs = config.inputs
        for target in self.options.targets:
            _check(target, inputs.image_stem, spec)
        self._margin = 0 if inputs.image_stem == "regions" else inputs.patch_margin
        sizes = {
            "features": inputs.region_dim,
            "classes": sum(n + 1 for n in spec.region_classes),
            "distribution": 1 + sum(spec.region_classes[:1]),
            "pixels": 3 * inputs.patch_size**2,
        }
        self._sizes = [sizes[target] for target in self.options.targets]
        return {"mrm": HeadConfig(kind="transform", size=sum(self._sizes), source="image")}

    def check(self, config):
        self._mean_region = config.data.mean_region

    def loss(self, encode, heads, batch, spec, key, state):
        real = batch.image.segments > 0
        if self._mean_region:
            real &= ~_first_of_picture(batch.image)
        chosen = real & jax.random.bernoulli(key, self.options.rate, real.shape)
        masked = mask_image(batch, chosen, self._margin)
        if self._mean_region:
            masked = _with_means(masked, real & ~chosen)
        said = jnp.split(heads["mrm"](encode(masked)), np.cumsum(self._sizes)[:-1], axis=-1)
        metrics: base.Metrics = {}
        for target, found in zip(self.options.targets, said, strict=True):
            metrics |= self._of_target(target, found, batch, chosen, spec)
        return metrics, state

    def _of_target(
        self, target: str, found: Float[Array, "B N C"], batch: Batch, chosen: Bool[Array, "B N"], spec: Spec
    ) -> base.Metrics:
        if target == "classes":
            loss, accuracy = base.region_cross_entropy(found, batch.targets["region_class"], chosen, spec)
            return {"classes_loss": loss, "accuracy": accuracy}
        if target == "distribution":
            wanted = batch.targets["region_distribution"]
            return {"distribution_loss": base.divergence(jnp.log(wanted), found, chosen & wanted.any(-1))}
        image = batch.image
        wanted = image.features if isinstance(image, Regions) else shown(image, self._margin)
        error = jnp.square(found - wanted.astype(found.dtype)).mean(-1)
        return {f"{target}_loss": base.masked_sum(error, chosen)}


def _check(target: str, stem: str, spec: Spec) -> None:
    """Raises ValueError where a model of this stem, or its data, cannot serve the target."""
    reads = {"features": ("regions",), "pixels": ("linear", "conv")}.get(target, (stem,))
    if stem not in reads:
        raise ValueError(
            f"config.objective_options.mrm.targets has {target!r}, which needs config.model.image_stem="
            f"{' or '.join(map(repr, reads))}, the model has {stem!r}"
        )
    if target in ("classes", "distribution") and not spec.region_classes:
        raise ValueError(f"this data has no region classes, mrm cannot learn {target!r} from it")


def mask_image(batch: Batch, chosen: Bool[Array, "B N"], margin: int) -> Batch:
    """The batch with the content of these image tokens taken away; `margin` is that of `config.model.patch_margin`."""
    image = batch.image
    if isinstance(image, Regions):
        features = jnp.where(chosen[..., None], 0, image.features)
        return batch.replace(image=dataclasses.replace(image, features=features))
    window = math.isqrt(image.pixels.shape[-1] // 3)
    hidden = _shows(image, chosen) if margin else jnp.broadcast_to(chosen[..., None, None], (*chosen.shape, 3, 3))
    # Each pixel's row or column among the 3 x 3 patches that a window may show.
    third = np.repeat(np.arange(3), (margin, window - 2 * margin, margin))
    pixels = jnp.repeat(hidden[:, :, third][..., third].reshape(*chosen.shape, -1), 3, axis=-1)
    pixels = jnp.where(pixels, GREY, image.pixels).astype(jnp.uint8)
    return batch.replace(image=dataclasses.replace(image, pixels=pixels))


def _shows(image: Patches, chosen: Bool[Array, "B N"]) -> Bool[Array, "B N 3 3"]:
    """Whether each of a patch's 3 x 3 neighbours, itself in the middle, is one of the chosen."""
    same = _same_picture(image) & chosen[:, None]
    apart = image.yx[:, None] - image.yx[:, :, None]
    steps = (-1, 0, 1)
    found = [[(same & (apart == jnp.array([y, x])).all(-1)).any(-1) for x in steps] for y in steps]
    return jnp.stack([jnp.stack(row, axis=-1) for row in found], axis=-2)


def _same_picture(image: Patches | Regions) -> Bool[Array, "B N N"]:
    same = (image.segments[:, :, None] == image.segments[:, None]) & (image.index[:, :, None] == image.index[:, None])
    return same & (image.part[:, :, None] == image.part[:, None])


def _first_of_picture(image: Patches | Regions) -> Bool[Array, "B N"]:
    return (image.segments > 0) & ~jnp.tril(_same_picture(image), -1).any(-1)


def _with_means(batch: Batch, of: Bool[Array, "B N"]) -> Batch:
    """The first region of each picture becomes the mean `of` others of it; 0 where there are none."""
    image = batch.image
    assert isinstance(image, Regions)  # `config.data.mean_region` is refused for patches
    share = (_same_picture(image) & of[:, None]).astype(image.features.dtype)
    total = jnp.einsum("bqn,bnf->bqf", share, image.features, precision=jax.lax.Precision.HIGHEST)
    mean = total / jnp.maximum(share.sum(-1, keepdims=True), 1)
    features = jnp.where(_first_of_picture(image)[..., None], mean, image.features)
    return batch.replace(image=dataclasses.replace(image, features=features))


def shown(image: Patches, margin: int) -> Float[Array, "B N C"]:
    """Each patch's own pixels, from 0 to 1, their mean taken away and divided by their standard deviation.

    With MAE's 1e-6 beside the variance, which divides by the number of values less one as its code has it.
    """
    rows, num, size = image.pixels.shape
    window = math.isqrt(size // 3)
    inner = slice(margin, window - margin)
    pixels = image.pixels.reshape(rows * num, window, window, 3)[:, inner, inner].reshape(rows, num, -1) / jnp.float32(
        255
    )
    variance = pixels.var(-1, keepdims=True, ddof=1)
    return (pixels - pixels.mean(-1, keepdims=True)) / jnp.sqrt(variance + 1e-6)
