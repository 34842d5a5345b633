"""Multiple choice on Scenes: which of four answers to a question is true of the picture? VCR's twin.

Claim: a softmax over the texts of a row learns to choose: each text is the question with one of four answers ("what
colour is the ring? red"), the false ones true of other things in the picture where there are such. Which text is the
true one no text tells: 0.25 by chance. Trained with `locate`, from the quickstart's run.

Command (RUN: of quickstart.py):
    python train.py --config=configs/scenes_choose.py --workdir=runs/choose --config.init=RUN
    python eval.py --workdir=runs/choose --split=test
Hardware: two CPU cores.
Expected: seed 0, from a quickstart's run (of an earlier layout, so that its modality embeddings began anew),
2026-11-21: test 0.982, test_composition 0.968; chance 0.25.
"""

import ml_collections

from configs import quickstart


def get_config() -> ml_collections.ConfigDict:
    config = quickstart.get_config()
    config.data.options = {"task": "choose"}
    config.data.text_length = 14
    config.data.texts_per_row = 4
    config.train.num_steps = 1000
    config.train.learning_rate = 1e-3
    config.train.muon_learning_rate = 0.01
    config.train.batch_size = 32
    config.train.eval_every = 200
    config.train.checkpoint_every = 200
    config.train.best_metric = "choose/accuracy"
    config.objectives = {"choose": 1.0, "locate": 1.0}
    return config
