"""NLVR2: is this sentence true of these two photographs? Read together, or one by one; true and false are two answers.

Claim: pairs of pictures need no model of their own. The row holds the sentence and both pictures, each token with its
picture's number, which UNITER (Chen et al. 2020) calls the triplet way; with `pair` it holds each picture with a copy
of the sentence, and a head reads both vectors, as ViLT does. Batches of 128 and ten epochs are ViLT's (Kim et al. 2021,
section 4.2).

Command (DATA: train.json, dev.json and test1.json of nlvr2/data, and the pictures; RUN: of pretrain_coco.py):
    python train.py --config=configs/nlvr2.py --workdir=runs/nlvr2 --config.init=RUN --config.data.dir=DATA
    python eval.py --workdir=runs/nlvr2 --split=test
    python train.py --config=configs/nlvr2.py:pair --workdir=runs/nlvr2_pair --config.init=RUN --config.data.dir=DATA
Published weights start `pair` alone: the model becomes theirs, one of single pictures.
Hardware: meant for one GPU of 80 GB or a TPU host of eight chips.
Expected: not measured: neither data nor weights could be fetched where this was written. The commonest answer reaches
0.51; ViLT, pre-trained on four million pictures, reports 74.41 on dev and 74.57 on test-P (table 2).
"""

import ml_collections

from configs import finetune_vqa


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    config = finetune_vqa.get_config()
    config.data.name = "nlvr2"
    config.data.options = {"images": "", "features": ""}
    config.model.num_images = 2
    if variant == "pair":
        config.data.apart = 2
        config.objectives = {"nlvr": 1.0}
        config.train.best_metric = "nlvr/accuracy"
    elif variant:
        raise ValueError(f"configs/nlvr2.py:{variant}: the only variant is pair")
    config.train.num_steps = 6750  # ten epochs of 86,373 examples
    config.train.batch_size = 128
    config.train.warmup_steps = 675
    config.train.eval_every = 675
    config.train.eval_batches = 0
    config.train.checkpoint_every = 675
    return config
