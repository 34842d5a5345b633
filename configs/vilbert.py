"""ViLBERT: two streams of different widths, pre-trained on captions and regions (Lu et al. 2019).

Claim: the published architecture (twelve layers of text, six of regions 1,024 wide, six that cross) trains here on
captions and features of your own; `config.init` starts it from published weights of ViLBERT itself, or from BERT.

Command (data as in configs/visualbert.py; FOLDER weights of ViLBERT or BERT, without them it starts from nothing):
    python train.py --config=configs/vilbert.py --workdir=runs/vilbert --config.data.dir=DATA [--config.init=FOLDER]
    python eval.py --workdir=runs/vilbert --split=validation
Expected: not measured, see configs/visualbert.py; its small twin is configs/scenes_regions.py:vilbert. The paper's
masked regions are not here yet.
"""

import ml_collections

from singlestream.config import Config, DataConfig, TrainConfig, TwoStreamConfig


def get_config() -> ml_collections.ConfigDict:
    return Config(
        data=DataConfig(
            name="jsonl",
            options={"images": "", "features": "features.tsv"},
            texts="captions",
            vocab_size=30_522,
            text_length=36,
            max_patches=101,
            mean_region=True,
        ),
        model=TwoStreamConfig.named("vilbert", dropout=0.1, attention_dropout=0.1),
        objectives={"mlm": 1.0, "itm": 1.0},
        train=TrainConfig(
            num_steps=65_000,
            batch_size=512,
            accumulate=8,
            learning_rate=1e-4,
            schedule="linear",
            warmup_steps=6500,
            best_metric="mlm/accuracy",
        ),
    ).to_config_dict()
