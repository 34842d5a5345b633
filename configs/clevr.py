"""CLEVR, tuned from published weights: questions made by programs about rendered scenes, one of 28 answers each.

Claim: ViLT's recipe for VQA (Kim et al. 2021, section 4.2) takes CLEVR (Johnson et al. 2017) with a softmax over the
answers, of which each question has one, and ten epochs; ViLT published none for it. Accuracy comes by what a question's
program does last: count, exist, the comparisons of numbers (equal_integer, less_than, greater_than) and of attributes
(equal_color, ...), the queries (query_color, ...). ViLT has places for 40 tokens: longer questions lose their end, and
how many do is said when the run begins.

Command (FOLDER: published ViLT, or the run of pretrain_coco.py; DATA: the folder CLEVR_v1.0 as it unpacks):
    python train.py --config=configs/clevr.py --workdir=runs/clevr --config.init=FOLDER --config.data.dir=DATA
    python eval.py --workdir=runs/clevr --split=validation
Hardware: meant for one GPU of 80 GB or a TPU host of eight chips.
Expected: not measured: neither data nor weights could be fetched where this was written. On features of a ResNet, FiLM
reports 97.7 (Perez et al. 2018) and MAC 98.9 (Hudson and Manning 2018); people reach 92.6. Answers of `test` are not
published.
"""

import ml_collections

from configs import finetune_vqa


def get_config() -> ml_collections.ConfigDict:
    config = finetune_vqa.get_config()
    config.data.name = "clevr"
    config.data.options = {}
    config.train.num_steps = 27_340  # ten epochs of 699,989 questions
    config.train.warmup_steps = 2734
    config.train.eval_every = 2734
    config.train.eval_batches = 64
    config.train.checkpoint_every = 2734
    return config
