"""Two pictures and a sentence on Scenes, true or false: NLVR2's twin, with its consistency by sentence.

Claim: the quickstart's encoder reads two pictures in one row (UNITER's triplet way), tells left from right, and counts
over both: "on the left and on the right there is a red ring", "there are more crosses on the left than on the right",
"there are three large things in all". Each sentence is asked of four pairs, two of them true: the sentence alone
reaches 0.5. With `pair` each picture is read beside a copy of the sentence, and a head reads both vectors. Trained with
`locate`, from the quickstart's run, as NLVR2 starts from a pre-trained one.

Command (RUN: of quickstart.py):
    python train.py --config=configs/scenes_nlvr.py --workdir=runs/scenes_nlvr --config.init=RUN
    python eval.py --workdir=runs/scenes_nlvr --split=test
    python train.py --config=configs/scenes_nlvr.py:pair --workdir=runs/scenes_nlvr_pair --config.init=RUN
Hardware: two CPU cores.
Expected: seed 0, from a quickstart's run (of an earlier layout, so that its modality embeddings began anew),
2026-11-21: test 0.840 (exist 0.974, total 0.850, compare 0.703), consistency 0.567; test_composition 0.796 and 0.481.
The sentence alone, and the model without the pictures: 0.500. Accuracy still rises at the end (validation 0.807 at 800
steps, 0.853 at 1,000). `pair`, 2026-11-22: test 0.906 (exist 0.994, compare 0.917, total 0.801), consistency 0.753;
test_composition 0.860 and 0.630. A quarter of an hour of one core.
"""

import ml_collections

from configs import quickstart


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    config = quickstart.get_config()
    config.data.options = {"task": "pairs"}
    config.data.text_length = 24  # the quickstart's vocabulary holds some of these words in pieces
    config.data.texts_per_row = 8
    config.model.num_images = 2
    config.train.num_steps = 1000
    config.train.learning_rate = 1e-3
    config.train.muon_learning_rate = 0.01
    config.train.eval_every = 200
    config.train.checkpoint_every = 200
    if variant == "pair":
        config.data.texts_per_row = 1
        config.data.apart = 2
        config.model.direction = "full"
        config.train.batch_size = 48
        config.objectives = {"nlvr": 1.0, "locate": 1.0}
        config.train.best_metric = "nlvr/accuracy"
    elif variant:
        raise ValueError(f"configs/scenes_nlvr.py:{variant}: the only variant is pair")
    return config
