"""Boxes of image tokens, and how two boxes agree, against the definitions in plain Python."""

from __future__ import annotations

import numpy as np

from singlestream.batch import Patches, Regions
from singlestream.model.boxes import centre_and_size, corners, generalized_iou, iou, token_boxes


def area(box):
    return max(box[2] - box[0], 0) * max(box[3] - box[1], 0)


def reference(a, b):
    """IoU, and generalised IoU by its definition (Rezatofighi et al. 2019, algorithm 1)."""
    shared = area((max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])))
    union = area(a) + area(b) - shared
    hull = area((min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])))
    return shared / union, shared / union - (hull - union) / hull


def random_boxes(seed, count):
    return np.sort(np.random.default_rng(seed).random((count, 2, 2)), axis=1).reshape(count, 4).astype(np.float32)


def test_how_two_boxes_agree():
    a, b = random_boxes(0, 7), random_boxes(1, 5)
    wanted = np.array([[reference(x, y) for y in b.tolist()] for x in a.tolist()])
    np.testing.assert_allclose(iou(a[:, None], b), wanted[..., 0], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(generalized_iou(a[:, None], b), wanted[..., 1], rtol=1e-5, atol=1e-6)
    assert (wanted[..., 0] == 0).any() and (wanted[..., 0] > 0).any()
    np.testing.assert_allclose(iou(a, a), 1, rtol=1e-6)


def test_empty_boxes_agree_with_nothing():
    empty = np.zeros((1, 4), np.float32)
    assert iou(empty, empty) == 0 and iou(empty, random_boxes(0, 1)) == 0
    assert generalized_iou(empty, empty) == 0


def test_centre_and_size_and_back():
    boxes = random_boxes(0, 3)
    np.testing.assert_allclose(centre_and_size(np.array([[0.2, 0.0, 0.6, 0.5]])), [[0.4, 0.25, 0.4, 0.5]], rtol=1e-6)
    np.testing.assert_allclose(corners(centre_and_size(boxes)), boxes, rtol=1e-5, atol=1e-7)


def test_boxes_of_image_tokens():
    yx = np.array([[[0, 1], [2, 0]]], np.int32)
    grid = np.broadcast_to(np.array([4, 2], np.int32), yx.shape)
    patches = Patches(pixels=np.zeros((1, 2, 12), np.uint8), yx=yx, grid=grid)
    np.testing.assert_allclose(token_boxes(patches), [[[0.5, 0, 1, 0.25], [0, 0.5, 0.5, 0.75]]])
    boxes = random_boxes(0, 2)[None]
    np.testing.assert_array_equal(token_boxes(Regions(features=np.zeros((1, 2, 3), np.float32), boxes=boxes)), boxes)
