"""VCR: which of four answers to a question about a film's picture, and which of four reasons for it?

Claim: multiple choice needs a softmax over the texts of a row and nothing else (VisualBERT, section 4.2). Each of the
four reads its own copy of the picture; people have names that say no gender, other things their class, as the
dataset's authors write them. Five epochs of 212,923 questions from ViLT, on patches. `regions` is VisualBERT on the
regions of a detector; `rationale` is that for reasons, the right answer being given (QA->R), whose texts are longer
than the 40 tokens that ViLT has places for. Batches, rates and lengths are this project's.

Command (DATA: train.jsonl, val.jsonl, test.jsonl and vcr1images; FOLDER: published ViLT, or the run of
pretrain_coco.py; BERT: as in configs/visualbert.py, with features.tsv of the pictures in DATA):
    python train.py --config=configs/vcr.py --workdir=runs/vcr --config.init=FOLDER --config.data.dir=DATA
    python eval.py --workdir=runs/vcr --split=validation
    python train.py --config=configs/vcr.py:regions --workdir=runs/vcr_a --config.init=BERT --config.data.dir=DATA
    python eval.py --workdir=runs/vcr_a --split=validation
    python train.py --config=configs/vcr.py:rationale --workdir=runs/vcr_r --config.init=BERT --config.data.dir=DATA
    python eval.py --workdir=runs/vcr_r --split=validation --together=runs/vcr_a
Hardware: meant for one GPU of 80 GB or a TPU host of eight chips.
Expected: not measured: neither data nor weights could be fetched where this was written. Chance is 0.25. VisualBERT,
which also reads the boxes of what the words name, reports 70.8 for answers, 73.2 for reasons and 52.2 for both together
on validation (Li et al. 2019, table 2). `choices.jsonl` has the probability of every choice. It is no submission to the
leaderboard, which wants the probabilities of the reasons after each of the four answers; here they are after the right
one, which of `test` is not published.
"""

import ml_collections

from configs import finetune_vqa, visualbert


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    if variant not in ("", "regions", "rationale"):
        raise ValueError(f"configs/vcr.py:{variant}: the variants are regions and rationale")
    config = visualbert.get_config() if variant else finetune_vqa.get_config()
    config.data.name = "vcr"
    config.data.options = {
        "rationale": variant == "rationale",
        "images": "vcr1images",
        "features": "features.tsv" if variant else "",
    }
    config.data.texts = "questions"
    config.data.texts_per_row = 4
    config.data.copies = True
    if variant:
        config.data.text_length = 128
        config.train.learning_rate = 2e-5
    config.objectives = {"choose": 1.0}
    config.train.num_steps = 8300
    config.train.batch_size = 128
    config.train.accumulate = 16
    config.train.warmup_steps = 830
    config.train.eval_every = 830
    config.train.eval_batches = 0
    config.train.checkpoint_every = 830
    config.train.best_metric = "choose/accuracy"
    return config
