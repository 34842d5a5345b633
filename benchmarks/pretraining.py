"""What pre-training on captions is worth: nothing, mlm, mlm and itm, all objectives, then the same fine-tuning.

    python benchmarks/pretraining.py [--root=runs/pretraining] [--seeds=0,1,2] [--steps=1000] [--tuning_steps=1200]

Pre-trains by configs/scenes_pretrain.py and its variants, fine-tunes by configs/quickstart.py on 5% and on all of the
pictures with questions (`vqa` and `locate`), and prints for each way the accuracy on `test`: mean and standard
deviation over the seeds. Each run has a folder; started again the script goes on where it was, and several may share
the work, each with seeds of its own. `--table` prints what is there and trains nothing.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

PROJECT = Path(__file__).resolve().parent.parent
WAYS = {"nothing": None, "mlm": ":mlm", "mlm + itm": "", "all six": ":all"}
SHARES = (0.05, 1.0)


class Tuned(NamedTuple):
    """One row: a fine-tuning, of what, with which share of the labels."""

    way: str
    share: float
    seed: int

    def folder(self, root: Path) -> Path:
        return root / f"{self.way.replace(' ', '')}-{self.share:g}-seed{self.seed}"

    def accuracy(self, root: Path) -> float | None:
        """On `test`; None where it is not measured yet."""
        file = self.folder(root) / "eval" / "test" / "metrics.json"
        return json.loads(file.read_text())["vqa/accuracy"] if file.is_file() else None


def run(program: str, *arguments: str) -> None:
    subprocess.run([sys.executable, program, *arguments], cwd=PROJECT, stdout=subprocess.DEVNULL, check=True)


def measure(row: Tuned, options: argparse.Namespace) -> None:
    """Pre-trains where nobody did yet, fine-tunes, evaluates."""
    common = [f"--config.seed={row.seed}", f"--config.data.dir={options.data_dir}"]
    steps = [f"--config.train.num_steps={options.tuning_steps}", f"--config.data.share={row.share}"]
    variant = WAYS[row.way]
    if variant is not None:
        before = options.root / f"pretrain{variant.replace(':', '-')}-seed{row.seed}"
        config = f"--config=configs/scenes_pretrain.py{variant}"
        run("train.py", config, *common, f"--config.train.num_steps={options.steps}", f"--workdir={before}")
        steps.append(f"--config.init={before}")
    # As many places for words as the captions had.
    config = ["--config=configs/quickstart.py", "--config.model.max_text_length=28"]
    run("train.py", *config, *common, *steps, f"--workdir={row.folder(options.root)}")
    run("eval.py", f"--workdir={row.folder(options.root)}", "--split=test")


def rows(seeds: list[int]) -> Iterator[Tuned]:
    return (Tuned(way, share, seed) for seed in seeds for way in WAYS for share in SHARES)


def table(root: Path) -> str:
    """Mean and standard deviation over whatever seeds are there."""
    lines = ["| pre-trained by | " + " | ".join(f"{share:.0%} of the labels" for share in SHARES) + " |"]
    lines.append("| --- |" + " --- |" * len(SHARES))
    for way in WAYS:
        cells = []
        for share in SHARES:
            found = [a for seed in range(100) if (a := Tuned(way, share, seed).accuracy(root)) is not None]
            spread = f" ± {statistics.stdev(found):.3f}" if len(found) > 1 else ""
            each = ", ".join(f"{value:.3f}" for value in found)
            cells.append(f"{statistics.mean(found):.3f}{spread} ({each})" if found else "")
        lines.append(f"| {way} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=lambda path: Path(path).resolve(), default=PROJECT / "runs" / "pretraining")
    parser.add_argument("--seeds", type=lambda text: [int(seed) for seed in text.split(",")], default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=1000, help="of pre-training")
    parser.add_argument("--tuning_steps", type=int, default=1200)
    parser.add_argument("--data_dir", default="", help="as --config.data.dir")
    parser.add_argument("--table", action="store_true", help="print the table and train nothing")
    options = parser.parse_args()
    for row in () if options.table else rows(options.seeds):
        if row.accuracy(options.root) is None:
            measure(row, options)
        print(
            f"{row.way}, {row.share:.0%} of the labels, seed {row.seed}: {row.accuracy(options.root):.4f}", flush=True
        )
    print(table(options.root))


if __name__ == "__main__":
    main()
