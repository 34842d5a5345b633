"""Imports run one way (docs/architecture.md), heavy packages stay in their rooms, and what is imported is declared."""

from __future__ import annotations

import importlib.metadata
import re
import sys

import pytest

from docs.draw import PICTURE, ROOMS, ROOT, draw, edges, file_of, imports, room_of, sources

ORDER = list(ROOMS)
# Neighbours that do not know each other, though one stands above the other in the picture.
STRANGERS = {
    ("train", "explain"),
    ("train", "interop"),
    ("objectives", "explain"),
    ("objectives", "data"),
    ("objectives", "interop"),
    ("explain", "interop"),
    ("explain", "data"),
    ("data", "model"),
}

# Packages with one place of their own: paths that may import them.
PLACES = {
    "orbax": ("singlestream/train/checkpoint.py",),
    "grain": ("singlestream/data/",),
    "tensorflow_datasets": ("singlestream/data/",),
    "tensorboardX": ("singlestream/train/metrics.py",),
    "optax": ("singlestream/train/",),
    "torch": (),
    "transformers": (),
    "safetensors": (),
    "tensorflow": (),
}


@pytest.mark.parametrize(("pair", "files"), edges().items(), ids=lambda x: "-".join(x) if isinstance(x, tuple) else "")
def test_imports_point_down(pair, files):
    if pair == ("contract", "model"):
        # Settings as a whole hold the model's settings.
        assert {file.partition(" -> ")[0] for file in files} == {"config.py"}
        return
    assert ORDER.index(pair[0]) < ORDER.index(pair[1]), files
    assert pair not in STRANGERS, files


def test_a_model_that_answers_knows_no_training():
    """`predict.py` is what others take along: data, model and published weights stand behind it, and no more."""
    below = {room_of(path) for name in imports(ROOT / "singlestream/predict.py") if (path := file_of(name))}
    assert below <= {"data", "model", "interop", "contract"}


def test_no_file_imports_itself_in_a_circle():
    state: dict[str, str] = {}

    def visit(path, trail):
        name = path.relative_to(ROOT).as_posix()
        assert state.get(name) != "open", f"circle: {' -> '.join([*trail, name])}"
        if name in state:
            return
        state[name] = "open"
        # The public names are imported lazily; importing the package itself imports nothing else.
        if name != "singlestream/__init__.py":
            for target in {t for n in imports(path) if (t := file_of(n)) and t != path}:
                visit(target, [*trail, name])
        state[name] = "done"

    for path in sources():
        visit(path, [])


@pytest.mark.parametrize("package", PLACES)
def test_heavy_packages_stay_in_their_rooms(package):
    users = [p.relative_to(ROOT).as_posix() for p in sources() if any(n.split(".")[0] == package for n in imports(p))]
    assert [user for user in users if not user.startswith(PLACES[package] or "-")] == []


def test_data_knows_no_jax():
    rooms = {room: [p for p in sources() if room_of(p) == room] for room in ORDER}
    users = [p for p in rooms["data"] if {"jax", "flax", "jaxlib"} & {n.split(".")[0] for n in imports(p)}]
    assert len(users) <= 1, users


def test_configs_import_configs_alone():
    for path in sorted((ROOT / "configs").glob("*.py")):
        names = {n for n in imports(path) if not n.startswith(("configs.", "singlestream.config.", "__future__."))}
        assert names <= {"ml_collections"}, path


def test_what_is_imported_is_declared():
    used = {name.split(".")[0] for path in sources() for name in imports(path)}
    used -= {*sys.stdlib_module_names, "singlestream"}
    homes = importlib.metadata.packages_distributions()
    # `google` is shared by many distributions; protobuf is the one that is used.
    needed = {"protobuf" if name == "google" else homes[name][0] for name in used}
    setup = (ROOT / "setup.py").read_text(encoding="utf-8")
    runtime = re.findall(r'^    "([A-Za-z0-9_.-]+)', setup[: setup.index("EXTRAS")], re.MULTILINE)

    def plain(names):
        return {re.sub("[-_.]+", "-", name).lower() for name in names}

    assert plain(needed) - {"jaxlib"} == plain(runtime) - plain(UNSEEN)


# Needed by what is imported, without being imported: the file formats that TFDS and `jax.export` write.
UNSEEN = {"array_record", "flatbuffers"}


def test_the_picture_of_the_architecture_is_up_to_date():
    assert PICTURE.read_text(encoding="utf-8") == draw(), "run `python docs/draw.py` and commit the picture"
