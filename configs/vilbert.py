"""ViLBERT: two streams of different widths, pre-trained on captions and regions (Lu et al. 2019).

Claim: the published architecture (twelve layers of text, six of regions 1,024 wide, six that cross) trains here on
captions and features of your own; `config.init` starts it from published weights of ViLBERT itself, or from BERT. The
objectives are the paper's (section 2.3): masked words, masked regions, held against the detector's probabilities by KL,
and matching. Words and regions are masked apart, where the authors mask both at once, and a masked region's features
always become 0, where theirs stay in a tenth.

Command (data as in configs/uniter.py; FOLDER weights of ViLBERT or BERT, without them it starts from nothing):
    python train.py --config=configs/vilbert.py --workdir=runs/vilbert --config.data.dir=DATA [--config.init=FOLDER]
    python eval.py --workdir=runs/vilbert --split=validation
Hardware: meant for eight GPUs of 80 GB or a TPU host of eight chips.
Expected: not measured, see configs/visualbert.py; its small twin is configs/scenes_regions.py:vilbert.
"""

import ml_collections

from configs import visualbert
from singlestream.config import Config, TwoStreamConfig


def get_config() -> ml_collections.ConfigDict:
    config = visualbert.get_config()
    model = TwoStreamConfig.named("vilbert", dropout=0.1, attention_dropout=0.1)
    with config.unlocked():
        config.model = Config(model=model).to_config_dict().model
    config.data.options = {"images": "", "features": "features.tsv", "distribution": True}
    config.data.text_length = 36
    config.data.max_patches = 101
    config.data.mean_region = True
    config.objectives = {"mlm": 1.0, "itm": 1.0, "mrm": 1.0}
    config.objective_options = {"mrm": {"targets": ("distribution",)}}
    config.train.num_steps = 65_000
    config.train.batch_size = 512
    config.train.accumulate = 8
    config.train.learning_rate = 1e-4
    config.train.warmup_steps = 6_500
    return config
