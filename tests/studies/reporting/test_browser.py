"""The page of an audit as Chromium shows it: at three widths, light and dark."""

import io

import numpy as np
import PIL.Image
import pytest

from pnoise_jax.studies.reporting import report
from tests.studies.example_audit import bare_audit, digits_audit, glyphs_audit
from tests.studies.reporting import browser

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        browser.find() is None, reason=f"no browser is installed: none of {browser.NAMES}"
    ),
]
EXAMPLES = {"digits": digits_audit, "glyphs": glyphs_audit, "bare": bare_audit}
WIDTHS = (400, 900, 1400)

# Elements that are cut off: beyond the window, outside any frame that scrolls.
CUT_OFF = """
[...document.body.querySelectorAll("*")].filter(e => !e.closest(".scroll > *")).filter(e => {
  const box = e.getBoundingClientRect();
  return box.width && (box.left < 0 || box.right > innerWidth + 0.5);
}).map(e => e.outerHTML.slice(0, 80))
"""
# Elements that do not show all their content, and do not scroll either.
CLIPPED = """
[...document.body.querySelectorAll("*")].filter(e => !(e instanceof SVGElement)).filter(e => {
  const style = getComputedStyle(e);
  return e.clientWidth && e.scrollWidth > e.clientWidth + 1 && !/auto|scroll/.test(style.overflowX)
    && style.overflowX != "visible";
}).map(e => e.outerHTML.slice(0, 80))
"""
# Letters and marks of figures that lie outside their figure, where they are not shown.
OUTSIDE_FIGURES = """
[...document.querySelectorAll("figure svg")].flatMap(svg => {
  const frame = svg.getBoundingClientRect();
  return [...svg.querySelectorAll("use, path")]
    .filter(e => !e.closest("defs, clipPath, [clip-path]"))
    .map(e => e.getBoundingClientRect()).filter(box => box.width && (box.left < frame.left - 1
      || box.right > frame.right + 1 || box.top < frame.top - 1 || box.bottom > frame.bottom + 1))
    .map(box => [box.left - frame.left, box.top - frame.top]);
})
"""
# The frames whose content is wider than they are; details are open, so that they count.
FRAMES = """
[...document.querySelectorAll(".scroll")].map(e => {
  const box = e.getBoundingClientRect();
  return {x: box.left, y: box.top + scrollY, width: box.width, height: box.height,
          scrolls: e.scrollWidth > e.clientWidth + 1, focusable: e.tabIndex == 0};
})
"""
# The lowest contrast of text with its background, as WCAG 2 defines it.
CONTRAST = """
(() => {
  const parse = text => text.match(/[\\d.]+/g).map(Number);
  const light = rgb => rgb.slice(0, 3).map(c => c / 255)
    .map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = e => {
    for (; e; e = e.parentElement) {
      const rgb = parse(getComputedStyle(e).backgroundColor);
      if (rgb.length == 3 || rgb[3] == 1) return rgb;
    }
  };
  const texts = [...document.body.querySelectorAll("*")].filter(e =>
    [...e.childNodes].some(n => n.nodeType == 3 && n.data.trim()) && e.getClientRects().length);
  return Math.min(...texts.map(e => {
    const [a, b] = [light(parse(getComputedStyle(e).color)), light(behind(e))];
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  }));
})()
"""


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """The file of each example's page, by name."""
    files = {}
    for name, make in EXAMPLES.items():
        directory = tmp_path_factory.mktemp(name)
        report.write_audit(directory, make())
        files[name] = directory / "audit.html"
    return files


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    with browser.start(browser.find(), tmp_path_factory.mktemp("profile")) as tab:
        yield tab


def open_page(chromium, page, width, dark=False):
    chromium.open(page, width=width, dark=dark)
    chromium.evaluate("document.querySelectorAll('details').forEach(e => e.open = true)")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", EXAMPLES)
def test_nothing_is_cut_off_or_hard_to_read_and_the_console_is_silent(
    chromium, pages, name, width, dark
):
    open_page(chromium, pages[name], width, dark)
    assert chromium.evaluate("innerWidth") == width
    assert chromium.evaluate("document.documentElement.scrollWidth") <= width
    assert chromium.evaluate(CUT_OFF) == []
    assert chromium.evaluate(CLIPPED) == []
    assert chromium.evaluate(OUTSIDE_FIGURES) == []
    assert chromium.evaluate(CONTRAST) >= 4.5
    paper = chromium.evaluate("getComputedStyle(document.body).backgroundColor")
    assert paper == ("rgb(19, 24, 30)" if dark else "rgb(255, 255, 255)")
    assert chromium.complaints == []


def pixels(chromium, frame, *, right):
    """The columns of a frame's left or right edge, (height, 12, 3), as they are shown."""
    x = frame["x"] + (frame["width"] - 12 if right else 0)
    clip = {"x": round(x), "y": frame["y"], "width": 12, "height": frame["height"]}
    shot = PIL.Image.open(io.BytesIO(chromium.screenshot(clip=clip))).convert("RGB")
    return np.asarray(shot, np.int32)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("name", EXAMPLES)
def test_a_shadow_shows_where_a_frame_can_scroll(chromium, pages, name, dark):
    """Other edges have the colour of the page."""
    open_page(chromium, pages[name], 400, dark)
    frames = chromium.evaluate(FRAMES)
    assert all(frame["focusable"] for frame in frames)
    assert sum(frame["scrolls"] for frame in frames) >= 3
    paper = np.array([19, 24, 30] if dark else [255, 255, 255])
    for scrolled in (False, True):
        if scrolled:
            chromium.evaluate("document.querySelectorAll('.scroll').forEach(e => e.scrollLeft=1e4)")
        for frame in (frame for frame in frames if frame["scrolls"]):
            for right in (False, True):
                edge = np.abs(pixels(chromium, frame, right=right) - paper).max(axis=2)
                if right != scrolled:
                    assert np.median(edge[:, -1 if right else 0]) > 20
                else:
                    assert np.median(edge) == 0


@pytest.mark.parametrize("width", WIDTHS)
def test_letters_of_figures_are_large_enough_to_read(chromium, pages, width):
    """Figures have letters of at least 10 points; on a phone, of at least 8.5 pixels."""
    open_page(chromium, pages["digits"], width)
    scales = chromium.evaluate(
        "[...document.querySelectorAll('figure svg')]"
        ".map(e => e.getBoundingClientRect().width / e.viewBox.baseVal.width)"
    )
    assert len(scales) == 5
    assert min(scales) >= (0.85 if width == 400 else 1)


def test_a_fault_would_be_noticed(chromium, tmp_path):
    """A page with every fault that the checks look for."""
    page = tmp_path / "page.html"
    page.write_text(
        "<!DOCTYPE html><body style='background: white'><p style='width: 500px'>wide</p>"
        "<div style='width: 50px; overflow: hidden'><p style='width: 99px'>clipped</p></div>"
        "<p style='color: #999'>pale</p>"
        "<figure><svg viewBox='0 0 9 9' width='9'><path d='M5 5H30'/></svg></figure>"
        "<script>console.error('no'); missing()</script>"
    )
    chromium.open(page, width=400, dark=False)
    assert chromium.evaluate("document.documentElement.scrollWidth") > 400
    assert len(chromium.evaluate(CUT_OFF)) == 1
    assert len(chromium.evaluate(CLIPPED)) == 1
    assert len(chromium.evaluate(OUTSIDE_FIGURES)) == 1
    assert 2 < chromium.evaluate(CONTRAST) < 4.5
    assert len(chromium.complaints) == 2
