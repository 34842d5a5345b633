"""Unicoder-VL: VisualBERT's pre-training with regions that say where they lie, and masked ones (Li et al. 2020).

Claim: the published architecture (BERT-base, each region the LayerNorm of its feature's and its box's projections) and
its three objectives: masked words, masked objects (MOC: the class that the detector finds most probable), matching.
Batches, steps and rate are those of configs/visualbert.py.

Command (start as in configs/visualbert.py, data as in configs/uniter.py):
    python train.py --config=configs/unicoder_vl.py --workdir=runs/unicoder_vl --config.init=BERT --config.data.dir=DATA
    python eval.py --workdir=runs/unicoder_vl --split=validation
Hardware: meant for eight GPUs of 80 GB or a TPU host of eight chips.
Expected: not measured, see configs/visualbert.py; its small twin is configs/scenes_regions.py.
"""

import ml_collections

from configs import visualbert


def get_config() -> ml_collections.ConfigDict:
    config = visualbert.get_config()
    config.data.options = {"images": "", "features": "features.tsv", "distribution": True}
    config.model.embed_norm = False
    config.model.text_norm = True
    config.model.image_norm = "sum"
    config.model.image_positions = "boxes"
    config.model.modality = "none"
    config.objectives = {"mlm": 1.0, "itm": 1.0, "mrm": 1.0}
    config.objective_options = {"mrm": {"targets": ("classes",)}}
    return config
