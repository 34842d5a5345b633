"""Attention over queries, keys, values and a `Visibility`: one file a kind, found by name.

A file under `scores/` says how a query scores a key. It offers a pure function of q and k, and one class over it:

    class Score(nnx.Module):
        def __init__(self, num_heads, size, *, dtype, rngs)
        def __call__(self, q: [B, H, Q, C], k: [B, H, K, C]) -> [B, H, Q, K]

A file under `relative/` says what the distance between the tokens does to that:

    class Relative(nnx.Module):
        def __init__(self, num_heads, size, *, dtype, rngs)
        def __call__(self, score, q: [B, H, Q, C], k: [B, H, K, C], visibility) -> [B, H, Q, K]

where `score(q, k)` is that of the content alone, and `visibility` tells the places of these queries and keys.

A file under `selections/` says which keys are read, and how their scores become weights:

    class Selection(nnx.Module):
        draws: ClassVar = False                      whether it draws from `key` while the model is trained
        def __init__(self, config: AttentionConfig, num_heads, size, *, dtype, rngs)
        def __call__(self, scores, q, k, v, visibility, *, rate, key, weights) -> (out [B, H, Q, C], weights or None)

where q, k, v are [B, H, L, C], `scores(q, k, visibility)` gives [B, H, Q, K] in float32 or wider for these queries and
keys (a selection may pass stretches of them), `rate` and `key` are of dropout of the weights, and `weights` asks for
them, [B, H, Q, K], as they were applied. Those that compute every score share the classes of `whole.py`.
`module.Attention` puts both together.
"""
