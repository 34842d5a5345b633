"""A page of made-up values with everything on it: several kinds, right and wrong answers, a text that is markup."""

import numpy as np

from singlestream.explain.question import Relevance
from singlestream.explain.report import Curve, Example, PointingResult, Report, ResultRow, Share, Word
from singlestream.explain.scores import calibration, wilson_interval

COLOURS = {"red": (214, 61, 52), "blue": (52, 98, 214), "green": (63, 163, 77), "yellow": (236, 190, 60)}
ROWS = COLUMNS = 6


def toy_share(hits: int, count: int) -> Share:
    low, high = wilson_interval(hits, count)
    return Share(value=hits / count, low=low, high=high)


def toy_picture(colour: str, corner: tuple[int, int]) -> np.ndarray:
    ys, xs = np.mgrid[:48, :48]
    image = np.stack([190 + ys // 3, 196 - xs // 4, 204 + 0 * xs], axis=-1).astype(np.uint8)
    y, x = corner
    image[y : y + 14, x : x + 14] = COLOURS[colour]
    return image


def toy_patches() -> np.ndarray:
    grid = [(0, x / COLUMNS, y / ROWS, (x + 1) / COLUMNS, (y + 1) / ROWS) for y in range(ROWS) for x in range(COLUMNS)]
    return np.asarray(grid, np.float32)


def toy_example(rng: np.random.Generator, number: int, *, picture_reads: bool) -> Example:
    """A question about the colour of a square; heads of the third layer look at it from its name."""
    colour, wrong = rng.permutation(list(COLOURS))[:2]
    corner = (int(rng.integers(2, 32)), int(rng.integers(2, 32)))
    box = (0.0, corner[1] / 48, corner[0] / 48, (corner[1] + 14) / 48, (corner[0] + 14) / 48)
    words = [Word(text=w) for w in ("[CLS]", "what", "colour", "is", "the")] + [Word(text="square", boxes=[box])]
    words += [Word(text="?"), Word(text="[SEP]")]
    patches, layers, heads = toy_patches(), 4, 3
    to_image = rng.dirichlet(np.full(len(patches), 0.4), size=(layers, heads, len(words)))
    middle = (patches[:, 1:3] + patches[:, 3:]) / 2 - np.array([box[1] + box[3], box[2] + box[4]]) / 2
    to_image[2, :, 5] = np.exp(-20 * (middle**2).sum(-1)) * (0.1 + rng.random((3, len(patches))))
    to_image[2, :, 5] /= to_image[2, :, 5].sum(-1, keepdims=True)
    correct = number % 3 != 0
    predicted = colour if correct else wrong
    return Example(
        id=f"toy-{number}",
        kind=("colour", "shape", "is there")[number % 3],
        text="what colour is the square?" if number else "what </script><b>colour</b> is it?",
        answer=str(colour),
        predicted=str(predicted),
        probabilities=[(str(predicted), 0.81), (str(wrong if correct else colour), 0.15), ("white", 0.03)],
        images=[toy_picture(str(colour), corner)],
        words=words,
        patches=patches,
        to_image=0.6 * to_image,
        to_text=rng.dirichlet(np.ones(len(words)), size=(layers, heads, len(patches))) * 0.3 if picture_reads else None,
        instruments={
            name: Relevance(rng.random(len(words)), rng.random(len(patches)), rng.random((len(words), len(patches))))
            for name in ("rollout", "attention_gradient")
        },
    )


def toy_report(*, picture_reads: bool = True, num_examples: int = 18, image_token: str = "patch") -> Report:
    rng = np.random.default_rng(0)
    probability = rng.beta(6, 1, 4000)
    error, bins = calibration(probability, rng.random(4000) < probability**1.3)
    kinds = [("all questions", 9031, 0.985), ("colour", 1800, 0.999), ("shape", 1790, 0.997), ("is there", 1821, 0.991)]
    kinds += [("spatial", 1830, 0.962), ("where", 890, 0.988), ("count", 900, 0.951)]
    steps = np.arange(50, 3001, 50)
    return Report(
        title="runs/quickstart",
        image_token=image_token,
        subtitle="scenes, split test, step 3,000 (best)",
        facts=[("Parameters", "512,340"), ("Seed", "0"), ("Objectives", "vqa 1, locate 1")],
        table=[
            ResultRow(
                kind=kind,
                count=count,
                model=toy_share(int(share * count), count),
                no_image=toy_share(int(0.41 * count), count),
                blind=toy_share(int(0.43 * count), count),
                majority=toy_share(int(0.2 * count), count),
            )
            for kind, count, share in kinds
        ],
        calibration_error=error,
        bins=bins,
        pointing=PointingResult(
            score=toy_share(812, 1000),
            chance=0.083,
            words=1000,
            layer=2,
            head=1,
            chosen_on="validation",
            by_head=rng.random((4, 3)),
        ),
        curves=[
            Curve(
                title="Loss",
                lines={
                    "train": [(int(s), float(2.4 * np.exp(-s / 900) + 0.05)) for s in steps],
                    "validation": [(int(s), float(2.4 * np.exp(-s / 950) + 0.07)) for s in steps[9::10]],
                },
            ),
            Curve(
                title="Accuracy",
                percent=True,
                lines={
                    "train": [(int(s), float(1 - 0.7 * np.exp(-s / 700))) for s in steps],
                    "validation": [(int(s), float(1 - 0.7 * np.exp(-s / 720))) for s in steps[9::10]],
                },
            ),
        ],
        other=[("locate/accuracy", 0.981), ("vqa/loss", 0.0523)],
        notes=["Something is left out."],
        hint="singlestream explain <IMAGE>",
        examples=[toy_example(rng, i, picture_reads=picture_reads) for i in range(num_examples)],
    )
