"""UNITER: regions of seven numbers and a LayerNorm for each part, in one stream with the words (Chen et al. 2020).

Claim: the published architecture of its base size (feature, box, and the text's token type 1, normalised apart and
together) and its pre-training (section 3.2): each step is one objective's, masked words, matching and masked regions
equally often. Of masked regions it predicts features (MRFR) and the detector's probabilities by KL (MRC-kl) at once,
where the authors take turns. The alignment of words and regions has steps of its own, a tenth as many as matching,
where the authors add it to matching at 0.1. Lengths, steps, warm-up, rate, beta2 and clipping are those of
their config on COCO and Visual Genome; its batches count 163,840 tokens, here 2,560 examples.

Command (data and start as in configs/visualbert.py, but features.tsv holds the probabilities of all classes, the table
of seven columns in docs/data.md):
    python train.py --config=configs/uniter.py --workdir=runs/uniter --config.init=BERT --config.data.dir=DATA
    python eval.py --workdir=runs/uniter --split=validation
Hardware: meant for eight GPUs of 80 GB or a TPU host of eight chips.
Expected: not measured, see configs/visualbert.py.
"""

import ml_collections

from configs import visualbert


def get_config() -> ml_collections.ConfigDict:
    config = visualbert.get_config()
    config.data.options = {"images": "", "features": "features.tsv", "distribution": True}
    config.data.text_length = 60
    config.model.embed_norm = False
    config.model.text_norm = True
    config.model.image_norm = "each"
    config.model.image_positions = "boxes7"
    config.model.modality = "token_types"
    config.objectives = {"mlm": 1.0, "itm": 1.0, "mrm": 1.0, "wpa": 0.1}
    config.objective_options = {"mrm": {"targets": ("features", "distribution")}}
    config.train.one_objective = True
    config.train.num_steps = 200_000
    config.train.batch_size = 2560
    config.train.accumulate = 40
    config.train.beta2 = 0.98
    config.train.clip_norm = 5.0
    return config
