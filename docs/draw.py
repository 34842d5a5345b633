"""Draws docs/images/architecture.svg from the code: rooms, their files, and which room imports which.

python docs/draw.py
"""

from __future__ import annotations

import ast
import html
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "docs" / "images" / "architecture.svg"

# The rooms from top to bottom, what each is for, and the files and folders in it. Imports point down.
ROOMS: dict[str, tuple[str, tuple[str, ...]]] = {
    "programs": ("what one runs", ("train.py", "eval.py", "singlestream/__main__.py", "singlestream/cli.py")),
    "use": ("a trained model: loaded, asked, measured", ("singlestream",)),
    "train": ("the loop; knows no task", ("singlestream/train",)),
    "objectives": ("what a model learns; knows no loop", ("singlestream/objectives",)),
    "explain": ("what attention does", ("singlestream/explain",)),
    "interop": ("published checkpoints, read and written", ("singlestream/interop",)),
    "data": ("pictures and texts to rows of numbers, in numpy", ("singlestream/data",)),
    "model": ("tokens to vectors; knows neither task nor loop", ("singlestream/model",)),
    "contract": (
        "shapes and settings that all agree on",
        (
            "singlestream/batch.py",
            "singlestream/config.py",
            "singlestream/model/config.py",
            "singlestream/model/directions.py",
            "singlestream/model/fusion_checks.py",
            "singlestream/model/encoders/__init__.py",
            "singlestream/model/joins/__init__.py",
            "singlestream/model/positions/__init__.py",
            "singlestream/model/attention/config.py",
            "singlestream/model/pruning/config.py",
            "singlestream/model/attention/names.py",
        ),
    ),
}
COLOURS = ("#c2410c", "#b45309", "#15803d", "#0f766e", "#7e22ce", "#a21caf", "#1d4ed8", "#be123c", "#334155")

WIDTH, LEFT, BAND, LANE, ROW = 1300, 20, 1020, 15, 18
NAME, SUMMARY = 190, 54  # width in pixels of a file's name, characters of its summary


def imports(path: Path) -> list[str]:
    """Full names of all that a file imports, anywhere in it: `a.b` of `import a.b`, `a.b.c` of `from a.b import c`."""
    package = path.relative_to(ROOT).parts[:-1]
    names = []
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join((*above, *filter(None, [node.module])))
            names += [f"{base}.{alias.name}" for alias in node.names]
    return names


def file_of(name: str) -> Path | None:
    """The file of this project that an imported full name is defined in; None if it lies elsewhere."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        stem = ROOT.joinpath(*parts[:length])
        for path in (stem.with_suffix(".py"), stem / "__init__.py"):
            if path.is_file():
                return path
    return None


def sources() -> list[Path]:
    """The Python files of the programs and the library."""
    return [ROOT / "train.py", ROOT / "eval.py", *sorted((ROOT / "singlestream").rglob("*.py"))]


def room_of(path: Path) -> str:
    """The room that a file belongs to: the one with the longest path that leads to it."""
    name = path.relative_to(ROOT).as_posix()
    places = {place: room for room, (_, all_places) in ROOMS.items() for place in all_places}
    return places[max((p for p in places if name == p or name.startswith(p + "/")), key=len)]


def edges() -> dict[tuple[str, str], list[str]]:
    """Which room imports which, and by which files: {(from, to): ["train/loop.py -> data/pipeline.py", ...]}."""
    found = defaultdict(list)
    for path in sources():
        for target in sorted({t for name in imports(path) if (t := file_of(name))}):
            rooms = room_of(path), room_of(target)
            if rooms[0] != rooms[1]:
                found[rooms].append(f"{_short(path)} -> {_short(target)}")
    return dict(found)


def draw() -> str:
    """The picture as SVG."""
    bands, y = {}, 20
    for room in ROOMS:
        files = [path for path in sources() if room_of(path) == room and len(_tree(path).body) > 1]
        height = 40 + ROW * -(-len(files) // 2)
        bands[room] = (y, height, files)
        y += height + 14
    body = [_band(room, *bands[room]) for room in ROOMS] + _lanes({r: b[:2] for r, b in bands.items()})
    style = (
        "text{font:12px system-ui,sans-serif;fill:#1e293b}.t{font-weight:600;font-size:15px}.f{font:11px monospace}"
        ".d{fill:#64748b;font-size:11px}"
    )
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y}" width="{WIDTH}" height="{y}">'
    about = "<title>The rooms of singlestream, their files, and which room imports which</title>"
    ground = f'<rect width="{WIDTH}" height="{y}" fill="#ffffff"/>'
    return "\n".join([head, about, f"<style>{style}</style>", ground, *body, "</svg>"]) + "\n"


def _short(path: Path) -> str:
    return path.relative_to(ROOT).as_posix().removeprefix("singlestream/")


def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _summary(path: Path) -> str:
    """First line of a file's docstring, cut to a length."""
    text = (ast.get_docstring(_tree(path)) or "").split("\n")[0]
    return text if len(text) <= SUMMARY else text[: SUMMARY - 1].rsplit(" ", 1)[0].rstrip(",;:. ") + "…"


def _band(room: str, y: int, height: int, files: list[Path]) -> str:
    colour = COLOURS[list(ROOMS).index(room)]
    lines = [
        f'<rect x="{LEFT}" y="{y}" width="{BAND}" height="{height}" rx="6" fill="{colour}" fill-opacity="0.06" '
        f'stroke="{colour}"/>',
        f'<text x="{LEFT + 12}" y="{y + 22}" class="t">{room}</text>',
        f'<text x="{LEFT + 110}" y="{y + 22}" class="d">{html.escape(ROOMS[room][0])}</text>',
    ]
    rows = -(-len(files) // 2)
    for i, path in enumerate(files):
        x, top = LEFT + 12 + BAND // 2 * (i // rows), y + 44 + ROW * (i % rows)
        lines.append(f'<text x="{x}" y="{top}" class="f">{_short(path).removeprefix(room + "/")}</text>')
        lines.append(f'<text x="{x + NAME}" y="{top}" class="d">{html.escape(_summary(path))}</text>')
    return "\n".join(lines)


def _lanes(bands: dict[str, tuple[int, int]]) -> list[str]:
    """An arrow for each pair of rooms, in lanes at the right: the shortest ones nearest to the rooms."""
    names = list(ROOMS)
    found = sorted(edges().items(), key=lambda e: (abs(names.index(e[0][1]) - names.index(e[0][0])), e[0]))
    taken: dict[int, list[tuple[int, int]]] = defaultdict(list)
    ports = {room: iter(_ports(bands[room], sum(room in pair for pair, _ in found))) for room in names}
    lines = []
    for (a, b), files in found:
        ya, yb = next(ports[a]), next(ports[b])
        low, high = min(ya, yb), max(ya, yb)
        lane = next(i for i in range(len(found)) if all(high < s or low > e for s, e in taken[i]))
        taken[lane].append((low, high))
        right, x = LEFT + BAND, LEFT + BAND + 14 + LANE * lane
        colour = COLOURS[names.index(a)]
        title = html.escape("\n".join([f"{a} imports {b}", *files]))
        lines.append(
            f'<g stroke="{colour}" fill="none" stroke-width="1.5"><title>{title}</title>'
            f'<path d="M{right} {ya}H{x}V{yb}H{right + 6}"/><path d="M{right} {yb}l7 -4v8z" fill="{colour}"/></g>'
        )
    return lines


def _ports(band: tuple[int, int], count: int) -> list[int]:
    """Heights at a room's right edge where arrows begin and end."""
    y, height = band
    return [y + round(height * (i + 1) / (count + 1)) for i in range(count)]


if __name__ == "__main__":
    PICTURE.write_text(draw(), encoding="utf-8")
    print(f"wrote {PICTURE.relative_to(ROOT)}")
