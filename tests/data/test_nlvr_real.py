"""The published pictures and sentences (Suhr et al. 2017), where they lie beside the checkout or where NLVR says."""

import os
import pathlib

import numpy as np
import pytest

from singlestream.config import Config, DataConfig, ModelConfig
from singlestream.data.pipeline import priors, train_iterator
from singlestream.data.processor import Processor
from singlestream.data.sources import open_split

DATA = pathlib.Path(
    os.environ.get("NLVR") or pathlib.Path(__file__).parents[3] / "shared" / "data" / "nlvr.tar.gz"
).absolute()
pytestmark = pytest.mark.skipif(not DATA.exists(), reason=f"needs the NLVR data at {DATA}, or the variable NLVR set")


def test_the_published_figures_come_out():
    train, validation, test = (open_split(_data(), split) for split in ("train", "validation", "test"))
    assert (len(train), len(validation), len(test)) == (1664, 325, 990)
    answers = [test.texts(i)[0].answer for i in range(len(test))]
    assert round(answers.count("true") / len(answers), 3) == 0.562  # the majority figure of the paper's table
    assert priors(train, _data())["majority"] == "true"


def test_rows_hold_three_boxes_in_some_order():
    config = Config(
        data=_data(augment=("box_order",), text_length=28, max_patches=25),
        model=ModelConfig.named("tiny", num_images=3, patch_size=20),
    )
    source = open_split(config.data, "train")
    processor = Processor.build(config, source)
    batch = next(train_iterator(source, processor, batch_size=4, seed=0))
    assert batch.image.pixels.shape == (4, 75, 20 * 20 * 3)
    assert (np.asarray(batch.image.index) == np.repeat([0, 1, 2], 25)).all()
    assert set(processor.answers) == {"true", "false"} and batch.example_mask.all()


def _data(**changes) -> DataConfig:
    return DataConfig(name="nlvr", dir=str(DATA), **changes)
