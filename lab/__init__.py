"""The laboratory: one short experiment for each claim of the theory of attention, each of which can fail.

    python -m lab                                  all experiments about mechanisms, and one table
    python -m lab --only=3,8                       some of them
    python -m lab --train --rows=runs/lab.jsonl    those that train models; stopped, it continues where it was
    python -m lab --figures=docs/images/lab --page=docs/theory.md

An experiment is one file `cNN_short_name.py`, found by its name. Its docstring states the claim in the first line, then
`Source:`, `Test:`, `Refuted if:` and `Seen:`. It offers

    def run(seed: int, *, mechanism=...) -> Result          numbers; the mechanism can be broken, and a test does so
    def judge(results: Sequence[Result]) -> list[Check]     of all seeds; bounds are fixed before the first run
    def draw(results: Sequence[Result], axes: Axes) -> None

and, where it trains models,

    ARMS = ("early", "late")                                what is trained for every seed
    def run(seed: int, arm: str) -> Result                  one training run: one row of the file
    SEEDS = (0, 1, 2)                                       instead of 0 to 4

`judge` and `draw` of such an experiment get, of each seed, {arm: Result}. What they learn from is `lab/pairs.py`, what
they train `lab/small.py`. A result holds numbers and lists of numbers.
"""
