"""Search among a million vectors: the seconds of the first stage of retrieval, `singlestream.ranking.first_stage`.

    python benchmarks/search.py [--vectors=1000000] [--queries=100] [--width=256] [--shortlist=128]

Random unit vectors, float32, kept in files as `eval.py --retrieve` keeps them (`singlestream.gallery.kept`) and read
back first; each query's own is one of them, with some noise added.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from singlestream.gallery import kept
from singlestream.ranking import first_stage, recall

BLOCK = 10_000  # vectors of a file
NOISE = 0.05  # added to each number of a query's own vector


def unit_vectors(rng: np.random.Generator, count: int, width: int) -> np.ndarray:
    vectors = rng.standard_normal((count, width), np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vectors", type=int, default=1_000_000, help="that are searched")
    parser.add_argument("--queries", type=int, default=100, help="at once")
    parser.add_argument("--width", type=int, default=256, help="numbers of a vector")
    parser.add_argument("--shortlist", type=int, default=128, help="best vectors that are found for each query")
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    vectors = unit_vectors(rng, args.vectors, args.width)
    own = rng.integers(args.vectors, size=(args.queries, 1))
    queries = vectors[own[:, 0]] + NOISE * rng.standard_normal((args.queries, args.width), np.float32)
    with tempfile.TemporaryDirectory() as folder:
        blocks = np.array_split(vectors, max(1, args.vectors // BLOCK))
        for i, block in enumerate(blocks):
            kept(Path(folder, str(i)), lambda block=block: {"vectors": block})
        del vectors
        read = time.perf_counter()
        vectors = np.concatenate([kept(Path(folder, str(i)), dict)["vectors"] for i in range(len(blocks))])
        read = time.perf_counter() - read
    wall, processor = time.perf_counter(), time.process_time()
    _, ranks = first_stage(queries, vectors, list(own), args.shortlist)
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    head = ("vectors", "queries", "width", "shortlist", "read, s", "search, s", "processor, s", "R@1")
    print(f"| {' | '.join(head)} |")
    print(f"|{' --- |' * len(head)}")
    sizes = f"{args.vectors:,} | {args.queries} | {args.width} | {args.shortlist}"
    print(f"| {sizes} | {read:.2f} | {wall:.2f} | {processor:.2f} | {recall('own', ranks)['own/r1']:.2f} |")


if __name__ == "__main__":
    main()
