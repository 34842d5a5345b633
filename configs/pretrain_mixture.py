r"""Pre-training on COCO's captions, Visual Genome's phrases and Conceptual Captions at once, as ViLT or ALBEF trains.

Claim: the recipe by which ViLT reads four million pictures (Kim et al. 2021, sections 3.2 and 4.2: whole words masked,
half of the pictures replaced, word-patch alignment at 0.1, batches of 4,096, AdamW at 1e-4, a tenth of its shorter
100,000 steps to warm up), on its corpora but SBU's, which is no source here. Corpora come in proportion to their
captions, as in the authors' code.

`albef` trains the same stream as ALBEF trains its own (Li et al. 2021, section 3): contrast with a queue of 65,536
vectors of a moving average, matching with hard negatives, masked words, and of contrast and words the average's soft
targets at 0.4, which grow over an epoch; thirty epochs, batches of 512, AdamW from 1e-4 to 1e-5, weight decay 0.02.
There encoders of text and picture come first (`config.model.text_encoder`, `image_encoder`), pictures are augmented,
and a corpus counts by other captions.

Command (COCO: dataset_coco.json, train2014 and val2014; GENOME: image_data.json, region_descriptions.json, VG_100K and
VG_100K_2; WEB: tables and pictures of Conceptual Captions; VIT: a published ViT-B/32, or none: from nothing):
    python train.py --config=configs/pretrain_mixture.py --workdir=runs/mixture --config.init=VIT \
        --config.data.dir=COCO --config.data.corpora.genome.dir=GENOME --config.data.corpora.web.dir=WEB
    python eval.py --workdir=runs/mixture --split=test
    python train.py --config=configs/pretrain_mixture.py:albef --workdir=runs/albef --config.init=VIT \
        --config.data.dir=COCO --config.data.corpora.genome.dir=GENOME --config.data.corpora.web.dir=WEB
Then whatever starts from pretrain_coco.py, whose words on `restval` hold here, too; retrieve.py from runs/albef. Half
of Visual Genome's pictures are COCO's: a run that starts from this one says how many of its validation were seen.
Hardware: meant for 64 GPUs of 32 GB or as many TPU chips; `albef` for eight GPUs of 80 GB.
Expected: not measured: neither data nor weights could be fetched where this was written.
"""

import ml_collections

from configs import pretrain_coco

CORPORA: dict[str, dict[str, object]] = {
    "genome": {
        "name": "visual_genome",
        "dir": "",
        "options": {"texts": "regions", "held_out": 1000, "images": "", "features": ""},
        "texts": "captions",
        "rate": 5.41,
    },
    "web": {
        "name": "conceptual_captions",
        "dir": "",
        "options": {"train": "training/{shard:05d}/{line:09d}.jpg"},
        "texts": "captions",
        "rate": 3.01,
    },
}


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    config = pretrain_coco.get_config()
    config.data.rate = 0.57  # rates: millions of captions (Kim et al. 2021, table 1)
    config.data.corpora = CORPORA
    config.train.num_steps = 100_000
    config.train.batch_size = 4096
    config.train.accumulate = 4
    config.train.warmup_steps = 10_000
    if variant == "albef":
        config.objectives = {"itc": 0.6, "itm": 1.0, "mlm": 0.6, "distill": 0.4}
        config.objective_options = {
            "itc": {"queue": 65_536},
            "itm": {"hard": True},
            "distill": {"ramp": 3_230_000},
        }
        config.train.num_steps = 189_000  # thirty epochs of 3.23 million pictures
        config.train.batch_size = 512
        config.train.schedule = "cosine"
        config.train.final_rate = 0.1
        config.train.warmup_steps = 1000
        config.train.weight_decay = 0.02
        config.train.ema_decay = 0.995
    elif variant:
        raise ValueError(f"configs/pretrain_mixture.py:{variant}: the only variant is albef")
    return config
