"""Attention along a graph of the tokens: neighbours, edges that come with the batch, or edges that are learned.

The graph joins tokens of one modality. Between modalities everything that is visible may be read: which word means
which place is the question, not the data.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Bool, Float, Int32

from singlestream.batch import ALL, AUDIO, EXTRA, IMAGE, Array
from singlestream.model.attention.apart import apart
from singlestream.model.attention.config import AttentionConfig
from singlestream.model.attention.plain import Scores
from singlestream.model.attention.scores.bilinear import bilinear
from singlestream.model.attention.whole import Softmax
from singlestream.model.attention.windows import touching
from singlestream.model.visibility import Visibility


def joined(visibility: Visibility) -> Bool[Array, "B Q K"]:
    """True where an edge of `visibility.edges` joins query and key, in either direction, or they are one token.

    Two modalities always are, and what edges do not number (a picture's class token, a bottleneck, sound) with all.
    """
    if visibility.edges is None:
        raise ValueError("config.model.attention.graph='edges' does not go with texts written word by word: no edges")
    tokens, read = visibility.token, visibility.read.token
    kind = jnp.float32
    ends = [visibility.edges[:, :, None, i] for i in (0, 1)]
    found = jnp.zeros((tokens.shape[0], tokens.shape[1], read.shape[1]), kind)
    for one, other in (ends, ends[::-1]):
        start, end = ((x == y[:, None]).astype(kind) for x, y in ((one, tokens), (other, read)))
        found += jnp.einsum("beq,bek->bqk", start, end)
    own = tokens[:, :, None] == read[:, None]
    hubs = [_is_hub(visibility.edges, each) for each in (tokens, read)]
    across = visibility.modality[:, :, None] != visibility.read.modality[:, None]
    linked = (found > 0) | own | hubs[0][:, :, None] | hubs[1][:, None]
    return linked | across | _added(visibility)[:, :, None] | _added(visibility.read)[:, None]


def _is_hub(edges: Int32[Array, "B E 2"], tokens: Int32[Array, "B L"]) -> Bool[Array, "B L"]:
    """The tokens that an edge (i, ALL) names."""
    return ((edges[:, :, :1] == tokens[:, None]) & (edges[:, :, 1:] == ALL)).any(1)


def _added(tokens: Visibility) -> Bool[Array, "B L"]:
    """The tokens beside words, patches and regions: what a model adds, and sound."""
    added = (tokens.modality == EXTRA) | (tokens.modality == AUDIO)
    if tokens.where is None:
        return added
    return added | ((tokens.modality == IMAGE) & (tokens.where[..., 0] < 0))


def pair_numbers(visibility: Visibility, window: int) -> Int32[Array, "B Q K"]:
    """A number for what lies between query and key: places of words, or rows and columns of patches.

    Distances beyond the window count as the window. The last number is of pairs without a distance.
    """
    pairs, side = apart(visibility), 2 * window + 1
    place, row, column = (jnp.clip(each, -window, window) + window for each in (pairs.place, pairs.row, pairs.column))
    patches = side + side * row + column
    return jnp.where(pairs.in_text, place, jnp.where(pairs.in_picture, patches, side + side**2))


class Selection(Softmax):
    """Softmax over the visible keys that the graph joins to the query (Velickovic et al. 2018, section 2.1).

    `grid`: tokens that are `touching`. `edges`: those that the batch brings, `joined`. With the others every visible
    key's weight is multiplied by an edge's strength in (0, 1) before all are divided by their sum, the sigmoid of a
    logit that is 0 at the start, when it changes nothing. `distance`: a learned one for each head and each of
    `pair_numbers`. `learned`: of the contents, q W k / sqrt(C) with a matrix W of each head (after Norcliffe-Brown et
    al. 2018, section 3.2).
    """

    def __init__(self, config: AttentionConfig, num_heads: int, size: int, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.graph, self.window = config.graph, config.window
        side = 2 * config.window + 1
        of_distance, of_content = config.graph == "distance", config.graph == "learned"
        self.logits = nnx.Param(jnp.zeros((num_heads, side + side**2 + 1), dtype)) if of_distance else None
        self.kernel = nnx.Param(jnp.zeros((size, num_heads, size), dtype)) if of_content else None

    def strength(
        self, q: Float[Array, "B H Q C"], k: Float[Array, "B H K C"], visibility: Visibility
    ) -> Float[Array, "B H Q K"]:
        """How strong the edges of a learned graph are, between these queries and keys."""
        return jax.nn.sigmoid(self._logits(q, k, visibility))

    def score(
        self, scores: Scores, q: Float[Array, "B H Q C"], k: Float[Array, "B H K C"], visibility: Visibility
    ) -> Float[Array, "B H Q K"]:
        found = scores(q, k, visibility)
        if self.graph in ("distance", "learned"):
            found += jax.nn.log_sigmoid(self._logits(q, k, visibility).astype(found.dtype))
        return found

    def see(
        self, scores: Float[Array, "B H Q K"], visibility: Visibility
    ) -> tuple[Float[Array, "B H Q K"], Bool[Array, "B Q K"]]:
        mask = visibility.mask()
        if self.graph in ("grid", "edges"):
            mask &= touching(visibility) if self.graph == "grid" else joined(visibility)
        return scores, mask

    def _logits(
        self, q: Float[Array, "B H Q C"], k: Float[Array, "B H K C"], visibility: Visibility
    ) -> Float[Array, "B H Q K"]:
        if self.graph == "learned":
            return bilinear(q, k, self.kernel[...])
        return jnp.moveaxis(jnp.take(self.logits[...], pair_numbers(visibility, self.window), axis=1), 0, 1)
