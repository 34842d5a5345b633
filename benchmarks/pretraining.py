"""What pre-training on captions is worth: fine-tuned on a tenth of the questions, against from scratch, three seeds.

    python benchmarks/pretraining.py [--root=runs/pretraining] [--seeds=0,1,2]

Runs the commands of configs/scenes_pretrain.py, a folder each; started again it goes on where it was. Prints the test
accuracy of every run, and the difference of the means in units of its standard error.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
CONFIG = "configs/scenes_pretrain.py"


def run(program: str, *arguments: str) -> str:
    """Runs one of the project's programs and returns its last line."""
    done = subprocess.run(
        [sys.executable, program, *arguments], cwd=PROJECT, stdout=subprocess.PIPE, text=True, check=True
    )
    return done.stdout.splitlines()[-1]


def accuracy(folder: Path, config: str, seed: int, *flags: str) -> float:
    """Test accuracy of the run in `folder`, trained now where it is not yet."""
    run("train.py", f"--config={config}", f"--config.seed={seed}", f"--workdir={folder}", *flags)
    return json.loads(run("eval.py", f"--workdir={folder}", "--split=test"))["vqa/accuracy"]


def compare(root: Path, seeds: list[int]) -> None:
    rows = []
    print("| seed | from scratch | pre-trained |\n| --- | --- | --- |")
    for seed in seeds:
        pretrained = root / f"pretrain-{seed}"
        run("train.py", f"--config={CONFIG}", f"--config.seed={seed}", f"--workdir={pretrained}")
        scratch = accuracy(root / f"scratch-{seed}", f"{CONFIG}:finetune", seed)
        tuned = accuracy(root / f"finetuned-{seed}", f"{CONFIG}:finetune", seed, f"--config.init={pretrained}")
        rows.append((scratch, tuned))
        print(f"| {seed} | {scratch:.4f} | {tuned:.4f} |", flush=True)
    if len(rows) > 1:
        scratch, tuned = (statistics.mean(column) for column in zip(*rows, strict=True))
        errors = [statistics.stdev(column) / math.sqrt(len(rows)) for column in zip(*rows, strict=True)]
        print(f"| mean and standard error | {scratch:.4f} ± {errors[0]:.4f} | {tuned:.4f} ± {errors[1]:.4f} |")
        print(f"\ndifference {tuned - scratch:.4f}, {(tuned - scratch) / math.hypot(*errors):.1f} standard errors")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=PROJECT / "runs" / "pretraining")
    parser.add_argument("--seeds", type=lambda text: [int(seed) for seed in text.split(",")], default=[0, 1, 2])
    options = parser.parse_args()
    compare(options.root.resolve(), options.seeds)


if __name__ == "__main__":
    main()
