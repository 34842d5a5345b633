"""Scenes, longer: the quickstart's model and data, trained for twenty minutes on two CPU cores.

Claim: what the quickstart still gets wrong, counting above all, goes away with time; and what region supervision
(`locate`) and the stepping-stone questions ("where is the ... from the ...") each contribute.

Command:
    python train.py --config=configs/scenes_vqa.py --workdir=runs/scenes_vqa
    python eval.py --workdir=runs/scenes_vqa --split=test
Without region supervision, and without the stepping-stone questions:
    python train.py --config=configs/scenes_vqa.py:no_locate --workdir=runs/no_locate
    python train.py --config=configs/scenes_vqa.py:no_where --workdir=runs/no_where
Expected: not measured yet.
"""

import ml_collections

from configs import quickstart

KINDS = ("colour", "shape", "exist", "spatial", "count")  # every kind but "where"


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    config = quickstart.get_config()
    config.train.num_steps = 10_000
    config.train.eval_every = 1000
    config.train.checkpoint_every = 1000
    if variant == "no_locate":
        config.objectives = {"vqa": 1.0}
    elif variant == "no_where":
        config.data.kinds = KINDS
    elif variant:
        raise ValueError(f"configs/scenes_vqa.py:{variant}: the variants are no_locate and no_where")
    return config
