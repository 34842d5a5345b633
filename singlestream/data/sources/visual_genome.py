"""Visual Genome: phrases about regions of photographs, or questions about them (Krishna et al. 2017).

`config.data.dir` holds the published files (https://homes.cs.washington.edu/~ranjay/visualgenome/api.html) and the
pictures as they unpack:

    image_data.json  region_descriptions.json  question_answers.json
    VG_100K/2315353.jpg  VG_100K_2/1.jpg

A text is a region's phrase (config.data.texts="captions") whose one mention, all of it, has the region's box; or, with
`options.texts="questions"`, a question with its answer in lower case and without its full stop. There is no published
split: the `held_out` pictures of the highest ids validate. Half of the pictures are COCO's, those of its validation and
test splits among them; `overlap` counts them.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from singlestream.config import DataConfig
from singlestream.data.genome_pictures import PICTURES, read_pictures
from singlestream.data.json_file import published, read_json
from singlestream.data.questions import Questions, dataset_folder
from singlestream.data.record import DataError
from singlestream.data.sources.visual_genome_texts import Texts

SPLITS = ("train", "validation")
FILES = {"regions": "region_descriptions.json", "questions": "question_answers.json"}


@dataclasses.dataclass(frozen=True)
class Options:
    """Keys of `config.data.options`."""

    texts: str = "regions"  # regions or questions
    held_out: int = 1000  # pictures that validate
    images: str = ""  # folder that holds VG_100K and VG_100K_2, seen from `config.data.dir`
    features: str = ""  # region features to read in place of pictures: a table or a folder, seen from there
    distribution: bool = False  # also read a detector's class probabilities there, for `mrm`

    def __post_init__(self) -> None:
        if self.texts not in FILES:
            raise ValueError(f"config.data.options.texts={self.texts!r}: choose regions or questions")
        if self.held_out < 1:
            raise ValueError(f"config.data.options.held_out={self.held_out}: must be at least 1")


def open_split(data: DataConfig, options: Options, split: str, *, progress: bool = True) -> Questions:
    """Opens a split; `progress` is not needed: the 5.4 million phrases take half a minute and 0.8 GB (1.6 at most).

    Raises:
        DataError: files are missing (lists those expected and found) or damaged, or pictures are missing.
    """
    name = FILES[options.texts]
    expected = [PICTURES, name]
    if not options.features:
        expected += [f"{options.images}/{part}/".lstrip("/") for part in ("VG_100K", "VG_100K_2")]
    folder = dataset_folder(data, "Visual Genome", expected)
    places, texts = read_pictures(folder / PICTURES), Texts()
    with published(folder / name, f"Visual Genome's {options.texts}"):
        read_json(folder / name, list, shrink=texts.take)
        shown = np.array(texts.pictures, np.int64)
        held_out = sorted(places)[-options.held_out :]
        texts.places = {picture: places[picture] for picture in np.unique(shown).tolist()}
    texts.rows = np.flatnonzero(np.isin(shown, held_out) == (split == "validation"))
    if not len(texts):
        raise DataError(f"{folder / name}: of its pictures {options.held_out} are held out, which leaves no text")
    ids = {file: known for file, _, _, known in texts.places.values()}
    return Questions(
        texts,
        [texts.places[picture][0] for picture in shown[texts.rows].tolist()],
        shared=data.texts_per_row > 1,
        images=folder / options.images,
        features=folder / options.features if options.features else None,
        distribution=options.distribution,
        identify=ids.__getitem__,
    )
