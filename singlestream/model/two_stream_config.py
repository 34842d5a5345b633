"""Settings of a two-stream model: one frozen dataclass, and a table of the published sizes."""

from __future__ import annotations

import dataclasses
from typing import Any

from singlestream.model.attention.config import AttentionConfig
from singlestream.model.config import ModelConfig
from singlestream.model.joins import join_names

CHOICES: dict[str, tuple[str, ...]] = {
    "cross": ("shared", "paired"),
    "direction": ("both", "text_to_image", "image_to_text"),
    "region_norm": ("apart", "sum"),
    "fusion": tuple(dict.fromkeys(("none", "product", "sum", *join_names()))),
}


def _lxmert(width: int, heads: int, mlp_dim: int, text: int, image: int, cross: int) -> dict[str, Any]:
    """LXMERT: `text` and `image` layers of one width, then `cross` layers."""
    return dict(
        **dict(width=width, num_layers=text, num_heads=heads, mlp_dim=mlp_dim),
        **dict(image_width=width, image_layers=image, image_heads=heads, image_mlp_dim=mlp_dim),
        **dict(cross="shared", cross_width=width, cross_heads=heads),
        **dict(cross_after_text=(text,) * cross, cross_after_image=(image,) * cross),
        **dict(box_numbers=4, region_norm="apart", fusion="none", fixed_first_rows=True),
    )


def _vilbert(
    width: int, layers: int, heads: int, cross: int, image_width: int = 1024, image_heads: int = 8
) -> dict[str, Any]:
    """ViLBERT: before each of the image's layers, and of the text's last ones, the streams read each other."""
    return dict(
        **dict(width=width, num_layers=layers, num_heads=heads, mlp_dim=4 * width),
        **dict(image_width=image_width, image_layers=cross, image_heads=image_heads, image_mlp_dim=image_width),
        **dict(cross="paired", cross_width=image_width, cross_heads=image_heads),
        **dict(cross_after_text=tuple(range(layers - cross, layers)), cross_after_image=tuple(range(cross))),
        **dict(box_numbers=5, region_norm="sum", fusion="product", spare=True),
    )


# LXMERT (Tan & Bansal 2019); ViLBERT (Lu et al. 2019) with two, four, six and eight layers of the image, and on
# BERT-large, as the authors' `config/bert_*_conect.json` have them. `vilbert` is the one whose weights are published.
SIZES: dict[str, dict[str, Any]] = {
    "lxmert": _lxmert(768, 12, 3072, text=9, image=5, cross=5),
    "lxmert_tiny": _lxmert(96, 3, 384, text=2, image=1, cross=2),
    "vilbert": _vilbert(768, 12, 12, cross=6),
    "vilbert_tiny": _vilbert(96, 4, 3, cross=2, image_width=96, image_heads=3),
    **{f"vilbert_{n}": _vilbert(768, 12, 12, cross=n) for n in (2, 4, 8)},
    **{f"vilbert_large_{n}": _vilbert(1024, 24, 16, cross=n) for n in (2, 4, 6)},
}

_ONE_OR_MORE = ("width", "num_layers", "num_heads", "mlp_dim", "image_width", "image_layers", "image_heads")
LEAST: dict[str, int] = {
    **dict.fromkeys((*_ONE_OR_MORE, "image_mlp_dim", "cross_width", "cross_heads", "region_dim"), 1),
    **dict.fromkeys(("fixed_layers", "fixed_image_layers", "num_tasks"), 0),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class TwoStreamConfig:
    """LXMERT's and ViLBERT's design: a stream of text, a stream of regions, and cross layers between them.

    Each stream has BERT's layers (post-LN). Cross layer i runs once `cross_after_text[i]` layers of the text and
    `cross_after_image[i]` layers of the image have run; the rest of both follows after the last one. Every field is a
    key `config.model.*`.
    """

    width: int = 96
    num_layers: int = 2
    num_heads: int = 3
    mlp_dim: int = 384
    image_width: int = 96
    image_layers: int = 1
    image_heads: int = 3
    image_mlp_dim: int = 384

    # `shared`: one attention serves both directions, then each stream has a layer of BERT (LXMERT). `paired`: each
    # direction has an attention of its own, then each stream a feed-forward layer (ViLBERT).
    cross: str = "shared"
    cross_width: int = 96
    cross_heads: int = 3
    cross_after_text: tuple[int, ...] = (2, 2)
    cross_after_image: tuple[int, ...] = (1, 1)
    coattention: bool = True  # False: the cross layers are there, but the streams do not read each other
    direction: str = "both"  # who reads whom there; `text_to_image`: the text the image, and the image itself alone
    spare: bool = False  # two projections a cross layer that the published ViLBERT has and nothing reads
    # So many of the text's first layers, and its embeddings, get no gradient; weight decay is the optimizer's matter.
    fixed_layers: int = 0
    fixed_image_layers: int = 0
    # Look-ups of word 0, position 0 and type 0 teach these rows nothing, as in LXMERT, which has three tables with
    # torch's `padding_idx=0`.
    fixed_first_rows: bool = False

    region_dim: int = 2048
    box_numbers: int = 4  # x0, y0, x1, y1; 5: and the area
    region_norm: str = "apart"  # (LN(feature) + LN(box)) / 2 as LXMERT, or LN of their `sum` as ViLBERT
    max_text_length: int = 512
    num_token_types: int = 2
    num_tasks: int = 0  # learned tokens that name a task; their ids follow the vocabulary's
    # Pooled is the text's first state through tanh (`none`), or those of both streams, each through ReLU, multiplied
    # (`product`), added (`sum`), or joined as a single stream's `join` of any other name does.
    fusion: str = "none"

    norm_eps: float = 1e-12
    activation: str = "gelu"
    dropout: float = 0.0
    attention_dropout: float = 0.0  # of attention weights
    embed_std: float = 0.02
    layers: str = "unrolled"  # of the stacks of one stream; cross layers are always unrolled
    remat: str = "none"
    dtype: str = "float32"
    attention: AttentionConfig = AttentionConfig()  # within the streams and between them

    def __post_init__(self) -> None:
        for name in ("cross_after_text", "cross_after_image"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for name, valid in CHOICES.items():
            if getattr(self, name) not in valid:
                raise ValueError(f"config.model.{name}={getattr(self, name)!r}: choose one of {', '.join(valid)}")
        for name, least in LEAST.items():
            if not getattr(self, name) >= least:
                raise ValueError(f"config.model.{name}={getattr(self, name)}: must be at least {least}")
        if self.box_numbers not in (4, 5):
            raise ValueError(f"config.model.box_numbers={self.box_numbers}: must be 4, or 5 with the area")
        if self.direction != "both" and not self.coattention:
            raise ValueError(
                f"config.model.direction={self.direction!r}: with config.model.coattention=False neither stream reads "
                "the other, set one of them"
            )
        self._check_heads()
        self._check_places()
        _ = self.text_side, self.image_side  # whose own checks cover the rest

    def _check_heads(self) -> None:
        for width, heads in (("image_width", "image_heads"), ("cross_width", "cross_heads")):
            if getattr(self, width) % getattr(self, heads):
                raise ValueError(
                    f"config.model.{width}={getattr(self, width)} is not divisible by config.model.{heads}="
                    f"{getattr(self, heads)}"
                )
        if self.cross == "shared" and len({self.width, self.image_width, self.cross_width}) > 1:
            raise ValueError(
                f"config.model.cross='shared' needs one width, got width={self.width}, image_width="
                f"{self.image_width}, cross_width={self.cross_width}; 'paired' takes different ones"
            )

    def _check_places(self) -> None:
        after = {"cross_after_text": self.num_layers, "cross_after_image": self.image_layers}
        if not len(self.cross_after_text) == len(self.cross_after_image) > 0:
            raise ValueError(
                f"config.model.cross_after_text={self.cross_after_text} and config.model.cross_after_image="
                f"{self.cross_after_image} must name one place each for every cross layer, and at least one"
            )
        for (name, last), fixed in zip(after.items(), ("fixed_layers", "fixed_image_layers"), strict=True):
            places = getattr(self, name)
            if sorted(places) != list(places) or places[0] < 0 or places[-1] > last:
                raise ValueError(f"config.model.{name}={places}: must rise, from 0 or more to {last} or less")
            if getattr(self, fixed) > places[0]:
                raise ValueError(
                    f"config.model.{fixed}={getattr(self, fixed)}: at most {places[0]}, as many layers as run before "
                    "the first cross layer"
                )

    @classmethod
    def named(cls, size: str, **changes: Any) -> TwoStreamConfig:
        """The configuration of a named size (`SIZES`), with some fields changed."""
        if size not in SIZES:
            raise ValueError(f"no two-stream size {size!r}: choose one of {', '.join(SIZES)}")
        return cls(**{**SIZES[size], **changes})

    @property
    def inputs(self) -> ModelConfig:
        """What the data has to know of the model: a single stream that reads the same."""
        return self.image_side

    @property
    def meets(self) -> bool:
        """Whether text and image meet in a layer."""
        return self.coattention

    @property
    def words_read_image(self) -> bool:
        """Whether there is a layer in which text tokens themselves read image tokens."""
        return self.coattention and self.direction != "image_to_text"

    @property
    def picture_reads_text(self) -> bool:
        """Whether image tokens read the text."""
        return self.coattention and self.direction != "text_to_image"

    @property
    def num_cross(self) -> int:
        return len(self.cross_after_text)

    @property
    def pooled_width(self) -> int:
        return self.width if self.fusion == "none" else self.cross_width

    @property
    def text_side(self) -> ModelConfig:
        """What the modules of one stream need to know of the text's."""
        side = self._side(self.width, self.num_layers, self.num_heads, self.mlp_dim)
        return dataclasses.replace(side, attention=self.attention)

    @property
    def image_side(self) -> ModelConfig:
        """What the modules of one stream need to know of the image's."""
        return self._side(self.image_width, self.image_layers, self.image_heads, self.image_mlp_dim)

    @property
    def pooled_side(self) -> ModelConfig:
        """What a head on the pooled vector needs to know."""
        return self._side(self.pooled_width, 1, 1, self.mlp_dim)

    def _side(self, width: int, num_layers: int, num_heads: int, mlp_dim: int) -> ModelConfig:
        return ModelConfig(
            width=width,
            num_layers=num_layers,
            num_heads=num_heads,
            mlp_dim=mlp_dim,
            norm="post",
            norm_eps=self.norm_eps,
            activation=self.activation,
            dropout=self.dropout,
            attention_dropout=self.attention_dropout,
            text_norm=True,
            max_text_length=self.max_text_length,
            num_token_types=self.num_token_types,
            embed_std=self.embed_std,
            image_stem="regions",
            image_positions="boxes",
            region_dim=self.region_dim,
            layers=self.layers,
            remat=self.remat,
            dtype=self.dtype,
            # Regions have no rows and columns; `text_side` has the places of words.
            attention=dataclasses.replace(self.attention, relative="none"),
        )


ModelSettings = ModelConfig | TwoStreamConfig
