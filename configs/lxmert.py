"""LXMERT: two streams that meet in cross layers, pre-trained on captions and regions (Tan & Bansal 2019).

Claim: the published architecture (nine layers of text, five of regions, five that cross) trains here on captions and
features of your own; `config.init` starts it from published weights of LXMERT itself.

Command (data as in configs/visualbert.py; FOLDER published weights, without them it starts from nothing):
    python train.py --config=configs/lxmert.py --workdir=runs/lxmert --config.data.dir=DATA [--config.init=FOLDER]
    python eval.py --workdir=runs/lxmert --split=validation
Expected: not measured, see configs/visualbert.py; its small twin is configs/scenes_regions.py:lxmert. The paper's
masked objects and their features are not here yet.
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
            text_length=20,
            max_patches=36,
        ),
        model=TwoStreamConfig.named("lxmert", dropout=0.1, attention_dropout=0.1),
        objectives={"mlm": 1.0, "itm": 1.0},
        train=TrainConfig(
            num_steps=700_000,
            batch_size=256,
            accumulate=4,
            learning_rate=1e-4,
            schedule="linear",
            warmup_steps=35000,
            best_metric="mlm/accuracy",
        ),
    ).to_config_dict()
