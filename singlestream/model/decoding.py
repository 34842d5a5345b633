"""One token after another: greedy choice, sampling and beam search over whatever gives the next token's logits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int32

from singlestream.batch import Array

# (cache, the last token of each sequence [R], how many came before it) -> logits of the next [R, V], the cache.
# Every leaf of a cache has a leading axis of sequences.
NextToken = Callable[[Any, Int32[Array, " R"], Int32[Array, ""]], tuple[Float[Array, "R V"], Any]]
Choose = Callable[[Float[Array, "R V"], Int32[Array, ""]], Int32[Array, " R"]]


class Decoded(NamedTuple):
    """Sequences and what they are worth.

    `tokens` begin after the start token; from the first `end_id` on all are `end_id`. `scores` are sums of the tokens'
    log probabilities, `end_id` included.
    """

    tokens: Int32[Array, "R S"]
    scores: Float[Array, " R"]


def greedy(next_token: NextToken, cache: Any, start: Int32[Array, " R"], *, length: int, end_id: int) -> Decoded:
    """The most probable token, again and again, until every sequence has ended or has `length` tokens."""
    return _one_by_one(
        next_token,
        cache,
        start,
        length=length,
        end_id=end_id,
        choose=lambda logits, place: jnp.argmax(logits, axis=-1),
    )


def sample(
    next_token: NextToken,
    cache: Any,
    start: Int32[Array, " R"],
    *,
    length: int,
    end_id: int,
    key: jax.Array,
    top_p: float = 1.0,
    temperature: float = 1.0,
) -> Decoded:
    """Tokens drawn from the nucleus: the fewest whose probabilities sum to `top_p` or more (Holtzman et al. 2020).

    Scores are those of the whole distribution at temperature 1. Sequence r draws the same tokens in any batch whose
    row r it is.
    """

    def choose(logits: Float[Array, "R V"], place: Int32[Array, ""]) -> Int32[Array, " R"]:
        keys = jax.vmap(lambda row: jax.random.fold_in(jax.random.fold_in(key, place), row))(jnp.arange(len(logits)))
        return jax.vmap(jax.random.categorical)(keys, nucleus(logits / temperature, top_p))

    return _one_by_one(next_token, cache, start, length=length, end_id=end_id, choose=choose)


def nucleus(logits: Float[Array, "R V"], top_p: float) -> Float[Array, "R V"]:
    """The logits, -inf outside of the nucleus; the most probable token is always in it."""
    order = jnp.argsort(-logits, axis=-1)
    probabilities = jax.nn.softmax(jnp.take_along_axis(logits, order, axis=-1), axis=-1)
    before = jnp.cumsum(probabilities, axis=-1) - probabilities
    kept = jnp.take_along_axis(before < top_p, jnp.argsort(order, axis=-1), axis=-1)
    return jnp.where(kept, logits, -jnp.inf)


def _one_by_one(
    next_token: NextToken, cache: Any, start: Int32[Array, " R"], *, length: int, end_id: int, choose: Choose
) -> Decoded:
    def goes_on(state: Any) -> Array:
        place, _, last, tokens, _ = state
        return (place < length) & ~jnp.all((last == end_id) & (place > 0))

    def step(state: Any) -> Any:
        place, cache, last, tokens, scores = state
        logits, cache = next_token(cache, last, place)
        log_p = jax.nn.log_softmax(logits.astype(jnp.promote_types(logits.dtype, jnp.float32)))
        ended = (last == end_id) & (place > 0)
        token = jnp.where(ended, end_id, choose(logits, place).astype(tokens.dtype))
        gained = jnp.take_along_axis(log_p, token[:, None], axis=1)[:, 0]
        return place + 1, cache, token, tokens.at[:, place].set(token), scores + jnp.where(ended, 0, gained)

    start = jnp.asarray(start)
    tokens, scores = jnp.full((len(start), length), end_id, start.dtype), jnp.zeros(len(start))
    *_, tokens, scores = jax.lax.while_loop(goes_on, step, (jnp.zeros((), jnp.int32), cache, start, tokens, scores))
    return Decoded(tokens, scores)


def beam_search(
    next_token: NextToken,
    cache: Any,
    start: Int32[Array, " R"],
    *,
    length: int,
    end_id: int,
    num_beams: int,
    length_penalty: float = 0.0,
) -> Decoded:
    """The best of the `num_beams` sequences that survive, for each start.

    At every place the continuations with the highest sums of log probabilities survive; a sequence that has ended
    stays as it is. At the end the sums are divided by ((5 + tokens) / 6) ** length_penalty (Wu et al. 2016, equation
    14) to choose one; `scores` are the plain sums. With as many beams as there are beginnings of all lengths below
    `length` the search is exhaustive.
    """
    start = jnp.asarray(start)
    num = len(start)
    rows = jnp.arange(num)[:, None]

    def goes_on(state: Any) -> Array:
        place, _, _, _, _, ended = state
        return (place < length) & ~jnp.all(ended)

    def step(state: Any) -> Any:
        place, cache, last, tokens, scores, ended = state
        logits, cache = next_token(cache, last.reshape(-1), place)
        log_p = jax.nn.log_softmax(logits.astype(jnp.promote_types(logits.dtype, jnp.float32)))
        vocab_size = log_p.shape[-1]
        stay = jnp.where(jnp.arange(vocab_size) == end_id, 0.0, -jnp.inf)
        log_p = jnp.where(ended[..., None], stay, log_p.reshape(num, num_beams, -1))
        scores, chosen = jax.lax.top_k((scores[..., None] + log_p).reshape(num, -1), num_beams)
        parent, token = chosen // vocab_size, (chosen % vocab_size).astype(tokens.dtype)
        tokens = tokens[rows, parent].at[:, :, place].set(token)
        of = (rows * num_beams + parent).reshape(-1)
        cache = jax.tree.map(lambda x: x[of], cache)
        return place + 1, cache, token, tokens, scores, ended[rows, parent] | (token == end_id)

    cache = jax.tree.map(lambda x: jnp.repeat(x, num_beams, axis=0), cache)
    tokens = jnp.full((num, num_beams, length), end_id, start.dtype)
    scores = jnp.where(jnp.arange(num_beams) == 0, 0.0, -jnp.inf) * jnp.ones((num, 1))  # all beams begin alike
    last = jnp.repeat(start[:, None], num_beams, axis=1)
    ended = jnp.zeros((num, num_beams), bool)
    *_, tokens, scores, ended = jax.lax.while_loop(
        goes_on, step, (jnp.zeros((), jnp.int32), cache, last, tokens, scores, ended)
    )
    lengths = (tokens != end_id).sum(-1) + ended  # the end is a token, too
    best = jnp.argmax(scores / ((5 + lengths) / 6) ** length_penalty, axis=1)
    return Decoded(tokens[rows[:, 0], best], scores[rows[:, 0], best])
