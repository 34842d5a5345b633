"""Boxes (x0, y0, x1, y1) in [0, 1] of their picture: where image tokens lie, and how well two boxes agree."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Bool, Float

from singlestream.batch import Array, Patches, Regions

AGREE = 0.5  # intersection over union from which on a box counts as found


def token_boxes(image: Patches | Regions) -> Float[Array, "B N 4"]:
    """The box of each image token: a region's own, or a patch's cell of its picture's grid."""
    if isinstance(image, Regions):
        return jnp.asarray(image.boxes)
    corner, grid = jnp.asarray(image.yx)[..., ::-1], jnp.maximum(jnp.asarray(image.grid)[..., ::-1], 1)
    return jnp.concatenate([corner / grid, (corner + 1) / grid], axis=-1)


def centres(image: Patches | Regions) -> Float[Array, "B N 2"]:
    """Centre (x, y) of each image token in [0, 1] of its picture."""
    if isinstance(image, Patches):
        return (jnp.asarray(image.yx)[..., ::-1] + 0.5) / jnp.maximum(jnp.asarray(image.grid)[..., ::-1], 1)
    boxes = jnp.asarray(image.boxes)
    return (boxes[..., :2] + boxes[..., 2:]) / 2


def inside(points: Float[Array, "B N 2"], boxes: Float[Array, "B T M 4"]) -> Bool[Array, "B T N"]:
    """Whether each point lies in one of a token's boxes (x0, y0, x1, y1); a box of zeros holds nothing."""
    points, boxes = points[:, None, :, None, :], boxes[:, :, None]
    within = (points >= boxes[..., :2]) & (points < boxes[..., 2:])
    return within.all(-1).any(-1)


def centre_and_size(boxes: Float[Array, "*S 4"]) -> Float[Array, "*S 4"]:
    """(centre x, centre y, width, height) of boxes."""
    low, high = boxes[..., :2], boxes[..., 2:]
    return jnp.concatenate([(low + high) / 2, high - low], axis=-1)


def corners(boxes: Float[Array, "*S 4"]) -> Float[Array, "*S 4"]:
    """(x0, y0, x1, y1) of boxes that are given by centre and size."""
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return jnp.concatenate([centre - half, centre + half], axis=-1)


def iou(a: Float[Array, "*A 4"], b: Float[Array, "*B 4"]) -> Float[Array, "*C"]:
    """Intersection over union, shapes broadcast; 0 where both boxes are empty."""
    shared, union = _shared_and_union(a, b)
    return shared / jnp.where(union > 0, union, 1)


def generalized_iou(a: Float[Array, "*A 4"], b: Float[Array, "*B 4"]) -> Float[Array, "*C"]:
    """IoU less the share of the smallest enclosing box that neither fills (Rezatofighi et al. 2019, algorithm 1)."""
    shared, union = _shared_and_union(a, b)
    hull = _area(jnp.minimum(a[..., :2], b[..., :2]), jnp.maximum(a[..., 2:], b[..., 2:]))
    waste = (hull - union) / jnp.where(hull > 0, hull, 1)
    return shared / jnp.where(union > 0, union, 1) - waste


def _shared_and_union(a: Array, b: Array) -> tuple[Array, Array]:
    shared = _area(jnp.maximum(a[..., :2], b[..., :2]), jnp.minimum(a[..., 2:], b[..., 2:]))
    return shared, _area(a[..., :2], a[..., 2:]) + _area(b[..., :2], b[..., 2:]) - shared


def _area(low: Float[Array, "*S 2"], high: Float[Array, "*S 2"]) -> Float[Array, "*S"]:
    return jnp.prod(jnp.maximum(high - low, 0), axis=-1)
