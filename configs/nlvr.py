"""NLVR from raw pixels, from scratch: three boxes and a sentence, true or false.

Claim: the programs that train on generated scenes train on pictures and sentences that people made, several pictures an
example. What little 1,664 labelled examples teach is beside the point: published models that read raw pixels reach 56
to 70% on test-P with 12,410 (majority 56.2%).

Command (`nlvr.tar.gz` or its folder, https://github.com/lil-lab/nlvr):
    python train.py --config=configs/nlvr.py --workdir=runs/nlvr --config.data.dir=nlvr.tar.gz
    python eval.py --workdir=runs/nlvr --split=test
Hardware: two CPU cores.
Expected: one run, seed 0, 2026-11-21, the 990 examples of `test`, with 95% intervals: 0.543 (0.512-0.574); majority
answer 0.562, question alone 0.552, the same model without the picture 0.540 (0.509-0.571). It learns its training
examples and nothing that holds beyond them: sentences also seen in training 0.596, new ones 0.519.
"""

import ml_collections

from singlestream.config import Config, DataConfig, ModelConfig, TrainConfig


def get_config() -> ml_collections.ConfigDict:
    return Config(
        data=DataConfig(
            name="nlvr",
            augment=("box_order",),
            text_length=28,
            max_patches=25,
            vocab_size=512,
        ),
        model=ModelConfig.named(
            "tiny",
            num_images=3,
            image_stem="conv",
            patch_size=20,
            patch_margin=2,
            image_grid=(5, 5),
            position_init="fourier",
            dropout=0.1,
        ),
        objectives={"vqa": 1.0},
        train=TrainConfig(
            num_steps=1000,
            batch_size=32,
            learning_rate=5e-4,
            warmup_steps=100,
            weight_decay=0.05,
            eval_every=200,
            eval_batches=0,
            checkpoint_every=200,
            best_metric="vqa/accuracy",
        ),
    ).to_config_dict()
