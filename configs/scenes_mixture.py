"""Pre-training on several corpora of Scenes at once, as ALBEF trains: the twin of pretrain_mixture.py that runs here.

Claim: words and pictures are matched, retrieved and filled in without a class or a box ever being read, from two
corpora of pairs and one of texts alone, by contrast with a queue, hard negatives, masked words and the soft targets of
the moving average (Li et al. 2021, section 3).

Command:
    python train.py --config=configs/scenes_mixture.py --workdir=runs/scenes_mixture
    python eval.py --workdir=runs/scenes_mixture --split=test
    python eval.py --workdir=runs/scenes_mixture --split=test --retrieve=16
Hardware: two CPU cores.
Expected: seed 0, 2026-11-22, test: 0.987 of the pairs told from those with a wrong picture, 0.800 of the masked words
named. Retrieval over the gallery, and test_composition, are not measured yet.
"""

import ml_collections

from configs import scenes_retrieve


def get_config() -> ml_collections.ConfigDict:
    config = scenes_retrieve.get_config()
    config.data.rate = 0.5
    more = {"name": "scenes", "dir": "", "texts": "captions", "rate": 0.25}
    config.data.corpora = {
        "more": {**more, "options": {"seed": 1}, "kinds": ("complete",)},
        "texts": {**more, "options": {"seed": 2}, "pictures": False},
    }
    config.train.learning_rate = 5e-4
    config.train.muon_learning_rate = 0.005
    config.train.ema_decay = 0.995
    config.objectives = {"itc": 0.6, "itm": 1.0, "mlm": 0.6, "distill": 0.4}
    config.objective_options = {
        "itc": {"size": 96, "queue": 1024},
        "itm": {"hard": True},
        "distill": {"ramp": 20_000},
    }
    return config
