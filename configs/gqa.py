"""GQA, tuned from published weights: questions made from scene graphs, one answer each.

Claim: the recipe of VQA v2 on the balanced questions of GQA (Hudson and Manning 2019), for which ViLT published none:
all answers of the training split, binary cross-entropy, five epochs. Accuracy comes by the questions' structural type.

Command (FOLDER: published ViLT; DATA: GQA's *_balanced_questions.json and its folder images, and image_data.json of
Visual Genome if pictures of COCO that a start was trained on shall be counted):
    python train.py --config=configs/gqa.py --workdir=runs/gqa --config.init=FOLDER --config.data.dir=DATA
    python eval.py --workdir=runs/gqa --split=test_dev
Hardware: meant for one GPU of 80 GB or a TPU host of eight chips.
Expected: not measured: neither data nor weights could be fetched where this was written. LXMERT, which reads
regions and learned on GQA's questions before, reports 60.00 on test-dev and 60.33 on test-standard (its repository).
"""

import ml_collections

from configs import vqav2


def get_config() -> ml_collections.ConfigDict:
    config = vqav2.get_config()
    config.data.name = "gqa"
    config.data.options = {"images": "images", "features": ""}
    config.data.min_answer_count = 1
    config.train.num_steps = 18_400  # five epochs of 943,000 questions
    config.train.warmup_steps = 1840
    config.train.eval_batches = 64
    return config
