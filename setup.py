"""Installs the library `singlestream`; `train.py` and `eval.py` are run from a checkout."""

from pathlib import Path

from setuptools import find_packages, setup

RUNTIME = [
    "absl-py>=2.3",
    "array-record>=0.8.1",
    "flatbuffers>=24.3",  # what `jax.export` writes
    "flax>=0.12.8,<0.13",
    "grain>=0.2.18,<0.3",
    # jax 0.11 and later need Python 3.12; jaxlib 0.11.0 can crash on x86 in reductions over arrays of rank 7.
    "jax>=0.10.2,<0.11; python_version < '3.12'",
    "jax>=0.10.2,!=0.11.0,<0.13; python_version >= '3.12'",
    "jaxtyping>=0.3.2",
    "ml_collections>=1.1",
    "ml_dtypes>=0.5",
    "numpy>=2.0",
    "optax>=0.2.8,<0.3",
    "orbax-checkpoint>=0.12.8,<0.13",
    "pillow>=11",
    "protobuf>=5.28",
    "rich>=13.7",
    "scipy>=1.14",
    "tensorboardX>=2.6.4",
    "tensorflow-datasets>=4.9.9,<5",
    "tokenizers>=0.22,<0.24",
    "tqdm>=4.66",
]

EXTRAS = {
    # Scores of captions, see singlestream/caption_scores.py: 100 MB of Java programs.
    "captions": ["pycocoevalcap>=1.2"],
    # What the tests, the checks of .ci/run and the API pages need.
    "dev": [
        "beartype>=0.22",
        "hypothesis>=6.130",
        "matplotlib>=3.10",  # the figures of lab/
        "mypy>=1.18",
        "pdoc>=15",
        "pre-commit>=4",
        "pytest>=8.4",
        "pytest-cov>=6",
        "pytest-xdist>=3.8",
        "ruff>=0.14",
        "safetensors>=0.5",
        "selenium>=4.30",
        "tensorboard>=2.19",
    ],
    # The side-by-side benchmarks, and the tests that compare published checkpoints with their reference.
    "torch": ["torch>=2.6", "transformers>=5.0", "safetensors>=0.5"],
    "cuda12": ["jax[cuda12]"],
    "tpu": ["jax[tpu]"],
}

setup(
    name="singlestream",
    version="0.1.0",
    description="Transformers that read an image and a text as one token sequence, in JAX",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.11",
    packages=find_packages(include=["singlestream", "singlestream.*"]),
    entry_points={"console_scripts": ["singlestream = singlestream.__main__:main"]},
    package_data={"singlestream": ["py.typed", "**/*.html", "**/*.js", "**/*.css"]},
    install_requires=RUNTIME,
    extras_require=EXTRAS,
    keywords=["jax", "flax", "vision-language", "transformer", "visualbert", "vilt"],
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
)
