"""Labels on Scenes: which colours, which shapes there are, any number of them; or the one that is commonest.

Claim: `classify` gives each label by itself ("which colours are the rings?": blue, red), or with `single` one of them
("what is the commonest shape of the large things?"). Right is an answer with every label right; the area under the ROC
curve is measured for each label. Trained with `locate`.

Command:
    python train.py --config=configs/scenes_classify.py --workdir=runs/classify
    python eval.py --workdir=runs/classify --split=test
    python train.py --config=configs/scenes_classify.py:single --workdir=runs/classify_single
Hardware: meant for two CPU cores.
Expected: seed 0, 2026-11-22: test 0.939, area under the ROC curve 0.9994; test_composition 0.656 and 0.986: labels of a
pair of colour and shape that no training picture holds are often missed. Without the picture 0.050 and 0.013. 15
minutes of one core beside other work. `single`: test 0.911 (colour 0.958, shape 0.868), area 0.997; test_composition
0.780 (colour 0.947, shape 0.651) and 0.983; without the picture 0.137 and 0.165.
"""

import ml_collections

from configs import quickstart


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    config = quickstart.get_config()
    config.data.options = {"task": "label" if variant else "labels"}
    config.data.texts_per_row = 3 if variant else 6
    config.train.num_steps = 2000
    config.train.batch_size = 24
    config.train.eval_every = 500
    config.train.checkpoint_every = 500
    config.train.best_metric = "classify/accuracy"
    config.objectives = {"classify": 1.0, "locate": 1.0}
    if not variant:
        config.data.label_separator = ","
        config.objective_options = {"classify": {"several": True}}
    elif variant != "single":
        raise ValueError(f"configs/scenes_classify.py:{variant}: the only variant is single")
    return config
