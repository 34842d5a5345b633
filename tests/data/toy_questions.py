"""VQA v2 and GQA in their published formats, as small as they can be: every key of the files, a few questions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

HEAD = {
    "info": {
        "description": "This is v2.0 of the VQA dataset.",
        "url": "http://visualqa.org",
        "version": "2.0",
        "year": 2017,
        "contributor": "VQA Team",
        "date_created": "2017-04-26 17:07:13",
    },
    "data_type": "mscoco",
    "license": {
        "url": "http://creativecommons.org/licenses/by/4.0/",
        "name": "Creative Commons Attribution 4.0 International License",
    },
}
# Of each part: picture, question, the type of its answer, what ten annotators said.
ASKED: dict[str, list[tuple[int, str, str, list[str]]]] = {
    "train2014": [
        (9, "Is it a dog?", "yes/no", ["yes"] * 9 + ["no"]),
        (9, "How many?", "number", ["2"] * 5 + ["two"] * 3 + ["3", "1"]),
        (25, "Is it a dog?", "yes/no", ["no"] * 10),
        (9, "What does it wear?", "other", ["t-shirt"] * 4 + ["t shirt"] * 3 + ["a shirt", "shirt.", "nothing"]),
    ],
    "val2014": [
        (42, "Is it a cat?", "yes/no", ["yes"] * 6 + ["no"] * 4),
        (73, "What is it?", "other", ["net"] * 2 + ["mesh"] * 2 + ["fence", "wire", "grid", "web", "nets", "screen"]),
        (74, "What is on it?", "other", ["a"] * 10),
    ],
}
UNANSWERED = {
    "test-dev2015": [(1, "Is it a dog?")],
    "test2015": [(1, "Is it a dog?"), (16, "What is it?"), (1, "How many?")],
}


def write_picture(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (16, 24, 3), np.uint8)).save(path)


def write_vqav2(folder: Path) -> Path:
    """All files of VQA v2; question ids are the picture's number and three digits more, as there."""
    for part, asked in {**ASKED, **UNANSWERED}.items():
        questions: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for picture, text, *given in asked:
            number = 1000 * picture + sum(each["image_id"] == picture for each in questions)
            questions.append({"image_id": picture, "question": text, "question_id": number})
            place = part.replace("-dev", "")
            write_picture(folder / place / f"COCO_{place}_{picture:012d}.jpg", picture)
            if given:
                annotations.append(_annotation(picture, number, text, *given))
        head = {**HEAD, "data_subtype": part}
        name = f"v2_OpenEnded_mscoco_{part}_questions.json"
        (folder / name).write_text(json.dumps({**head, "task_type": "Open-Ended", "questions": questions}))
        if annotations:
            # In another order than the questions: nothing promises theirs.
            content = {**head, "annotations": annotations[::-1]}
            (folder / f"v2_mscoco_{part}_annotations.json").write_text(json.dumps(content))
    return folder


def _annotation(picture: int, number: int, text: str, kind: str, said: list[str]) -> dict[str, Any]:
    return {
        "question_type": " ".join(text.lower().split()[:2]),
        "multiple_choice_answer": max(said, key=said.count),
        "answers": [{"answer": a, "answer_confidence": "yes", "answer_id": i} for i, a in enumerate(said, start=1)],
        "image_id": picture,
        "answer_type": kind,
        "question_id": number,
    }


# Of each file: id, picture, question, answer, structural type.
GQA = {
    "train": [
        ("02930152", "2354786", "Is the sky dark?", "yes", "verify"),
        ("07333408", "2375429", "What is on the white wall?", "pipe", "query"),
        ("07333405", "2375429", "Is that pipe red?", "no", "verify"),
    ],
    "val": [("05451384", "2382986", "Are there any coats?", "yes", "verify")],
    "testdev": [("201307251", "n161313", "Is it overcast?", "no", "verify")],
}


def write_gqa(folder: Path) -> Path:
    for name, asked in GQA.items():
        found = {number: _gqa_question(number, *given) for number, *given in asked}
        (folder / f"{name}_balanced_questions.json").write_text(json.dumps(found))
        for _, picture, *_ in asked:
            write_picture(folder / "images" / f"{picture}.jpg", len(picture))
    return folder


def _gqa_question(number: str, picture: str, text: str, answer: str, kind: str) -> dict[str, Any]:
    return {
        "semantic": [
            {"operation": "select", "dependencies": [], "argument": "sky (2486325)"},
            {"operation": "verify color", "dependencies": [0], "argument": "dark"},
        ],
        "entailed": ["02930160"],
        "equivalent": [number],
        "question": text,
        "imageId": picture,
        "isBalanced": True,
        "groups": {"global": None, "local": "06-sky_dark"},
        "answer": answer,
        "semanticStr": "select: sky (2486325)->verify color: dark [0]",
        "annotations": {"answer": {}, "question": {"2": "2486325"}, "fullAnswer": {"2": "2486325"}},
        "types": {"detailed": "verifyAttr", "semantic": "attr", "structural": kind},
        "fullAnswer": f"{answer}, it is.",
    }
