"""In which order the layers of a two-stream model attend."""

from __future__ import annotations

from singlestream.model.two_stream_config import TwoStreamConfig

CROSS = "cross"


def layer_order(config: TwoStreamConfig) -> list[tuple[str, int]]:
    """What attends one after another: (`text`, i), (`image`, i) or (`cross`, i).

    i counts the layers of `Encoded.attention` of that name; (`cross`, i) is layer i of `text_to_image` and of
    `image_to_text`, which read both streams as they came in.
    """
    order: list[tuple[str, int]] = []
    done, attended = {"text": 0, "image": 0}, {"text": 0, "image": 0}

    def attend(side: str, layers: int) -> None:
        order.extend((side, attended[side] + i) for i in range(layers))
        attended[side] += layers

    def advance(side: str, until: int) -> None:
        attend(side, until - done[side])
        done[side] = until

    for number, places in enumerate(zip(config.cross_after_text, config.cross_after_image, strict=True)):
        for side, until in zip(done, places, strict=True):
            advance(side, until)
        if config.coattention:
            order.append((CROSS, number))
            for side in done:
                attend(side, int(config.cross == "shared"))
    advance("text", config.num_layers)
    advance("image", config.image_layers)
    return order
