"""Pre-training on the captions of Scenes by masked language and image-text matching, and what it is worth.

Claim: fine-tuned on a tenth of the questions, the pre-trained model beats one from scratch on the same questions.

Command (captions, no question and no answer; then 2,000 pictures' questions, with and without the pre-training):
    python train.py --config=configs/scenes_pretrain.py --workdir=runs/pretrain
    python eval.py --workdir=runs/pretrain --split=test
    python train.py --config=configs/scenes_pretrain.py:finetune --config.init=runs/pretrain --workdir=runs/finetuned
    python train.py --config=configs/scenes_pretrain.py:finetune --workdir=runs/scratch
All three seeds of it, with the comparison: `python benchmarks/pretraining.py`.
Expected: not measured yet.
"""

import ml_collections

from configs import quickstart


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    config = quickstart.get_config()
    config.model.max_text_length = 28
    if variant == "finetune":
        config.data.share = 0.1
        config.objectives = {"vqa": 1.0}
        config.train.num_steps = 1500
        return config
    if variant:
        raise ValueError(f"configs/scenes_pretrain.py:{variant}: the only variant is finetune")
    config.data.texts = "captions"
    config.data.text_length = 28
    config.data.texts_per_row = 3
    config.objectives = {"mlm": 1.0, "itm": 1.0}
    config.train.batch_size = 16
    config.train.num_steps = 3000
    config.train.best_metric = "mlm/accuracy"
    return config
