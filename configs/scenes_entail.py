"""Entailment on Scenes: does the picture entail the sentence, contradict it, or leave it open? SNLI-VE's twin.

Claim: the quickstart's encoder tells apart what every ring in a picture is, what none is, and what some are: "the ring
is red" is entailed, contradicted, or neutral where one ring is red and another is not. Each form of sentence takes the
three labels equally often: the sentence alone gives nothing away. It is `vqa` with three answers, and `locate`, and
starts from the quickstart's run, which already binds colours to shapes, as SNLI-VE starts from a pre-trained one.

Command (RUN: of quickstart.py):
    python train.py --config=configs/scenes_entail.py --workdir=runs/entail --config.init=RUN
    python eval.py --workdir=runs/entail --split=test
Hardware: two CPU cores.
Expected: one run, seed 0, 2026-11-21, from a quickstart's run of 0.989: test 0.983, test_composition 0.958; of the
kinds "where" is weakest, 0.971 and 0.947; the sentence alone 0.336 and 0.320. From nothing it was still on the plateau
before binding sets in after 750 steps: 0.38 of the training sentences.
"""

import ml_collections

from configs import quickstart


def get_config() -> ml_collections.ConfigDict:
    config = quickstart.get_config()
    config.data.options = {"task": "entail"}
    config.train.num_steps = 600
    config.train.learning_rate = 1e-3
    config.train.muon_learning_rate = 0.01
    config.train.eval_every = 200
    config.train.checkpoint_every = 200
    return config
