"""RefCOCO, RefCOCO+ and RefCOCOg: the box of what an expression means, over patches or among a detector's regions.

Claim: an encoder of single pictures grounds expressions without a detector: image tokens that have read the text choose
a patch and say a box (one-stage grounding; losses as DETR's), ten epochs from ViLT, whose rate it keeps. `regions`
chooses a region as UNITER does (Chen et al. 2020), with the batches, steps, rate and clipping of its authors' config,
but on one table of features for training and evaluation: there training reads the regions of the true boxes.

Command (DATA: the folder `data` of refer with COCO's train2014, see docs/data.md; FOLDER: published ViLT, or a run of
your own; UNITER: its published weights, with the table features.tsv in DATA):
    python train.py --config=configs/refcoco.py --workdir=runs/refcoco --config.init=FOLDER --config.data.dir=DATA
    python eval.py --workdir=runs/refcoco --split=testA
    python train.py --config=configs/refcoco.py:plus --workdir=runs/plus --config.init=FOLDER --config.data.dir=DATA
    python train.py --config=configs/refcoco.py:g --workdir=runs/refcocog --config.init=FOLDER --config.data.dir=DATA
    python train.py --config=configs/refcoco.py:regions --workdir=runs/re --config.init=UNITER --config.data.dir=DATA
With regions the others are --config.data.options.dataset=refcoco+ (refcocog: and --config.data.options.split_by=umd).
All pictures, those of the tests too, are of COCO's training split: what was pre-trained on COCO has seen them.
Hardware: meant for one GPU of 80 GB or a TPU host of eight chips.
Expected: not measured: neither data nor weights could be fetched where this was written. UNITER-base, among regions of
a detector, reports 81.24, 86.48 and 73.94 on validation, testA and testB of RefCOCO, 75.31, 81.30 and 65.58 of
RefCOCO+, and 74.31 and 74.51 on validation and test of RefCOCOg (table 3). For patches the papers here have no figure.
"""

import ml_collections

from configs import finetune_vqa, uniter

DATASETS = {
    "": ("refcoco", "unc"),
    "plus": ("refcoco+", "unc"),
    "g": ("refcocog", "umd"),
    "regions": ("refcoco", "unc"),
}


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    if variant not in DATASETS:
        raise ValueError(f"configs/refcoco.py:{variant}: the variants are plus, g and regions")
    dataset, split_by = DATASETS[variant]
    regions = variant == "regions"
    config = uniter.get_config() if regions else finetune_vqa.get_config()
    config.data.name = "refcoco"
    config.data.options = {
        "dataset": dataset,
        "split_by": split_by,
        "images": "images/mscoco/images",
        "features": "features.tsv" if regions else "",
    }
    config.data.texts = "captions"
    config.objectives = {"ground": 1.0}
    config.objective_options = {"ground": {"of": "texts"}}
    config.train.num_steps = 24_000 if regions else 3150 if variant == "g" else 4700
    config.train.batch_size = 128 if regions else 256
    config.train.accumulate = 1 if regions else 4
    config.train.learning_rate = 1e-4
    config.train.one_objective = False
    config.train.clip_norm = 2.0 if regions else 1.0
    config.train.warmup_steps = 1500 if regions else config.train.num_steps // 10
    config.train.eval_every = config.train.num_steps // 10
    config.train.eval_batches = 0
    config.train.checkpoint_every = config.train.num_steps // 10
    config.train.best_metric = "ground/accuracy"
    return config
