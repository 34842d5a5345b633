"""Captions of COCO in Karpathy's split: the picture as a prefix, each word from it and the words before.

Claim: the single stream that reads learns to write by one objective (Wang et al. 2022, SimVLM, equation 2), from the
parameters of a pre-training or from nothing: ten epochs of the 566,000 captions, AdamW at 1e-4, the new head ten times
faster. Cross-entropy alone, no tuning for CIDEr.

Command (DATA: dataset_coco.json, train2014 and val2014; RUN: the folder of pretrain_coco.py's run, or none):
    python train.py --config=configs/coco_caption.py --workdir=runs/caption --config.init=RUN --config.data.dir=DATA
    pip install -c constraints.txt -e ".[captions]"
    python eval.py --workdir=runs/caption --split=test
The last writes captions.jsonl, captions_results.json as COCO's own evaluation reads it, and by pycocoevalcap and Java
(8 or later) `caption/bleu_1` to `caption/bleu_4`, `caption/rouge_l` and `caption/cider`; without these two it says so.
Hardware: meant for one GPU of 80 GB or a TPU host of eight chips.
Expected: not measured: neither data nor weights could be fetched where this was written. VLP, a single
stream of BERT-base's size on regions, pre-trained on Conceptual Captions, reports BLEU-4 36.5 and CIDEr 116.9 without
tuning for CIDEr (Zhou et al. 2020, https://arxiv.org/abs/1909.11059).
"""

import ml_collections

from configs import finetune_vqa


def get_config() -> ml_collections.ConfigDict:
    config = finetune_vqa.get_config()
    config.data.name = "coco_captions"
    config.data.options = {"restval": True, "images": "", "features": ""}
    config.data.texts = "captions"
    config.model.direction = "causal"
    config.model.image_cls = False  # it would read the text that is being written
    config.objectives = {"prefix_lm": 1.0}
    config.train.num_steps = 22_100
    config.train.warmup_steps = 2210
    config.train.eval_every = 2210
    config.train.eval_batches = 0
    config.train.checkpoint_every = 2210
    config.train.best_metric = "prefix_lm/accuracy"
    return config
