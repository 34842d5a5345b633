"""Settings of a model: one frozen dataclass, and a table of named sizes."""

from __future__ import annotations

import dataclasses
from typing import Any

from singlestream.model.attention.config import AttentionConfig, check_kind
from singlestream.model.directions import (
    DIRECTIONS,
    check_direction,
    check_pooling,
    picture_reads_text,
    reading_layers,
    reads_within,
    words_meet,
)
from singlestream.model.encoders import encoder_names
from singlestream.model.fusion_checks import check_fusion
from singlestream.model.joins import join_names
from singlestream.model.positions import position_names
from singlestream.model.pruning.config import PruningConfig, check_pruning

# width, layers, heads, width of the feed-forward layer. `base` and `large` are BERT's and ViT's.
SIZES: dict[str, tuple[int, int, int, int]] = {
    "tiny": (96, 4, 3, 384),
    "small": (256, 6, 4, 1024),
    "base": (768, 12, 12, 3072),
    "large": (1024, 24, 16, 4096),
}

CHOICES: dict[str, tuple[str, ...]] = {
    "norm": ("pre", "post", "sandwich"),
    "activation": ("gelu", "gelu_tanh", "relu"),
    "direction": DIRECTIONS,
    "text_encoder": encoder_names("text"),
    "image_encoder": encoder_names("image"),
    "join": join_names(),
    "text_positions": position_names("text"),
    "image_positions": position_names("image"),
    "position_init": ("normal", "fourier"),
    "position_resize": ("centres", "corners"),
    "image_stem": ("linear", "conv", "regions"),
    "image_norm": ("none", "sum", "each"),
    "modality": ("both", "pictures", "image", "token_types", "none"),
    "pooling": ("cls", "mean"),
    "layers": ("unrolled", "scan"),
    "remat": ("none", "dots", "full"),
    "dtype": ("float32", "bfloat16", "float64"),
}

REGION_POSITIONS = ("boxes", "boxes7", "constant")  # encodings that read regions, not patches

# The least that a number can be.
LEAST: dict[str, int] = {
    **dict.fromkeys(("width", "num_heads", "mlp_dim", "max_text_length", "num_token_types"), 1),
    **dict.fromkeys(("num_images", "stem_width", "patch_size", "region_dim", "text_period", "audio_per_frame"), 1),
    **dict.fromkeys(("norm_eps", "embed_norm_eps", "embed_std", "patch_margin", "first_image_type"), 0),
    **dict.fromkeys(("num_layers", "late_layers", "decoder_layers", "text_layers", "image_layers"), 0),
    **dict.fromkeys(("hops", "bottlenecks", "channel_gate", "audio_dim"), 0),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """A single-stream encoder. Every field is a key `config.model.*`."""

    width: int = 96
    num_layers: int = 4  # on text and image; 0: none (late fusion)
    # So many more layers on text and image, after `num_layers` on the text alone (VisualBERT without early fusion); 0:
    # all layers read both.
    late_layers: int = 0
    # Of a decoder that writes texts from the picture's states, beside the encoder; 0: none.
    decoder_layers: int = 0
    num_heads: int = 3
    mlp_dim: int = 384

    norm: str = "pre"
    norm_eps: float = 1e-6
    activation: str = "gelu"
    embed_norm: bool = False  # a LayerNorm over the whole stream before the first layer, as BERT has
    text_norm: bool = False  # a LayerNorm over the text's embeddings, before the modality's is added (ViLT, UNITER)
    # Of the image's embeddings: `sum` of content and position (Unicoder-VL), `each` of both and of their sum (UNITER).
    image_norm: str = "none"
    embed_norm_eps: float = 0.0  # of these three; 0: norm_eps
    dropout: float = 0.0
    attention_dropout: float = 0.0  # of attention weights
    stochastic_depth: float = 0.0  # of the last layer; grows linearly from 0
    # `prefix`: the picture reads itself, a text reads itself and the picture. Needed for several texts a picture.
    # `causal`: moreover a text token reads no later one, as for captions.
    # The others are told in `visibility.Visibility`.
    direction: str = "full"
    hops: int = 0  # with `multi_hop`: layers that go across, the last ones
    bottlenecks: int = 0  # with `bottleneck`: learned tokens an example, through which alone the modalities meet

    # Layers that read one modality alone, before `num_layers` on both: which kind, and how many.
    text_encoder: str = "none"
    text_layers: int = 0
    image_encoder: str = "none"
    image_layers: int = 0
    channel_gate: int = 0  # reduction ratio of the gates that scale channels by what is in both modalities; 0: none

    text_positions: str = "learned"
    text_period: int = 8  # of `periodic` text positions
    max_text_length: int = 64
    num_token_types: int = 2
    # What is added for the modality: `both`: text and image; `pictures`: text, first picture, second, ... in one table
    # (ViLT); `image`: image tokens alone, a table of token types of their own (VisualBERT); `token_types`: image
    # tokens take the text's token type 1 (UNITER).
    modality: str = "both"
    first_image_type: int = 0  # with `image`: the row of the first picture, the second has the next
    image_positions: str = "learned"
    image_grid: tuple[int, int] = (6, 6)  # rows, columns of the learned table; resized to each picture's own grid
    position_resize: str = "centres"  # what stays in place: `centres` of cells (ViT), `corners` of the table (ViLT)
    position_init: str = "normal"
    embed_std: float = 0.02  # of word and position embeddings at the start
    num_images: int = 1  # pictures of one example that get an embedding of their own
    image_cls: bool = False  # a learned token beside each example's patches (ViT's [CLS], in ViLT)
    image_stem: str = "linear"
    stem_width: int = 32  # channels of the convolutional stem's first layer
    patch_size: int = 8
    patch_margin: int = 0
    region_dim: int = 2048
    audio_dim: int = 0  # numbers of an audio token; 0: the model reads no audio
    audio_per_frame: int = 1  # audio tokens to each frame of the video that they sound with

    pooling: str = "cls"
    pooler: bool = False  # a dense layer with tanh over the pooled vector, as BERT has
    join: str = "none"  # of the pooled text with the mean of its image tokens; `none`: the text alone
    layers: str = "unrolled"
    remat: str = "none"
    dtype: str = "float32"
    attention: AttentionConfig = AttentionConfig()
    pruning: PruningConfig = PruningConfig()

    def __post_init__(self) -> None:
        for name, valid in CHOICES.items():
            if getattr(self, name) not in valid:
                raise ValueError(f"config.model.{name}={getattr(self, name)!r}: choose one of {', '.join(valid)}")
        for name, least in LEAST.items():
            if not getattr(self, name) >= least:  # so turned, it refuses NaN too
                raise ValueError(f"config.model.{name}={getattr(self, name)}: must be at least {least}")
        if min(self.image_grid) < 1:
            raise ValueError(f"config.model.image_grid={self.image_grid}: must be at least (1, 1)")
        if self.width % self.num_heads:
            raise ValueError(
                f"config.model.width={self.width} is not divisible by config.model.num_heads={self.num_heads}"
            )
        size = self.width // self.num_heads
        if self.attention.relative == "rope" and size % 4:
            raise ValueError(
                f"config.model.attention.relative='rope' does not go with config.model.width={self.width} and "
                f"config.model.num_heads={self.num_heads}: heads of {size} channels, which rows and columns of a "
                "picture cannot turn in pairs, half of them each; take a multiple of 4"
            )
        for name in ("dropout", "attention_dropout", "stochastic_depth"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"config.model.{name}={getattr(self, name)}: must be in [0, 1)")
        if self.decoder_layers and self.late_layers:
            raise ValueError(
                f"config.model.decoder_layers={self.decoder_layers} does not go with config.model.late_layers="
                f"{self.late_layers}: the decoder reads a picture that was encoded without a text"
            )
        self._check_image()
        check_kind(
            self.attention,
            image_stem=self.image_stem,
            direction=self.direction,
            within=reads_within(self),
            decoder_layers=self.decoder_layers,
        )
        check_direction(self)
        check_fusion(self)
        check_pooling(self)
        check_pruning(self)
        object.__setattr__(self, "image_grid", tuple(self.image_grid))

    def _check_image(self) -> None:
        of_regions = self.image_positions in REGION_POSITIONS
        if self.image_positions != "none" and (self.image_stem == "regions") != of_regions:
            raise ValueError(
                f"config.model.image_positions={self.image_positions!r} does not go with config.model.image_stem="
                f"{self.image_stem!r}: regions have {', '.join(REGION_POSITIONS)} or none, patches any of the others"
            )
        if self.image_cls and self.image_stem == "regions" and self.attention.reads_edges:
            raise ValueError(
                "config.model.image_cls=True does not go with config.model.attention.graph='edges' and config.model."
                "image_stem='regions': no edge names the class token"
            )
        last = self.first_image_type + self.num_images
        if self.modality == "image" and last > self.num_token_types:
            raise ValueError(
                f"config.model.num_token_types={self.num_token_types}: {self.num_images} pictures from "
                f"config.model.first_image_type={self.first_image_type} on need {last}"
            )

    @classmethod
    def named(cls, size: str, **changes: Any) -> ModelConfig:
        """The configuration of a named size (`tiny`, `small`, `base`, `large`), with some fields changed."""
        if size not in SIZES:
            raise ValueError(f"no model size {size!r}: choose one of {', '.join(SIZES)}")
        width, num_layers, num_heads, mlp_dim = SIZES[size]
        sizes = dict(width=width, num_layers=num_layers, num_heads=num_heads, mlp_dim=mlp_dim)
        return cls(**{**sizes, **changes})

    def alone(self, num_layers: int) -> ModelConfig:
        """The settings of so many layers that read one modality alone."""
        zero = ("late_layers", "decoder_layers", "hops", "bottlenecks", "text_layers", "image_layers", "channel_gate")
        without: dict[str, Any] = dict.fromkeys(zero, 0)
        without |= dict.fromkeys(("text_encoder", "image_encoder", "join"), "none")
        without["pruning"] = PruningConfig()
        return dataclasses.replace(self, num_layers=num_layers, direction="prefix", image_cls=False, **without)

    @property
    def picture_reads_text(self) -> bool:
        """Whether image tokens read the text; if not, several texts can share a picture."""
        return picture_reads_text(self)

    @property
    def words_meet(self) -> bool:
        """Whether the first token of a text reads its words, also where there is no picture."""
        return words_meet(self)

    @property
    def meets(self) -> bool:
        """Whether text and image meet in a layer."""
        return self.depth > 0

    @property
    def words_read_image(self) -> bool:
        """Whether there is a layer in which text tokens themselves read image tokens."""
        return bool(reading_layers(self))

    @property
    def depth(self) -> int:
        """Layers in all."""
        return self.num_layers + self.late_layers

    @property
    def inputs(self) -> ModelConfig:
        """What the data has to know of the model; two-stream models have the like."""
        return self

    @property
    def window(self) -> int:
        """Side in pixels of what one patch holds, margin included."""
        return self.patch_size + 2 * self.patch_margin
