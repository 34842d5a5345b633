"""NLVR in its official layout, as small as it can be: drawings of three grey boxes, ten examples."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = ("Yellow", "Black", "#0099ff")


def drawing(seed: int) -> np.ndarray:
    """Three grey boxes with one block each, and what structured_rep says of them."""
    image = np.full((100, 400, 4), 255, np.uint8)
    image[..., :3] = 128
    for box in range(3):
        image[:, 150 * box : 150 * box + 100, :3] = 211
        image[20:40, 150 * box + 10 + seed : 150 * box + 30 + seed, box] = 0
    return image


def line(split: str, number: int, directory: int) -> dict:
    thing = {"x_loc": 10 + number, "y_loc": 20, "size": 20, "type": "square"}
    return {
        "sentence": f"There is a box with {number} items.",
        "label": "true" if number % 2 else "false",
        "identifier": f"{number}-{number % 4}",
        "directory": str(directory),
        "structured_rep": [[{**thing, "color": colour}] for colour in COLOURS],
    }


def write_png(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)


def write_nlvr(root: Path) -> Path:
    """Two training pairs on the page, six examples of dev in directories 0 to 5, two of test."""
    for split, numbers in (("dev", range(6)), ("test", (1, 9))):
        lines = [line(split, n, n) for n in numbers]
        for n, each in zip(numbers, lines, strict=True):
            for order in range(6):
                name = f"{split}-{each['identifier']}-{order}.png"
                write_png(root / split / "images" / str(n) / name, drawing(n + order))
        (root / split / f"{split}.json").write_text("".join(json.dumps(each) + "\n" for each in lines))
    page = ["<html><body>"]
    for n, label in ((7, "true"), (8, "false")):
        write_png(root / f"train/images/{n}/train-{n}-0-3.png", drawing(n))
        page.append(
            f'<img src="https://raw.example/nlvr/master/train/images/{n}/train-{n}-0-3.png"/><br />'
            f"There isn&#39;t a {n}<br />{label}<br /><br />"
        )
    (root / "train" / "examples.html").write_text("\n".join(page))
    return root
