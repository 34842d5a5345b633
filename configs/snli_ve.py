"""SNLI-VE, tuned from published weights: does the picture entail the sentence? Three answers.

Claim: entailment is a question whose answers are entailment, neutral and contradiction (Xie et al. 2019), so `vqa`
learns it: five epochs of 529,527 examples by ViLT's recipe for VQA. ViLT published none for this.

Command (FOLDER: published ViLT, or the run of pretrain_coco.py; DATA: snli_ve_*.jsonl and flickr30k-images):
    python train.py --config=configs/snli_ve.py --workdir=runs/snli_ve --config.init=FOLDER --config.data.dir=DATA
    python eval.py --workdir=runs/snli_ve --split=test
Hardware: meant for one GPU of 80 GB or a TPU host of eight chips.
Expected: not measured: neither data nor weights could be fetched where this was written. The three answers are equally
common; what the sentence alone reaches stands beside the accuracy as "blind". Without pre-training the dataset's
authors report 71.16 on test (Xie et al. 2019).
"""

import ml_collections

from configs import finetune_vqa


def get_config() -> ml_collections.ConfigDict:
    config = finetune_vqa.get_config()
    config.data.name = "snli_ve"
    config.data.options = {"images": "flickr30k-images", "features": ""}
    config.train.num_steps = 10_340
    config.train.warmup_steps = 1034
    config.train.eval_every = 1034
    config.train.eval_batches = 0
    config.train.checkpoint_every = 1034
    return config
