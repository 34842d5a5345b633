"""UNITER: regions of seven numbers and a LayerNorm for each part, in one stream with the words (Chen et al. 2020).

Claim: the published architecture of its base size: feature, box, and the text's token type 1, normalised apart and
together.

Command (data and start as in configs/visualbert.py):
    python train.py --config=configs/uniter.py --workdir=runs/uniter --config.init=BERT --config.data.dir=DATA
    python eval.py --workdir=runs/uniter --split=validation
Hardware: meant for eight GPUs of 80 GB or a TPU host of eight chips.
Expected: not measured, see configs/visualbert.py. Masked regions (`mrm`) and alignment of words (`wpa`) are left out.
"""

import ml_collections

from configs import visualbert


def get_config() -> ml_collections.ConfigDict:
    config = visualbert.get_config()
    config.model.embed_norm = False
    config.model.text_norm = True
    config.model.image_norm = "each"
    config.model.image_positions = "boxes7"
    config.model.modality = "token_types"
    return config
