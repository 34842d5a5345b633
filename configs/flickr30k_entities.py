"""Flickr30k Entities: the box of what each phrase of a caption names, over patches or among a detector's regions.

Claim: the words of one encoder find what they name (VisualBERT, section 4.4): the last word of a phrase chooses an
image token. Over patches it also says a box, and no detector is needed: thirty passes over 29,000 pictures, each time
with one of their five captions, from ViLT, whose rate it keeps. `regions` is VisualBERT on a detector's regions.

Command (DATA: dataset_flickr30k.json, flickr30k-images, Annotations and Sentences; FOLDER: published ViLT, or the run
of pretrain_coco.py; BERT: as in configs/visualbert.py, with the table features.tsv in DATA):
    python train.py --config=configs/flickr30k_entities.py --workdir=runs/e --config.init=FOLDER --config.data.dir=DATA
    python eval.py --workdir=runs/e --split=test
or, with --config.init=BERT, --config=configs/flickr30k_entities.py:regions
Hardware: meant for one GPU of 80 GB or a TPU host of eight chips.
Expected: not measured: neither data nor weights could be fetched where this was written. VisualBERT reports 71.33 on
test (R@1, Li et al. 2019, table 4) of all phrases that have a box; here a phrase that has several boxes is left out,
so the figures are not the same. What attention reaches without supervision is `attention/grounding`.
"""

import ml_collections

from configs import finetune_vqa, visualbert


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    if variant not in ("", "regions"):
        raise ValueError(f"configs/flickr30k_entities.py:{variant}: the only variant is regions")
    config = visualbert.get_config() if variant else finetune_vqa.get_config()
    config.data.name = "flickr30k"
    config.data.options = {
        "entities": True,
        "images": "flickr30k-images",
        "features": "features.tsv" if variant else "",
    }
    config.data.texts = "captions"
    config.objectives = {"ground": 1.0}
    config.objective_options = {"ground": {"of": "phrases"}}
    config.train.num_steps = 3400
    config.train.batch_size = 256
    config.train.accumulate = 4
    config.train.warmup_steps = 340
    config.train.eval_every = 340
    config.train.eval_batches = 0
    config.train.checkpoint_every = 340
    config.train.best_metric = "ground/accuracy"
    return config
