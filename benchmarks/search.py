"""Search among a million vectors: the seconds of the first stage of retrieval, `singlestream.ranking.first_stage`.

    python benchmarks/search.py [--vectors=1000000] [--queries=100] [--width=256] [--shortlist=128]

Random unit vectors in memory, float32; each query's own is one of them, with some noise added.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from singlestream.ranking import first_stage, recall

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
    wall, processor = time.perf_counter(), time.process_time()
    _, ranks = first_stage(queries, vectors, list(own), args.shortlist)
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    head = ("vectors", "queries", "width", "shortlist", "wall, s", "processor, s", "R@1")
    print(f"| {' | '.join(head)} |")
    print(f"|{' --- |' * len(head)}")
    sizes = f"{args.vectors:,} | {args.queries} | {args.width} | {args.shortlist}"
    print(f"| {sizes} | {wall:.2f} | {processor:.2f} | {recall('own', ranks)['own/r1']:.2f} |")


if __name__ == "__main__":
    main()
