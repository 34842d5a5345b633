"""Flickr30k and COCO: the picture of a caption among all pictures of a split, and the captions of a picture.

Claim: one stream retrieves in ALBEF's two stages (Li et al. 2021, section 5): vectors of each side by itself (`itc`,
with a queue and the soft targets of a moving average) make a shortlist, and the encoder, reading both (`itm`, with hard
negatives), re-ranks it. Batches, epochs (ten of Flickr30k, five of COCO), rate, decay, queue and shortlists are those
of the authors' configs; the heads, which no published ViLT has, learn ten times faster. Where memory asks for parts of
a batch, hard negatives are of a part.

Command (FOLDER: published ViLT, or better a run of pretrain_mixture.py:albef, which has learned the heads; DATA:
dataset_flickr30k.json and flickr30k-images; COCO: dataset_coco.json, train2014 and val2014):
    python train.py --config=configs/retrieve.py --workdir=runs/flickr --config.init=FOLDER --config.data.dir=DATA
    python eval.py --workdir=runs/flickr --split=test --retrieve=128
    python train.py --config=configs/retrieve.py:coco --workdir=runs/cocor --config.init=FOLDER --config.data.dir=COCO
    python eval.py --workdir=runs/cocor --split=test --retrieve=256
Hardware: meant for one GPU of 80 GB or a TPU host of eight chips; the last command reads 7.7 million pairs.
Expected: not measured: neither data nor weights could be fetched where this was written. R@1 of texts and of pictures,
as the papers report them: ALBEF, pre-trained on 14 million pictures, 95.9 and 85.6 on Flickr30k, 77.6 and 60.7 on
COCO; ViLT, which scores every pair, 83.5 and 64.4, 61.5 and 42.7.
"""

import ml_collections

from configs import finetune_vqa


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    config = finetune_vqa.get_config()
    if variant == "coco":
        config.data.name = "coco_captions"
        config.data.options = {"restval": True, "images": "", "features": ""}
        config.train.num_steps, captions = 11_060, 566_000  # five epochs
    elif not variant:
        config.data.name = "flickr30k"
        config.data.options = {"images": "flickr30k-images", "features": ""}
        config.train.num_steps, captions = 5660, 145_000  # ten epochs
    else:
        raise ValueError(f"configs/retrieve.py:{variant}: the only variant is coco")
    config.data.texts = "captions"
    config.objectives = {"itc": 0.6, "itm": 1.0, "distill": 0.4}
    config.objective_options = {
        "itc": {"queue": 65_536},
        "itm": {"hard": True},
        "distill": {"heads": ("itc",), "ramp": captions},
    }
    config.train.learning_rate = 1e-5
    config.train.schedule = "cosine"
    config.train.final_rate = 0.1
    config.train.weight_decay = 0.02
    config.train.ema_decay = 0.995
    config.train.warmup_steps = config.train.num_steps // 10
    config.train.eval_every = config.train.num_steps // 10
    config.train.eval_batches = 64
    config.train.checkpoint_every = config.train.num_steps // 10
    config.train.best_metric = "itm/accuracy"
    return config
