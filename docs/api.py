"""Builds the API reference from the docstrings: HTML in build/api.

python docs/api.py [FOLDER]
"""

from __future__ import annotations

import pkgutil
import sys
import warnings
from pathlib import Path

import pdoc
import pdoc.render

import singlestream


def build(folder: Path) -> None:
    """Writes a page for every module."""
    pdoc.render.configure(docformat="google", show_source=True, footer_text="singlestream")
    with warnings.catch_warnings():
        # Of annotations that only a type checker can read, most of them in base classes from other packages.
        warnings.filterwarnings("ignore", message="Error parsing type annotation", category=UserWarning)
        pdoc.pdoc("singlestream", *_modules(), output_directory=folder)


def _modules() -> list[str]:
    """What lies in the library; `singlestream` itself lists only the public names."""
    return [module.name for module in pkgutil.iter_modules(singlestream.__path__, "singlestream.")]


if __name__ == "__main__":
    target = Path(sys.argv[1] if len(sys.argv) > 1 else "build/api")
    build(target)
    print(f"open {target / 'index.html'}")
