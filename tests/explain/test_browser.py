"""The page in a real browser."""

from __future__ import annotations

import numpy as np
import pytest

from singlestream.explain.report import Report
from tests.explain.browser import complaints, hover, show, start_browser, text_of, veils  # noqa: F401  (a fixture)
from tests.explain.toy_report import toy_report


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("picture_reads", [True, False])
def test_it_opens_without_complaint_and_fits(browser, tmp_path, width, picture_reads):
    show(browser, toy_report(picture_reads=picture_reads), tmp_path, width=width)
    assert browser.execute_script("return document.querySelectorAll('.thumb').length") == 18
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    assert browser.execute_script("return document.querySelectorAll('main b').length") >= 4
    assert "<b>colour</b>" in text_of(browser, ".thumb")  # markup in a text is shown, not obeyed
    assert complaints(browser) == []


def test_pointing_at_a_word_changes_the_map(browser, tmp_path):
    report = toy_report()
    show(browser, report, tmp_path)
    before = veils(browser)
    assert "“square”" in text_of(browser, ".saying")
    hover(browser, "[data-word='1']")
    assert veils(browser) != before and "“what”" in text_of(browser, ".saying")
    # The map is the chosen head's: the strongest patch is where its weight is largest.
    strongest = int(report.examples[0].to_image[2, 1, 1].argmax())
    assert float(veils(browser)[strongest]) == 0
    hover(browser, "h1")
    assert veils(browser) == before
    assert complaints(browser) == []


def test_true_boxes_can_be_switched_off(browser, tmp_path):
    show(browser, toy_report(), tmp_path)
    shown = "return getComputedStyle(document.querySelector('.box')).display"
    assert browser.execute_script(shown) == "block"
    browser.execute_script("document.querySelector('input[type=checkbox]').click()")
    assert browser.execute_script(shown) == "none"


@pytest.mark.parametrize(
    ("image_token", "picture_reads", "says"),
    [
        ("patch", True, "This patch gives"),
        ("region", True, "This region gives"),
        ("region", False, "The words that look at this region most"),
    ],
)
def test_pointing_at_a_patch_shows_words(browser, tmp_path, image_token, picture_reads, says):
    show(browser, toy_report(picture_reads=picture_reads, image_token=image_token), tmp_path)
    hover(browser, "[data-patch='14']")
    assert says in text_of(browser, ".saying")
    shares = "return [...document.querySelectorAll('.word')].map((n) => +n.style.getPropertyValue('--share'))"
    assert max(browser.execute_script(shares)) == pytest.approx(0.6)
    assert complaints(browser) == []


def test_layers_and_heads_can_be_chosen(browser, tmp_path):
    show(browser, toy_report(), tmp_path)
    before = veils(browser)
    assert "layer 3, head 2" in text_of(browser, ".saying")
    browser.execute_script("document.querySelector(\"[data-layer='0'][data-head='2']\").click()")
    assert veils(browser) != before and "layer 1, head 3" in text_of(browser, ".saying")
    choose = "const n = document.querySelector(arguments[0]); n.value = 'mean'; n.dispatchEvent(new Event('change'))"
    browser.execute_script(choose, "#choose-layer")
    browser.execute_script(choose, "#choose-head")
    assert "mean of the layers, mean of the heads" in text_of(browser, ".saying")


def test_instruments_can_be_chosen(browser, tmp_path):
    report = toy_report()
    show(browser, report, tmp_path)
    said = report.examples[0].instruments["attention_gradient"]
    choose = "const n = document.querySelector('#choose-instrument'); n.value = arguments[0]; "
    choose += "n.dispatchEvent(new Event('change')); return document.querySelector('#choose-head').disabled"
    assert browser.execute_script(choose, "attention gradient") is True
    for selector, values in (("[data-word='5']", said.words[5]), (".asked", said.image)):
        hover(browser, selector)
        np.testing.assert_allclose([*map(float, veils(browser))], 0.88 * (1 - values / values.max()), atol=3e-3)
        assert "(attention gradient)" in text_of(browser, ".saying")
    hover(browser, "[data-patch='14']")
    assert "The words that ask most of this patch" in text_of(browser, ".saying")
    # A head is one of attention weights, which know of no answer.
    browser.execute_script("document.querySelector(\".head[data-layer='0'][data-head='2']\").click()")
    assert "layer 1, head 3" in text_of(browser, ".saying")
    assert browser.execute_script("return document.querySelector('.asked').hidden") is True
    assert text_of(browser, ".notes") == "Something is left out." and "explain <IMAGE>" in text_of(browser, ".hint")
    assert complaints(browser) == []


def test_the_keyboard_reaches_words_and_patches(browser, tmp_path):
    from selenium.webdriver import ActionChains, Keys

    show(browser, toy_report(), tmp_path)
    browser.execute_script("document.querySelector(\"[data-patch='0']\").focus()")
    ActionChains(browser).send_keys(Keys.ARROW_RIGHT, Keys.ARROW_DOWN).perform()
    assert browser.execute_script("return document.activeElement.dataset.patch") == "7"
    assert "This patch gives" in text_of(browser, ".saying")
    browser.execute_script("document.querySelector(\"[data-word='2']\").focus()")
    assert "“colour”" in text_of(browser, ".saying")
    ActionChains(browser).send_keys(Keys.ENTER).perform()
    hover(browser, "h1")
    assert "“colour”" in text_of(browser, ".saying")  # held
    assert complaints(browser) == []


def test_another_example_and_a_filter(browser, tmp_path):
    report = toy_report()
    show(browser, report, tmp_path)
    browser.execute_script("document.querySelector(\"[data-example='4']\").click()")
    assert report.examples[4].predicted in text_of(browser, ".verdict")
    browser.execute_script("document.querySelectorAll('.filter')[1].click()")
    visible = "return [...document.querySelectorAll('.thumb')].filter((n) => n.offsetParent).length"
    assert browser.execute_script(visible) == sum(e.predicted != e.answer for e in report.examples)
    assert complaints(browser) == []


def test_a_page_without_examples(browser, tmp_path):
    show(browser, Report(title="a run", subtitle="of pre-training", other=[("mlm/accuracy", 0.5)]), tmp_path)
    assert "mlm/accuracy" in text_of(browser, "dl")
    assert complaints(browser) == []
