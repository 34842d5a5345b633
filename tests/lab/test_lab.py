"""The runner: finds experiments by their files, prints one table, continues training runs, draws, writes the page."""

from __future__ import annotations

import json
import sys

import pytest

from docs.draw import imports, sources
from lab.__main__ import main
from lab.experiment import Check, passed

MECHANISM = '''"""Seeds are small.

Source: counting.

Test: look.

Refuted if: one is above {most}.

Seen: none.
"""
from lab.experiment import Check

def run(seed):
    return {{"seed": seed}}

def judge(results):
    return [Check("seed", [r["seed"] for r in results], most={most}), Check("told", [1.0])]

def draw(results, axes):
    axes.plot([r["seed"] for r in results])
'''
TRAINED = '''"""Late is later.

Source: words.

Test: train.

Refuted if: it is not.

Seen: yes.
"""
from lab.experiment import Check

ARMS, SEEDS, LIMIT = ("early", "late"), (0, 1), [100]

def run(seed, arm):
    LIMIT[0] -= 1
    if LIMIT[0] < 0:
        raise KeyboardInterrupt
    return {"time": seed + (10 if arm == "late" else 0)}

def judge(results):
    return [Check("late less early", [r["late"]["time"] - r["early"]["time"] for r in results], least=10, most=10)]

def draw(results, axes):
    axes.plot([r["late"]["time"] for r in results])
'''


@pytest.fixture
def package(tmp_path, monkeypatch, request) -> str:
    """A laboratory of three: a claim that holds, one that fails, one that is trained."""
    name = f"toy_{request.node.name}"
    folder = tmp_path / name
    folder.mkdir()
    files = {"__init__": "", "c01_holds": MECHANISM.format(most=4), "c02_fails": MECHANISM.format(most=3)}
    for stem, text in {**files, "c12_trained": TRAINED, "helper": ""}.items():
        (folder / f"{stem}.py").write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    return name


def test_prints_one_table(package, capsys):
    main([], package=package)
    lines = capsys.readouterr().out.splitlines()
    assert lines[2:] == [
        "| **1** | Seeds are small. | | | | **pass** |",
        "| 1 | seed | 2 | 0 to 4 | at most 4 | pass |",
        "| 1 | told | 1 | 1 to 1 |  |  |",
        "| **2** | Seeds are small. | | | | **FAIL** |",
        "| 2 | seed | 2 | 0 to 4 | at most 3 | FAIL |",
        "| 2 | told | 1 | 1 to 1 |  |  |",
    ]


def test_training_continues_where_it_was_stopped(package, capsys, tmp_path):
    path = tmp_path / "runs" / "lab.jsonl"
    main(["--only=12", "--train"], package=package)
    whole = [json.loads(line) for line in path.read_text().splitlines()]
    table = capsys.readouterr().out
    assert [(row["seed"], row["arm"]) for row in whole] == [(0, "early"), (0, "late"), (1, "early"), (1, "late")]

    limit = sys.modules[f"{package}.c12_trained"].LIMIT
    path.unlink()
    limit[0] = 3
    with pytest.raises(KeyboardInterrupt):
        main(["--train"], package=package)
    path.write_text(path.read_text()[:-9])  # killed while it wrote the third row
    limit[0] = 2
    capsys.readouterr()
    main(["--train"], package=package)
    assert capsys.readouterr().out == table
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["result"] for row in rows] == [row["result"] for row in whole]


def test_figures_and_sections(package, tmp_path):
    figures, page = tmp_path / "docs" / "images", tmp_path / "docs" / "theory.md"
    main([f"--figures={figures}", f"--page={page}"], package=package)
    first = (figures / "c01_holds.svg").read_bytes()
    main(["--train", f"--page={page}"], package=package)
    main(["--only=1", f"--figures={figures}", f"--page={page}"], package=package)
    assert (figures / "c01_holds.svg").read_bytes() == first
    text = page.read_text()
    titles = [line for line in text.splitlines() if line.startswith("#")]
    assert titles == ["# Theory, tested", "## 1. Seeds are small", "## 2. Seeds are small", "## 12. Late is later"]
    assert "(images/c01_holds.svg)" in text
    assert "**Refuted if:** one is above 3." in text


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--only=3"], "--only=3: no such experiment; there are 1, 2, 12"),
        (["--only=1,12"], "--only=1,12: 12 train models: with --train"),
        (["--only=1", "--train"], "--only=1: 1 train nothing: without --train"),
        (["--only=one"], "--only=one: numbers with commas between, as in 3,8"),
    ],
)
def test_a_wrong_number_is_told(package, capsys, flags, message):
    with pytest.raises(SystemExit):
        main(flags, package=package)
    assert message in capsys.readouterr().err


def test_a_line_that_is_no_row_is_told(package, capsys, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"experiment": 12}\n')
    with pytest.raises(SystemExit):
        main(["--train", f"--rows={path}"], package=package)
    assert "rows.jsonl:1: not a row of the laboratory" in capsys.readouterr().err


def test_a_number_that_is_none_does_not_pass():
    assert not passed([Check("x", [0.5, float("nan")], least=0.0)])


def test_nothing_imports_the_laboratory():
    assert [path for path in sources() for name in imports(path) if name.partition(".")[0] == "lab"] == []
