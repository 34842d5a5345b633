"""Scenes, longer: the quickstart's model and data, trained for twenty minutes on two CPU cores.

Claim: most of what the quickstart still gets wrong, counting above all, goes away with time. Region supervision
(`locate`) is what makes it learn so fast. Without it a model needs a quarter of the rate of learning to leave the
plateau before binding sets in, and then points, untaught, at what its answers are about.

Command:
    python train.py --config=configs/scenes_vqa.py --workdir=runs/scenes_vqa
    python eval.py --workdir=runs/scenes_vqa --split=test
Without region supervision, and without the stepping-stone questions:
    python train.py --config=configs/scenes_vqa.py:no_locate --workdir=runs/no_locate
    python benchmarks/instruments.py --run=runs/no_locate --examples=2000
    python train.py --config=configs/scenes_vqa.py:no_where --workdir=runs/no_where --config.train.num_steps=10000
Hardware: two CPU cores.
Expected: one run each, seed 0, 2026-11-21: test 0.9980, test_composition 0.9956; count, 0.991, is the weakest kind.
`no_locate`, 10,000 steps, seed 0, 2026-11-22: test 0.819 (0.812-0.826), test_composition 0.666; colour 0.998, exist
0.986, shape 0.984, count 0.936, but "where" 0.522 and yes/no relations at chance. `rollout` points at 0.861
(0.838-0.881) of what the answers are about, at 0.646 of the words (chance 0.11 and 0.07). At the quickstart's rates of
learning it was 0.584 and 0.405 after as many steps (colour 0.77, shape 0.61), 2026-11-21.
`no_where`, 10,000 steps, never asked where things lie, 0.996 and 0.990 of the other five kinds, yes/no relations 1.000
and 0.998 among them. Share of named words whose strongest patch, by the head that points best on `validation`, lies in
the true box, on `test`: 0.962 with `locate`, 0.559 without, 0.946 without "where", chance 0.073.
With one head that is taught to point (`objectives/align.py`: its attention at a naming word goes to what the word
names), and no other region supervision, 1,000 steps from the run of `no_locate`:
    python train.py --config=configs/scenes_vqa.py:align --workdir=runs/align --config.init=runs/no_locate
Expected: seed 0, 2026-11-22: that head points at 0.993 (0.990-0.995) of the words on test, 0.966 on test_composition,
and test rises from 0.819 to 0.941 (0.937-0.946), test_composition from 0.666 to 0.838.
With patches named as by a detector, and words by nobody:
    python train.py --config=configs/scenes_vqa.py:no_word --workdir=runs/no_word --config.train.num_steps=5000
    python benchmarks/instruments.py --run=runs/no_word
Expected: seed 0, 2026-11-22: test 0.911 (0.905-0.916), test_composition 0.857; counting 0.878, yes/no relations 0.874
the weakest kinds. Nobody taught its attention: `rollout` points at 0.910 (0.872-0.937) of what the answers are
about, at 0.484 of the words (chance 0.11 and 0.09; benchmarks/results/instruments.md). Half an hour of one core.
With patches of a quarter of the area and six layers, so that most of a row are patches and pruning can save much:
    python train.py --config=configs/scenes_vqa.py:fine --workdir=runs/fine
    python benchmarks/pruning.py --run=runs/fine --rows=512 --rounds=12
Expected: seed 0, 2026-11-22: test 0.975 (0.972-0.978), test_composition 0.947; counting, 0.883, is the weakest kind;
pointing 0.982. 45 minutes of one core. Half of its patches merged after training, one text a row: 0.53 of the time, no
accuracy lost, pointing 3 points (benchmarks/results/pruning.md).
"""

import ml_collections

from configs import quickstart

KINDS = ("colour", "shape", "exist", "spatial", "count")  # every kind but "where"


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    config = quickstart.get_config()
    config.train.num_steps = 12_000
    config.train.eval_every = 1000
    config.train.checkpoint_every = 1000
    if variant == "no_locate":
        config.objectives = {"vqa": 1.0}
        config.train.num_steps = 10_000
        config.train.learning_rate = 5e-4
        config.train.muon_learning_rate = 0.005
    elif variant == "no_word":
        config.objective_options = {"locate": {"word": 0.0}}
    elif variant == "no_where":
        config.data.kinds = KINDS
    elif variant == "fine":
        config.train.num_steps = 3000
        config.data.max_patches = 144
        config.model.patch_size = 4
        config.model.image_grid = (12, 12)
        config.model.num_layers = 6
    elif variant == "align":
        config.train.num_steps = 1000
        config.train.learning_rate = 5e-4
        config.train.muon_learning_rate = 0.005
        config.train.eval_every = 500
        config.train.checkpoint_every = 500
        config.objectives = {"vqa": 1.0, "align": 1.0}
        config.objective_options = {"align": {"layer": 3}}
    elif variant:
        known = "align, fine, no_locate, no_where and no_word"
        raise ValueError(f"configs/scenes_vqa.py:{variant}: the variants are {known}")
    return config
