"""The documents are true: their Python runs, their links lead somewhere, their commands name files and settings.

A block ```python is executed, the blocks of a file one after the other in one namespace, in a folder that holds a small
trained run `runs/quickstart` and a picture `picture.png`. A block that cannot run here stands under a line
`<!-- not run: REASON -->`.
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from singlestream.config import Config
from tests.interop.toy_vilt import write_vilt
from tests.train.conftest import one_device  # noqa: F401  (a fixture)
from tests.train.toy import toy_config

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "ROADMAP.md", *sorted((ROOT / "docs").glob("*.md"))]
NAMES = [page.relative_to(ROOT).as_posix() for page in PAGES]


@dataclasses.dataclass(frozen=True)
class Block:
    """A fenced block of a page: its language, the line its content begins at, and why it is not run."""

    language: str
    line: int
    text: str
    not_run: str


def blocks(page: Path) -> list[Block]:
    found, lines = [], page.read_text(encoding="utf-8").split("\n")
    start = None
    for i, line in enumerate(lines):
        if not line.lstrip().startswith("```"):
            continue
        if start is None:
            start = i
            continue
        above = lines[start - 1] if start else ""
        reason = re.fullmatch(r"<!-- not run: (.+) -->", above.strip())
        language = lines[start].strip().removeprefix("```")
        text = "\n".join(lines[start + 1 : i]) + "\n"
        found.append(Block(language, start + 2, text, reason[1] if reason else ""))
        start = None
    assert start is None, f"{page.name}:{(start or 0) + 1}: a block without end"
    return found


def commands(page: Path) -> list[str]:
    """Lines of shell that a page tells to run, `$ ` and comments removed, continued lines joined."""
    lines = []
    for block in blocks(page):
        if block.language in ("sh", "bash", "console"):
            text = re.sub(r"\\\n\s*", " ", block.text)
            lines += [line.strip().removeprefix("$ ").split("  #")[0] for line in text.split("\n")]
    return [line for line in lines if line and not line.startswith("#")]


def anchors(page: Path) -> set[str]:
    """Names that GitHub gives to a page's headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.fixture(scope="module")
def folder(one_device, tmp_path_factory) -> Path:  # noqa: F811
    """Where the examples run: a run of a few steps under the name that the documents use, and a picture."""
    from singlestream.train.loop import train

    path = tmp_path_factory.mktemp("docs")
    train(toy_config(path / "scenes"), str(path / "runs" / "quickstart"))
    pixels = np.random.default_rng(0).integers(0, 256, (48, 48, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path / "picture.png")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "what", "is", "it"]
    write_vilt(path / "vilt-b32-finetuned-vqa", words, ["red", "blue"])
    return path


LONG = ROOT / "docs" / "modules.md"


@pytest.mark.parametrize(
    "page", [pytest.param(page, marks=[pytest.mark.slow] * (page == LONG)) for page in PAGES], ids=NAMES
)
def test_python_examples_run(page, folder, monkeypatch):
    examples = [block for block in blocks(page) if block.language == "python" and not block.not_run]
    monkeypatch.chdir(folder)
    namespace = {"__name__": "__main__"}
    for block in examples:
        # Padded, so that a traceback shows the line of the page.
        code = compile("\n" * (block.line - 1) + block.text, str(page), "exec")
        exec(code, namespace)


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_links_lead_somewhere(page):
    prose = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), f"{page.name}: no {target}"
        if anchor:
            assert anchor in anchors(linked), f"{page.name}: no heading for {target}"


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_commands_name_files_that_are_there(page):
    words = [word for line in commands(page) for word in line.split()]
    named = [word.partition("=")[2] if word.startswith("--config=") else word for word in words]
    for name in named:
        if re.fullmatch(r"(\./)?[\w./-]+\.(py|sh)|\.ci/\w+|(tests|docs|benchmarks|lab)/[\w./-]*", name):
            assert (ROOT / name).exists(), f"{page.name}: no {name}"


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_settings_in_commands_exist(page):
    settings: ConfigDict = Config().to_config_dict()
    for line in commands(page):
        for key in re.findall(r"--config\.([\w.]+)", line):
            room = settings
            for part in key.split("."):
                free = room in (settings.data.options, settings.objectives, settings.objective_options)
                assert free or part in room, f"{page.name}: no setting config.{key}"
                if free:
                    break
                room = room[part]


def test_every_page_is_reached_from_the_readme():
    text = PAGES[0].read_text(encoding="utf-8")
    for name in NAMES[1:]:
        assert f"]({name})" in text, f"README.md does not link {name}"
