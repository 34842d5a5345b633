"""ViLT's pre-training on COCO's captions: masked language, image-text matching, word-patch alignment; one corpus.

Claim: the recipe of ViLT (Kim et al. 2021, sections 3.2 and 4.2: whole words masked, half of the pictures replaced,
word-patch alignment at 0.1, AdamW at 1e-4, a tenth of the steps to warm up, no augmentation), on COCO alone:
113,287 pictures where ViLT reads four million. What it is worth is to be measured, not taken from there.

Command (DATA: dataset_coco.json, train2014 and val2014; VIT: a published ViT-B/32, or none: from nothing):
    python train.py --config=configs/pretrain_coco.py --workdir=runs/coco --config.init=VIT --config.data.dir=DATA
    python eval.py --workdir=runs/coco --split=test
Then coco_caption.py, nlvr2.py and snli_ve.py from it, --config.init=runs/coco. Before questions about COCO's pictures
set `restval` to False: with it pictures of val2014, on which VQA v2 validates, are trained on.
Hardware: meant for eight GPUs of 80 GB or a TPU host of eight chips.
Expected: not measured: neither data nor weights could be fetched where this was written.
"""

import ml_collections

from configs import finetune_vqa


def get_config() -> ml_collections.ConfigDict:
    config = finetune_vqa.get_config()
    config.data.name = "coco_captions"
    config.data.options = {"restval": True, "images": "", "features": ""}
    config.data.texts = "captions"
    config.objectives = {"mlm": 1.0, "itm": 1.0, "wpa": 0.1}
    config.objective_options = {"mlm": {"whole_word": True}}
    config.train.num_steps = 25_000  # 226 epochs of the pictures, each with one of its captions
    config.train.batch_size = 1024
    config.train.accumulate = 8
    config.train.warmup_steps = 2500
    config.train.groups = ()
    config.train.eval_every = 2500
    config.train.eval_batches = 0
    config.train.checkpoint_every = 2500
    config.train.best_metric = "mlm/accuracy"
    return config
