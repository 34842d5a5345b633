"""Unicoder-VL: VisualBERT's pre-training with regions that say where they lie (Li et al. 2020).

Claim: the published architecture: BERT-base, each region the LayerNorm of its feature's and its box's projections.

Command (data and start as in configs/visualbert.py):
    python train.py --config=configs/unicoder_vl.py --workdir=runs/unicoder_vl --config.init=BERT --config.data.dir=DATA
    python eval.py --workdir=runs/unicoder_vl --split=validation
Hardware: meant for eight GPUs of 80 GB or a TPU host of eight chips.
Expected: not measured, see configs/visualbert.py. The third objective, masked regions (`mrm`), is left out.
"""

import ml_collections

from configs import visualbert


def get_config() -> ml_collections.ConfigDict:
    config = visualbert.get_config()
    config.model.embed_norm = False
    config.model.text_norm = True
    config.model.image_norm = "sum"
    config.model.image_positions = "boxes"
    config.model.modality = "none"
    return config
