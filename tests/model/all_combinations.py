"""Every combination of kind, direction, norm and position: refused with a sentence, or built and traced.

    python -m tests.model.all_combinations --done=/tmp/combinations.txt

goes through the whole product, prints how many combinations each sentence refuses and how many are built, and fails
where one is neither; then so many of them that every pair of values is there take a step of training. What was traced
or took its step is written to `--done`: started again, it goes on from there.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import itertools
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from singlestream.model.config import ModelConfig
from tests.model.combination_checks import check_embedding, check_norm, check_stack, check_step
from tests.model.combinations import AXES, OF_ATTENTION, attention_of, config_of, model_of, refusal, table
from tests.model.pairs import cover


@dataclasses.dataclass
class Product:
    """What the settings alone say of every combination."""

    refused: collections.Counter[str]  # by sentence
    accepted: int
    checks: dict[str, tuple[Callable[[ModelConfig], None], ModelConfig]]  # what is to trace, by a name, each once


def go_through() -> Product:
    """Builds the settings of every combination.

    What settings of attention refuse by themselves is refused whatever the others are, and counted as often.
    """
    others = {name: values for name, values in AXES.items() if name not in OF_ATTENTION}
    rest = [(values, _parts(values)) for values in combinations_of(others)]
    product = Product(collections.Counter(), 0, {})
    for kind in combinations_of(OF_ATTENTION):
        try:
            attention = attention_of(kind)
        except ValueError as error:
            product.refused[str(error)] += len(rest)
            continue
        for values, (embedding, norm, layers) in rest:
            try:
                config = model_of(values, attention)
            except ValueError as error:
                product.refused[str(error)] += 1
                continue
            product.accepted += 1
            product.checks.setdefault(embedding, (check_embedding, config))
            product.checks.setdefault(norm, (check_norm, config))
            product.checks.setdefault(f"layers {kind} {layers}", (check_stack, config))
    return product


def combinations_of(axes: dict[str, tuple[Any, ...]]) -> list[dict[str, Any]]:
    return [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]


def _parts(values: dict[str, Any]) -> tuple[str, str, str]:
    """What embeddings, norms and the layers' attention know of a combination besides the settings of attention.

    One part knows of another nothing but the shape and dtype of the states that it is given, and these are the same for
    each that comes before: `check_embedding` holds it of the embeddings, `check_norm` of what a layer does beside
    attention, `check_stack` of attention. So a combination is traced where each of its three parts is. Embeddings know
    of the direction whether there are bottlenecks, attention knows of the image whether it has rows and columns.
    """
    stem, bottlenecks = values["image"][0], values["direction"] == "bottleneck"
    return (
        f"embedding {values['text_positions']} {values['image']} bottlenecks={bottlenecks}",
        f"norm {values['norm']}",
        f"{values['direction']} regions={stem == 'regions'}",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--done", type=Path, help="a file that says what was traced")
    parser.add_argument("--table", action="store_true", help="print what is refused, for docs/attention.md, and stop")
    args, start = parser.parse_args(), time.monotonic()
    if args.table:
        return print(table())
    product = go_through()
    print(f"{sum(product.refused.values()) + product.accepted} combinations, {product.accepted} accepted, refused:")
    for sentence, count in product.refused.most_common():
        print(f"{count:9} {sentence}")
    failed = check_all("part of the others", product.checks, args.done)
    steps = {f"step {row}": (check_step, config_of(row)) for row in cover(AXES, refusal)}
    failed += check_all("step", steps, args.done)
    print(f"{time.monotonic() - start:.0f} s")
    raise SystemExit(failed > 0)


def check_all(
    what: str, checks: dict[str, tuple[Callable[[ModelConfig], None], ModelConfig]], path: Path | None
) -> int:
    """Makes the checks that `path` does not name yet, and writes them there; returns how many failed."""
    done = set(path.read_text().splitlines()) if path and path.exists() else set()
    failed = 0
    with (path or Path(os.devnull)).open("a") as file:
        for name, (check, config) in checks.items():
            if name in done:
                continue
            try:
                check(config)
            except Exception as error:
                failed += 1
                print(f"FAILED {name}: {type(error).__name__}: {error}", flush=True)
                continue
            print(name, file=file, flush=True)
    print(f"{len(checks)} different: {what}, {failed} failed", flush=True)
    return failed


if __name__ == "__main__":
    main()
