"""Grounding on Scenes: the box of what a phrase names, and the region that a whole question is about.

Claim: words of the quickstart's encoder find what they name: each phrase ("the small ring", "the blue square") chooses
among patches and says a box, trained with the true boxes and `locate`. With regions in place of patches a UNITER-like
encoder chooses the region that a question is about. A box is right from an IoU of 0.5 on.

Command (patches; without `locate`; regions):
    python train.py --config=configs/scenes_ground.py --workdir=runs/ground
    python eval.py --workdir=runs/ground --split=test
    python train.py --config=configs/scenes_ground.py:alone --workdir=runs/ground_alone
    python train.py --config=configs/scenes_ground.py:regions --workdir=runs/ground_regions
Hardware: two CPU cores.
Expected: seed 0, 2026-11-22: patches, test 0.996, test_composition 0.991; from attention alone 0.178 and 0.175 (its
strongest patch lies in the true box in 0.934 and 0.947). A quarter of an hour of one core. Regions, 800 steps of a run
that was stopped there, at four times today's rates of learning, 2026-11-21: test 0.999. `alone` is not measured.
"""

import ml_collections

from configs import quickstart, scenes_regions


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    if variant == "regions":
        config = scenes_regions.get_config("uniter")
        config.data.kinds = ("colour", "shape", "exist", "count")  # the others name two things
        config.train.num_steps = 1500
        config.objective_options = {"ground": {"of": "texts"}}
        config.objectives = {"ground": 1.0}
    elif variant in ("", "alone"):
        config = quickstart.get_config()
        config.train.num_steps = 2400
        config.objectives = {"ground": 1.0, "locate": 1.0} if not variant else {"ground": 1.0}
    else:
        raise ValueError(f"configs/scenes_ground.py:{variant}: the variants are alone and regions")
    config.train.best_metric = "ground/accuracy"
    return config
