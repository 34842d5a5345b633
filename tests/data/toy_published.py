"""Miniature folders of datasets in their published formats: every key of the files, two or three pictures.

`tests/data/toy_questions.py` has VQA v2 and GQA.
"""

from __future__ import annotations

import json
import pickle
import zlib
from pathlib import Path
from typing import Any

from tests.data.toy_questions import write_picture  # pictures of 24 x 16 pixels


def write(path: Path, content: Any, *, lines: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(f"{json.dumps(each)}\n" for each in content) if lines else json.dumps(content)
    path.write_text(text, encoding="utf-8")


def karpathy(name: str, pictures: list[dict[str, Any]]) -> dict[str, Any]:
    """The file of a dataset: of each picture its own fields, with five captions."""
    images = []
    for number, own in enumerate(pictures):
        sentids = [5 * number + k for k in range(5)]
        said = [f"Caption {k} of picture {number}. " for k in range(5)]
        sentences = [
            {"tokens": text.lower().strip(" .").split(), "raw": text, "imgid": number, "sentid": sentid}
            for text, sentid in zip(said, sentids, strict=True)
        ]
        images.append({"sentids": sentids, "imgid": number, "sentences": sentences, **own})
    return {"images": images, "dataset": name}


COCO = [("train", "train2014", 9), ("val", "val2014", 42), ("test", "val2014", 73), ("restval", "val2014", 74)]


def write_coco(folder: Path) -> Path:
    pictures = []
    for split, place, number in COCO:
        name = f"COCO_{place}_{number:012d}.jpg"
        write_picture(folder / place / name, number)
        pictures.append({"filepath": place, "filename": name, "split": split, "cocoid": number})
    write(folder / "dataset_coco.json", karpathy("coco", pictures))
    return folder


FLICKR = [("train", 1000092795), ("train", 7000000001), ("val", 10002456), ("test", 1007129816)]
SENTENCES = """\
[/EN#1/people Two young guys] with [/EN#2/bodyparts shaggy hair] look at [/EN#3/bodyparts/people their hands] .
[/EN#1/people Two people] in [/EN#4/scene the yard] trick [/EN#0/notvisual each other] .
A man 's day .
"""
ANNOTATION = """\
<annotation><filename>1000092795.jpg</filename><size><width>200</width><height>100</height><depth>3</depth></size>
<object><name>1</name><bndbox><xmin>1</xmin><ymin>11</ymin><xmax>101</xmax><ymax>51</ymax></bndbox></object>
<object><name>1</name><name>3</name><bndbox><xmin>151</xmin><ymin>1</ymin><xmax>203</xmax><ymax>101</ymax></bndbox>
</object><object><name>4</name><scene>1</scene><nobndbox>1</nobndbox></object></annotation>
"""


def write_flickr30k(folder: Path) -> Path:
    for _, number in FLICKR:
        write_picture(folder / "flickr30k-images" / f"{number}.jpg", number % 1000)
        for place, ending, content in (("Sentences", "txt", SENTENCES), ("Annotations", "xml", ANNOTATION)):
            (folder / place).mkdir(exist_ok=True)
            (folder / place / f"{number}.{ending}").write_text(content, encoding="utf-8")
    pictures = [{"filename": f"{number}.jpg", "split": split} for split, number in FLICKR]
    write(folder / "dataset_flickr30k.json", karpathy("flickr30k", pictures))
    return folder


NLVR2 = {
    "train": [("train-10171-0-0", "True"), ("train-10171-0-1", "False"), ("train-10171-1-0", "False")],
    "dev": [("dev-850-0-0", "True")],
    "test1": [("test1-0-1-0", "False")],
}


def write_nlvr2(folder: Path) -> Path:
    for part, examples in NLVR2.items():
        lines = [
            {
                "validation": label.lower(),
                "right_url": "https://example.com/r.jpg",
                "left_url": "https://example.com/l.jpg",
                "writer": 144,
                "identifier": name,
                "label": label,
                "sentence": f"Sentence {name[-1]} of {part}.",
                "synset": "acorn",
                "query": "acorns21",
                **({"directory": 89} if part == "train" else {}),
            }
            for name, label in examples
        ]
        write(folder / f"{part}.json", lines, lines=True)
        place = folder / ("images/train/89" if part == "train" else part)
        for pair in {name.rpartition("-")[0] for name, _ in examples}:
            for side in range(2):
                write_picture(place / f"{pair}-img{side}.png", side)
    return folder


def write_snli_ve(folder: Path, *, key: str = "Flickr30K_ID", ending: str = "") -> Path:
    """As the authors' generator writes it; their parser reads the key `Flikr30kID`, with or without ".jpg"."""
    labels = ("entailment", "neutral", "contradiction")
    for part, number in (("train", 1000092795), ("dev", 10002456), ("test", 1007129816)):
        write_picture(folder / "flickr30k-images" / f"{number}.jpg", number % 1000)
        lines = [
            {
                key: f"{number}{ending}",
                "annotator_labels": [label],
                "captionID": f"{number}.jpg#2",
                "gold_label": label,
                "pairID": f"{number}.jpg#2r1{label[0]}",
                "sentence1": "A man in a blue shirt.",
                "sentence1_binary_parse": "( A man )",
                "sentence1_parse": "(ROOT (NP (DT A)))",
                "sentence2": f"It is {label}.",
                "sentence2_binary_parse": "( It is )",
                "sentence2_parse": "(ROOT (S (NP (PRP It))))",
            }
            for label in labels
        ]
        write(folder / f"snli_ve_{part}.jsonl", lines, lines=True)
    return folder


# Of each: thing, picture, split, sentences, one of them empty.
REFS = [(11, 9, "train", ["left man", " ", "man in red"]), (12, 9, "train", ["the ball"]), (13, 25, "val", ["a dog"])]


def write_refcoco(folder: Path, *, protocol: int = 0) -> Path:
    """RefCOCO by unc; its files are of Python 2, whose text pickles of protocol 0 are."""
    refs, sentence = [], 0
    for thing, picture, split, said in [*REFS, (13, 25, "testA", ["dog"]), (12, 9, "testB", ["ball"])]:
        sentences = []
        for text in said:
            sentences.append({"tokens": text.split(), "raw": text.title(), "sent_id": sentence, "sent": text})
            sentence += 1
        refs.append(
            {
                "sent_ids": [each["sent_id"] for each in sentences],
                "file_name": f"COCO_train2014_{picture:012d}_{thing}.jpg",
                "ann_id": thing,
                "ref_id": len(refs),
                "image_id": picture,
                "split": split,
                "sentences": sentences,
                "category_id": 1,
            }
        )
    boxes = {11: (9, [0, 4.0, 12.0, 8.0]), 12: (9, [12, 0, 30.0, 16.0]), 13: (25, [6.0, 4.0, 12.0, 4.0])}
    instances = {
        "info": {"description": "This is stable 1.0 version of the 2014 MS COCO dataset."},
        "licenses": [{"url": "http://creativecommons.org/licenses/by/2.0/", "id": 4, "name": "Attribution License"}],
        "images": [
            {"license": 1, "file_name": f"COCO_train2014_{n:012d}.jpg", "height": 16, "width": 24, "id": n}
            for n in (9, 25)
        ],
        "annotations": [
            {
                "segmentation": [[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]],
                "area": 9.0,
                "iscrowd": 0,
                "image_id": picture,
                "bbox": box,
                "category_id": 1,
                "id": thing,
            }
            for thing, (picture, box) in boxes.items()
        ],
        "categories": [{"supercategory": "person", "id": 1, "name": "person"}],
    }
    write(folder / "refcoco" / "instances.json", instances)
    (folder / "refcoco" / "refs(unc).p").write_bytes(pickle.dumps(refs, protocol=protocol))
    for picture in (9, 25):
        write_picture(folder / f"images/mscoco/images/train2014/COCO_train2014_{picture:012d}.jpg", picture)
    return folder


def write_visual_genome(folder: Path) -> Path:
    """Three pictures, the second of them COCO's 9, the first of Flickr; each with two regions and a question."""
    pictures, regions, questions = [], [], []
    for number, part, coco in ((1, "VG_100K_2", None), (2, "VG_100K", 9), (2412345, "VG_100K", None)):
        url = f"https://cs.stanford.edu/people/rak248/{part}/{number}.jpg"
        elsewhere = {"coco_id": coco, "flickr_id": FLICKR[0][1] if number == 1 else None}
        pictures.append({"width": 24, "url": url, "height": 16, "image_id": number, **elsewhere})
        write_picture(folder / part / f"{number}.jpg", number)
        given = [(f"the clock of {number}", (6, 4, 12, 8)), ("Café sign", (-1, 0, 30, 4)), (" ", (0, 0, 1, 1))]
        regions.append(
            {
                "regions": [
                    {"region_id": 10 * number + k, "width": w, "height": h, "image_id": number, "phrase": text}
                    | {"y": y, "x": x}
                    for k, (text, (x, y, w, h)) in enumerate(given)
                ],
                "id": number,
            }
        )
        thing = {"object_id": 1, "synsets": ["clock.n.01"], "names": ["clock"], "x": 1, "y": 1, "w": 2, "h": 2}
        asked = {"a_objects": [thing], "question": "What colour is it?", "image_id": number, "qa_id": number}
        questions.append({"id": number, "qas": [asked | {"answer": "Dark Green.", "q_objects": []}]})
    write(folder / "image_data.json", pictures)
    write(folder / "region_descriptions.json", regions)
    write(folder / "question_answers.json", questions)
    return folder


CAPTIONS = ["a man in a café", "a dog on the beach", "actor attends the premiere"]


def write_conceptual_captions(folder: Path) -> Path:
    """The second picture of `train` could not be downloaded; `validation` is named as ViLBERT's authors do."""
    for name, count in (("Train_GCC-training.tsv", 3), ("Validation_GCC-1.1.0-Validation.tsv", 1)):
        lines = [f"{text}\thttp://example.com/{i}.jpg\n" for i, text in enumerate(CAPTIONS[:count])]
        (folder / name).write_text("".join(lines), encoding="utf-8")
    for number in (0, 2):
        write_picture(folder / "training" / "00000" / f"{number:09d}.jpg", number)
    made = folder / "made.jpg"
    write_picture(made, 0)
    made.rename(folder / "training" / str(zlib.crc32(b"http://example.com/0.jpg")))
    return folder


def write_clevr(folder: Path) -> Path:
    program = [{"inputs": [], "function": "scene", "value_inputs": []}]
    program += [{"inputs": [0], "function": "count", "value_inputs": []}]
    for part in ("train", "val", "test"):
        questions = []
        for number, picture in enumerate((0, 0, 1)):
            name = f"CLEVR_{part}_{picture:06d}.png"
            write_picture(folder / "images" / part / name, picture)
            asked = {"question_index": number, "image_index": picture, "image_filename": name, "split": part}
            answered = {"answer": str(number), "program": program, "question_family_index": 3}
            questions.append({**asked, "question": f"How many {number}s?", **(answered if part != "test" else {})})
        info = {"split": part, "license": "Creative Commons Attribution (CC BY 4.0)", "version": "1.0"}
        write(folder / "questions" / f"CLEVR_{part}_questions.json", {"info": info, "questions": questions})
    return folder


# Two questions about the first picture, one about the second; things are numbers.
VCR = [
    (
        "train",
        0,
        ["Why", "is", [1], "pointing", "at", [0, 2], "?"],
        ["They", "'re", "late", "."],
        [[2], "has", [3], "."],
    ),
    ("train", 0, ["Where", "is", [3], "?"], ["Behind", [0], "."], ["It", "is", "seen", "."]),
    ("train", 1, ["Who", "is", [0], "?"], ["A", "waiter", "."], ["He", "serves", "."]),
    ("val", 2, ["Who", "is", [0], "?"], ["A", "guest", "."], ["He", "eats", "."]),
    ("test", 3, ["Who", "is", [0], "?"], ["A", "cook", "."], ["He", "cooks", "."]),
]
THINGS = ["person", "person", "person", "wineglass"]


def write_vcr(folder: Path) -> Path:
    lines: dict[str, list[Any]] = {"train": [], "val": [], "test": []}
    for number, (part, picture, question, answer, reason) in enumerate(VCR):
        movie = f"30{picture:02d}_A_FILM"
        stem = f"lsmdc_{movie}/{movie}_00.23.57.935-00.24.00.783@{picture}"
        write_picture(folder / "vcr1images" / f"{stem}.jpg", picture)
        boxes = [[6.0 * k, 4.0, 6.0 * k + 6, 12.0, 0.9] for k in range(len(THINGS))]
        metadata = {"boxes": boxes, "segms": [[[[0, 0], [1, 1], [0, 1]]]] * 4, "names": THINGS}
        write(folder / "vcr1images" / f"{stem}.json", {**metadata, "width": 24, "height": 16})
        others = [["No", "."], ["Yes", ",", [0], "is", "."], ["Maybe", "."]]
        line = {
            "movie": movie,
            "objects": THINGS,
            "interesting_scores": [0],
            "answer_likelihood": "possible",
            "img_fn": f"{stem}.jpg",
            "metadata_fn": f"{stem}.json",
            "answer_orig": "They are late.",
            "question_orig": "Why is 2 pointing at 1 and 3?",
            "rationale_orig": "3 has 4.",
            "question": question,
            "answer_match_iter": [3, 0, 2, 1],
            "answer_sources": [3287, 0, 10184, 2260],
            "answer_choices": [others[0], answer, *others[1:]],
            "rationale_choices": [*others, reason],
            "rationale_sources": [1921, 0, 9750, 25743],
            "rationale_match_iter": [3, 0, 2, 1],
            "img_id": f"{part}-{picture}",
            "question_number": number,
            "annot_id": f"{part}-{number}",
            "match_fold": f"{part}-0",
            "match_index": 0,
        }
        lines[part].append(line | ({"answer_label": 1, "rationale_label": 3} if part != "test" else {}))
    for part, found in lines.items():
        write(folder / f"{part}.jsonl", found, lines=True)
    return folder


MEMES = {
    "train": [("42953", 0), ("08291", 1), ("46971", 0)],
    "dev_seen": [("03745", 1), ("83745", 0)],
    "test_seen": [("16395", 1)],
    "dev_unseen": [("41578", 0)],
    "test_unseen": [("95142", 1)],
}


def write_hateful_memes(folder: Path) -> Path:
    for part, memes in MEMES.items():
        lines = [
            {"id": number, "img": f"img/{number}.png", "label": label, "text": f"when meme {number} is seen"}
            for number, label in memes
        ]
        write(folder / f"{part}.jsonl", lines, lines=True)
        for number, _ in memes:
            write_picture(folder / "img" / f"{number}.png", int(number))
    return folder
