"""Pictures of Scenes: things in their boxes, told apart by shape and colour, on backgrounds that are neither."""

from __future__ import annotations

import numpy as np

from singlestream.data.sources import scenes
from singlestream.data.sources.scenes_draw import BRIGHTEST_BACKGROUND, RGB, draw, shape_mask
from singlestream.data.sources.scenes_world import COLOURS, DIAMETERS, SHAPES, SIZES


def test_shapes_fill_their_box_and_differ():
    for diameter in (d for sizes in DIAMETERS for d in sizes):
        masks = {shape: shape_mask(shape, diameter) for shape in SHAPES}
        for mask in masks.values():
            edges = (mask[0], mask[-1], mask[:, 0], mask[:, -1])
            assert mask.min() >= 0 and mask.max() == 1 and all(edge.max() > 0.2 for edge in edges)
        for a in SHAPES:
            for b in SHAPES[SHAPES.index(a) + 1 :]:
                assert np.abs(masks[a] - masks[b]).mean() > 0.12, (a, b, diameter)
    assert min(DIAMETERS[SIZES.index("large")]) - max(DIAMETERS[SIZES.index("small")]) >= 3


def test_pictures_show_things_in_their_boxes_and_nothing_else():
    made = list(scenes.generate(scenes.Options(test_scenes=60), "test"))
    for scene, _, picture in made:
        background = np.ones((48, 48), bool)
        for thing in scene:
            x, y, d = thing.x, thing.y, thing.diameter
            background[y : y + d, x : x + d] = False
            solid = shape_mask(SHAPES[thing.shape], d) == 1
            colour = picture[y : y + d, x : x + d][solid].mean(0)
            distances = {name: np.linalg.norm(colour - np.array(rgb)) for name, rgb in RGB.items()}
            assert min(distances, key=distances.get) == COLOURS[thing.colour]
        assert picture[background].max() <= BRIGHTEST_BACKGROUND + 20
        assert picture[background].std() > 1


def test_light_changes_the_picture_and_not_the_scene():
    scene = next(scenes.describe(scenes.Options(), "train"))[0]
    one, two = (draw([scene], np.random.default_rng(seed))[0] for seed in (0, 1))
    assert not np.array_equal(one, two)
