"""What goes into the page: numbers that survive, texts that stay texts, nothing from outside."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from singlestream.explain import report as report_module
from singlestream.explain.html import pack_picture
from singlestream.explain.report import Report, write_report
from tests.explain.toy_report import toy_report


def data_of(page: str) -> dict:
    return json.loads(re.search(r'id="data">(.*?)</script>', page, re.S)[1])


def test_the_page_carries_everything_and_asks_for_nothing():
    page = toy_report().to_html()
    assert page.count("data:image/png;base64,") == 18
    assert not re.search(r"""(src|href)\s*=\s*["']?(https?:)?//""", page)
    assert "{{" not in page and "default-src 'none'" in page
    assert len(page) < 1_000_000


def test_texts_stay_texts():
    """A text may close the element that holds it, look like a placeholder or break a line for JavaScript."""
    nasty = '</script><script>alert(1)</script> {{script}} \u2028 <!-- & \\ "'
    toy = toy_report(num_examples=1)
    example = dataclasses.replace(toy.examples[0], text=nasty)
    page = dataclasses.replace(toy, title=nasty, examples=[example]).to_html()
    assert page.count("<script") == 2 and page.count("</script>") == 2
    assert data_of(page)["examples"][0]["text"] == nasty
    assert data_of(page)["title"] == nasty


def test_attention_survives_as_bytes():
    toy = toy_report(num_examples=2)
    packed = data_of(toy.to_html())["examples"][1]["to_image"]
    shape = toy.examples[1].to_image.shape
    levels = np.frombuffer(base64.b64decode(packed["levels"]), np.uint8).reshape(shape)
    scale = np.frombuffer(base64.b64decode(packed["scale"]), "<f4").reshape(shape[:-1])
    np.testing.assert_allclose(levels / 255 * scale[..., None], toy.examples[1].to_image, atol=0.002)


def test_a_large_model_shows_the_mean_of_its_heads(monkeypatch):
    monkeypatch.setattr(report_module, "ATTENTION_BUDGET", 1000)
    toy = toy_report(num_examples=2)
    packed = data_of(toy.to_html())["examples"][0]["to_image"]
    assert (packed["layers"], packed["heads"]) == (4, 1)
    levels = np.frombuffer(base64.b64decode(packed["levels"]), np.uint8).reshape(4, 1, 8, 36)
    assert (levels.argmax(-1)[:, 0] == toy.examples[0].to_image.mean(1).argmax(-1)).all()


@pytest.mark.parametrize(
    ("size", "shown"), [((1025, 2050), (512, 1024)), ((1500, 30), (1024, 20)), ((1024, 700), (1024, 700))]
)
def test_a_large_picture_is_shown_smaller(size, shown):
    """Height and width."""
    height, width = np.mgrid[: size[0], : size[1]]
    image = np.stack([height % 256, width % 256, 0 * width], axis=-1).astype(np.uint8)
    packed = pack_picture(image)
    drawn = np.asarray(Image.open(io.BytesIO(base64.b64decode(packed["src"].partition(",")[2]))))
    assert drawn.shape == (*shown, 3) and (packed["height"], packed["width"]) == shown
    assert size != shown or (drawn == image).all()


def test_a_page_of_nothing_but_a_title():
    page = Report(title="empty", subtitle="").to_html()
    assert data_of(page)["examples"] == []


def test_a_number_that_is_none_is_refused():
    with pytest.raises(ValueError, match="not JSON compliant"):
        Report(title="", subtitle="", other=[("loss", float("nan"))]).to_html()


def test_writing_replaces_the_page_whole(tmp_path):
    path = tmp_path / "report.html"
    path.write_text("old")
    write_report(toy_report(num_examples=1), path)
    assert path.read_text().startswith("<!doctype html>")
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
