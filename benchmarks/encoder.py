"""Our single-stream encoder against ViLT of Hugging Face transformers on torch: same sizes, same machine, in turn.

    python benchmarks/encoder.py --torch_python=path/to/venv/bin/python --output=benchmarks/results/encoder.md

Each side runs in a process of its own; a round times some steps of each, one after the other, and its ratio is
theirs / ours. Reported: the median ratio of the rounds with the smallest and the largest.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import statistics
import subprocess
import sys
from pathlib import Path

from alternate import Worker, alternate, spread
from cases import CASES

FOLDER = Path(__file__).parent
OTHERS = {
    "torch float32": (),
    "torch float32, image tokens given": ("--image_tokens",),
    "torch bfloat16 autocast": ("--autocast",),
}
# As `train.py` sets it (`singlestream.cli.use_huge_pages`), for both sides alike.
KEPT = f"glibc.malloc.arena_max=1:glibc.malloc.mmap_threshold={1 << 40}:glibc.malloc.trim_threshold={1 << 40}"
ALLOCATORS = {"kept": f"glibc.malloc.hugetlb=1:{KEPT}", "huge": "glibc.malloc.hugetlb=1", "normal": ""}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--modes", default="train,forward,products", help="products: a step's projections alone")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=3, help="of each side in a round")
    parser.add_argument("--memory", default="kept,normal", help=f"the allocator of both sides: {', '.join(ALLOCATORS)}")
    parser.add_argument("--torch_python", default=sys.executable, help="a Python that has torch and transformers")
    parser.add_argument("--output", type=Path, help="a Markdown file to write besides standard output")
    args = parser.parse_args()
    lines = header(args.torch_python)
    for case in args.cases.split(","):
        for mode in args.modes.split(","):
            for memory in args.memory.split(","):
                for line in row(case, mode, memory, args):
                    lines.append(line)
                    print(line, flush=True)
                if args.output:
                    args.output.write_text("\n".join(lines) + "\n", encoding="utf-8")


def row(name: str, mode: str, memory: str, args: argparse.Namespace) -> list[str]:
    """One line a torch variant, all timed in the same rounds."""
    case = CASES[name]
    environ = {"GLIBC_TUNABLES": ALLOCATORS[memory], "JAX_PLATFORMS": "cpu"}
    sides = {"ours": [sys.executable, str(FOLDER / "ours.py")]}
    others = {"torch float32": ()} if mode == "products" else OTHERS
    sides |= {other: [args.torch_python, str(FOLDER / "theirs.py"), *flags] for other, flags in others.items()}
    options = [f"--case={name}", f"--mode={mode}"]
    workers = {side: Worker([*command, *options], environ) for side, command in sides.items()}
    seconds = alternate(workers, rounds=args.rounds, steps=args.steps)
    for worker in workers.values():
        worker.close()
    ours = seconds["ours"]
    lines = []
    for other in others:
        ratio = [b / a for a, b in zip(ours, seconds[other], strict=True)]
        rates = [case.batch / statistics.median(s) for s in (ours, seconds[other])]
        target = f"{case.target:.1f}" if other == "torch float32" and mode != "products" else ""
        lines.append(
            f"| {name}, {case.tokens} tokens, batch {case.batch} | {mode} | {memory} | {other} | "
            f"{rates[0]:.1f} | {rates[1]:.1f} | {spread(ratio)} | {target} |"
        )
    return lines


def header(torch_python: str) -> list[str]:
    """Where and when, and the table's head."""
    versions = "import jax, flax; print(f'jax {jax.__version__}, flax {flax.__version__}')"
    theirs = "import torch, transformers as t; print(f'torch {torch.__version__}, transformers {t.__version__}')"
    ours, other = (
        subprocess.run([python, "-c", code], check=True, capture_output=True, text=True).stdout.strip()
        for python, code in ((sys.executable, versions), (torch_python, theirs))
    )
    lines = [
        "# Encoder against ViLT on torch",
        "",
        f"{datetime.date.today()}, {processor()}, {os.cpu_count()} cores, Python {platform.python_version()}, {ours}, "
        f"{other}.",
        f"Load of the machine at the start (1, 5, 15 minutes): {', '.join(f'{load:.1f}' for load in os.getloadavg())}.",
        f"Command: `python {' '.join(['benchmarks/encoder.py', *sys.argv[1:]])}`",
        "",
        "Ours is float32. Ratio: pairs a second, ours over theirs, median of the rounds (smallest-largest).",
        "",
        "| model | mode | memory | against | ours, pairs/s | theirs, pairs/s | ratio | target |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    print("\n".join(lines), flush=True)
    return lines


def processor() -> str:
    """The processor, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    return f"{fields.get('model name', '')} (family {fields.get('cpu family')}, model {fields.get('model')})"


if __name__ == "__main__":
    main()
