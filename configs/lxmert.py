"""LXMERT: two streams that meet in cross layers, pre-trained on captions, questions and regions (Tan & Bansal 2019).

Claim: the published architecture (nine layers of text, five of regions, five that cross) trains here on captions,
questions and features of your own; `config.init` starts it from published weights of LXMERT itself, or from BERT's
first layers. The objectives are the paper's (section 3.1): masked words, matching, answers (those that come nine times
or more), and the features of masked regions; the classes that a detector gives them are left out. Words and regions are
masked apart, where the authors mask both at once; features have the squared error, where theirs is smooth; and answers
are asked from the first step on, where the paper asks them in the last ten of twenty epochs.

Command (data as in configs/visualbert.py, and lines like {"image": "cat", "question": "what is it?", "answer": "a
cat"}; FOLDER weights of LXMERT or BERT, without them it starts from nothing):
    python train.py --config=configs/lxmert.py --workdir=runs/lxmert --config.data.dir=DATA [--config.init=FOLDER]
    python eval.py --workdir=runs/lxmert --split=validation
Hardware: meant for eight GPUs of 80 GB or a TPU host of eight chips.
Expected: not measured, see configs/visualbert.py; its small twin is configs/scenes_regions.py:lxmert.
"""

import ml_collections

from configs import visualbert
from singlestream.config import Config, TwoStreamConfig


def get_config() -> ml_collections.ConfigDict:
    config = visualbert.get_config()
    model = TwoStreamConfig.named("lxmert", dropout=0.1, attention_dropout=0.1)
    with config.unlocked():
        config.model = Config(model=model).to_config_dict().model
    config.data.texts = "all"
    config.data.min_answer_count = 9
    config.data.text_length = 20
    config.data.max_patches = 36
    config.objectives = {"mlm": 1.0, "itm": 1.0, "mrm": 1.0, "vqa": 1.0}
    config.objective_options = {"mrm": {"targets": ("features",)}}
    config.train.num_steps = 700_000
    config.train.batch_size = 256
    config.train.accumulate = 4
    config.train.learning_rate = 1e-4
    config.train.warmup_steps = 35_000
    return config
