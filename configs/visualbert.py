"""VisualBERT: pre-training on captions and the regions of a detector, masked words and matching pairs (Li et al. 2019).

Claim: the published architecture, of BERT-base's size, trains here on captions and features of your own; `config.init`
starts it from BERT, or from published weights of VisualBERT itself.

Command (DATA holds train.jsonl and validation.jsonl with lines like {"image": "cat", "caption": "A cat that sleeps."},
and features.tsv in the bottom-up-attention format; BERT a folder of BERT-base, from which text and layers start):
    python train.py --config=configs/visualbert.py --workdir=runs/visualbert --config.init=BERT --config.data.dir=DATA
    python eval.py --workdir=runs/visualbert --split=validation
Hardware: meant for eight GPUs of 80 GB or a TPU host of eight chips.
Expected: not measured: neither the published data nor weights could be fetched where this was written.
"""

import ml_collections

from singlestream.config import Config, DataConfig, ModelConfig, TrainConfig


def get_config() -> ml_collections.ConfigDict:
    return Config(
        data=DataConfig(
            name="jsonl",
            options={"images": "", "features": "features.tsv"},
            texts="captions",
            vocab_size=30_522,
            text_length=40,
            max_patches=100,
        ),
        model=ModelConfig.named(
            "base",
            norm="post",
            norm_eps=1e-12,
            embed_norm=True,
            dropout=0.1,
            attention_dropout=0.1,
            max_text_length=512,
            modality="image",
            image_stem="regions",
            image_positions="constant",
            pooler=True,
        ),
        objectives={"mlm": 1.0, "itm": 1.0},
        train=TrainConfig(
            num_steps=100_000,
            batch_size=480,
            accumulate=10,
            learning_rate=5e-5,
            schedule="linear",
            warmup_steps=10_000,
            best_metric="mlm/accuracy",
        ),
    ).to_config_dict()
