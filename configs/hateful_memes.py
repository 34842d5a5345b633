"""Hateful Memes: is a picture with the words in it hateful? One of two labels, ranked by the area under the ROC curve.

Claim: `classify` is enough for a dataset made so that neither words nor picture suffice alone (Kiela et al. 2020): a
label is a head of two. Twenty epochs of 8,500 memes from ViLT; batches, rate and length are this project's.

Command (FOLDER: published ViLT, or the run of pretrain_coco.py; DATA: train.jsonl, dev_seen.jsonl, test_seen.jsonl and
the folder img; of the first release dev.jsonl and test.jsonl):
    python train.py --config=configs/hateful_memes.py --workdir=runs/memes --config.init=FOLDER --config.data.dir=DATA
    python eval.py --workdir=runs/memes --split=test
The figure is `classify/auroc`; the best checkpoint is that of the accuracy, which the loop counts. `labels.jsonl` has
the id, the labels' probabilities and the label of each meme, published or not, as an entry to the challenge needs them.
Hardware: meant for one GPU of 24 GB.
Expected: not measured: neither data nor weights could be fetched where this was written. Chance is 0.5. The dataset's
paper reports 0.714 for VisualBERT pre-trained on COCO and 0.700 for ViLBERT, on test; people agree on 84.7% (table 1).
"""

import ml_collections

from configs import finetune_vqa


def get_config() -> ml_collections.ConfigDict:
    config = finetune_vqa.get_config()
    config.data.name = "hateful_memes"
    config.data.options = {"images": "", "features": ""}
    config.objectives = {"classify": 1.0}
    config.train.num_steps = 2660
    config.train.batch_size = 64
    config.train.accumulate = 1
    config.train.learning_rate = 5e-5
    config.train.warmup_steps = 266
    config.train.eval_every = 133
    config.train.eval_batches = 0
    config.train.checkpoint_every = 133
    config.train.best_metric = "classify/accuracy"
    return config
