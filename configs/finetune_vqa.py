"""Tuning a published ViLT on your own questions: model, vocabulary and its way with pictures come from its folder.

Claim: a checkpoint in transformers' layout, or in the authors' own, goes on training here; what is taken and what stays
fresh is listed when it starts. The recipe is ViLT's for VQA (Kim et al. 2021, section 4.2): AdamW at 1e-4, a tenth of
the steps to warm up, the new head ten times faster, batches of 256.

Command (FOLDER holds model.safetensors, config.json and vocab.txt; DATA train.jsonl, validation.jsonl and test.jsonl
with lines like {"image": "cat.jpg", "question": "what is it?", "answer": "a cat"}):
    python train.py --config=configs/finetune_vqa.py --workdir=runs/tuned --config.init=FOLDER --config.data.dir=DATA
    python eval.py --workdir=runs/tuned --split=test
Hardware: meant for one GPU of 80 GB or a TPU host of eight chips.
Expected: not measured: no published weights could be fetched where this was written. The tests tune a small ViLT so.
"""

import ml_collections

from singlestream.config import Config, DataConfig, GroupConfig, ModelConfig, TrainConfig


def get_config() -> ml_collections.ConfigDict:
    return Config(
        data=DataConfig(
            name="jsonl",
            options={"images": "", "features": ""},
            vocab_size=30_522,
            text_length=40,
            shorter_side=384,
            max_patches=228,
        ),
        # ViLT-B/32; replaced by what the weights in config.init are.
        model=ModelConfig.named(
            "base",
            text_norm=True,
            embed_norm_eps=1e-12,
            max_text_length=40,
            modality="pictures",
            image_grid=(12, 12),
            position_resize="corners",
            image_cls=True,
            patch_size=32,
            pooler=True,
        ),
        objectives={"vqa": 1.0},
        train=TrainConfig(
            num_steps=10_000,
            batch_size=256,
            accumulate=4,
            learning_rate=1e-4,
            schedule="linear",
            warmup_steps=1000,
            groups=(GroupConfig(pattern="^heads/", rate=10.0),),
            best_metric="vqa/accuracy",
        ),
    ).to_config_dict()
