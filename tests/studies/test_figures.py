"""The figures show the numbers that they are given, in a style that nothing else changes."""

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure

from pnoise_jax.studies.reporting import figures, style
from pnoise_jax.studies.reporting.figures import Line, Panel
from tests.studies.example_audit import bare_audit, digits_audit, glyphs_audit

PROTOCOLS = ["clean", "noisy, shuffled", "noisy, class-sorted"]


def drawn(figure: Figure, axes: int = 0) -> dict[str, np.ndarray]:
    """The points (n, 2) of the named lines of some axes."""
    lines = figure.axes[axes].get_lines()
    return {line.get_label(): line.get_xydata() for line in lines if line.get_label()[0] != "_"}


def legend(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def noisy(audit: dict, order: str) -> list[dict]:
    return [row for row in audit["rows"] if row["noise"] and row["order"] == order]


def test_protocols_shows_every_row_and_its_interval():
    audit = digits_audit()
    figure = figures.protocols(audit)
    points = drawn(figure)
    assert legend(figure) == [*PROTOCOLS, "batch vote"]
    intervals = [np.array(c.get_segments())[..., 0] for c in figure.axes[0].collections]
    for name, order, ends in zip(
        PROTOCOLS[1:], ("shuffled", "class_sorted"), intervals, strict=True
    ):
        rows = noisy(audit, order)
        np.testing.assert_array_equal(points[name][:, 0], [row["top1"] for row in rows])
        np.testing.assert_array_equal(ends, [row["interval"] for row in rows])
    clean = points["clean"][:, 0].reshape(9, 3)  # from, to, and a gap
    np.testing.assert_array_equal(clean[:, :2], np.full((9, 2), 76.1))
    votes = [row["batch_vote_top1"] for row in noisy(audit, "class_sorted")]
    np.testing.assert_array_equal(points["batch vote"][:, 0], votes[:6])  # of the two that mix


def test_protocols_puts_the_dots_beside_their_clean_line_and_label():
    figure = figures.protocols(digits_audit())
    points, ax = drawn(figure), figure.axes[0]
    ticks = ax.get_yticks()
    assert [label.get_text() for label in ax.get_yticklabels()] == 3 * [
        "batch 10",
        "batch 50",
        "batch 100",
    ]
    for name in PROTOCOLS[1:]:
        np.testing.assert_allclose(points[name][:, 1], ticks, atol=0.2)
    np.testing.assert_allclose(points["clean"][::3, 1], ticks - 0.5)
    assert np.all(np.diff(ticks) >= 1)


def test_protocols_writes_the_numbers_and_the_noises():
    audit = digits_audit()
    texts = [text.get_text() for text in figures.protocols(audit).axes[0].texts]
    for row in noisy(audit, "shuffled") + noisy(audit, "class_sorted"):
        assert f"{row['top1']:.1f}" in texts
    names = dict.fromkeys(row["noise_id"] for row in audit["rows"] if row["noise"])
    assert [text for text in texts if " at " in text] == [*names]


def test_protocols_has_no_vote_where_there_is_none():
    figure = figures.protocols(bare_audit())
    assert legend(figure) == PROTOCOLS


def test_purity_has_a_panel_for_each_sweep():
    audit = digits_audit()
    figure = figures.purity(audit)
    assert legend(figure) == ["clean", "noisy, partly sorted", "batch vote"]
    assert len(figure.axes) == 2
    for i, noise_id in enumerate(dict.fromkeys(point["noise_id"] for point in audit["purity"])):
        points = [point for point in audit["purity"] if point["noise_id"] == noise_id]
        points.sort(key=lambda point: point["purity"])
        lines = drawn(figure, i)
        for name, values in (
            ("noisy, partly sorted", [point["top1"] for point in points]),
            ("batch vote", [point["batch_vote_top1"] for point in points]),
            ("clean", [76.1] * 6),
        ):
            np.testing.assert_allclose(lines[name][:, 0], [100 * p["purity"] for p in points])
            np.testing.assert_allclose(lines[name][:, 1], values)
        title = figure.axes[i].get_title(loc="left")
        assert title == ", batch 10\n".join(noise_id.split(" at "))


def test_purity_without_a_vote_draws_none():
    audit = glyphs_audit()
    audit["purity"] = [point | {"batch_vote_top1": None} for point in audit["purity"]]
    assert legend(figures.purity(audit)) == ["clean", "noisy, partly sorted"]


def test_few_classes_are_shown_one_by_one():
    audit = digits_audit()
    figure = figures.per_class(audit)
    ordered = sorted(audit["per_class"], key=lambda c: -c["clean"])
    labels = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert labels == [str(c["class"]) for c in ordered]
    for name, field in zip(PROTOCOLS, ("clean", "shuffled", "class_sorted"), strict=True):
        np.testing.assert_array_equal(drawn(figure)[name][:, 1], [c[field] for c in ordered])


def test_many_classes_are_shown_as_sorted_curves():
    audit = glyphs_audit()
    figure = figures.per_class(audit)
    assert legend(figure) == PROTOCOLS
    for name, field in zip(PROTOCOLS, ("clean", "shuffled", "class_sorted"), strict=True):
        points = drawn(figure)[name]
        np.testing.assert_array_equal(points[:, 1], sorted(c[field] for c in audit["per_class"]))
        np.testing.assert_allclose(points[[0, -1], 0], [0.05, 99.95])


def panel(x: list[float]) -> Panel:
    means = {name: np.linspace(40 + 10 * i, 60, len(x)) for i, name in enumerate(PROTOCOLS)}
    lines = {name: Line(mean, mean - 2, mean + 3) for name, mean in means.items()}
    return Panel(f"a sweep over {len(x)}", "strength", x, lines)


def test_sweeps_have_lines_bands_and_one_y_axis():
    panels = [panel([0.0, 0.5, 1.0]), panel([6, 8, 10, 12]), panel([1, 2])]
    figure = figures.sweep_figure(panels)
    assert legend(figure) == PROTOCOLS
    assert len(figure.axes) == 3
    for i, (ax, given) in enumerate(zip(figure.axes, panels, strict=True)):
        assert ax.get_xlabel() == "strength"
        assert ax.get_title(loc="left") == given.title
        assert ax.get_shared_y_axes().joined(ax, figure.axes[0])
        for name, band in zip(PROTOCOLS, ax.collections, strict=True):
            line = given.lines[name]
            np.testing.assert_allclose(drawn(figure, i)[name], np.transpose([given.x, line.mean]))
            ends = band.get_paths()[0].get_extents()
            assert (ends.y0, ends.y1) == (min(line.low), max(line.high))
    assert figure.axes[1].get_xticks().tolist() == [6, 8, 10, 12]  # layers are whole
    assert 0.5 in figure.axes[0].get_xticks() or 0.4 in figure.axes[0].get_xticks()


def test_each_protocol_has_its_colour_everywhere():
    audit = digits_audit()
    for figure in (
        figures.protocols(audit),
        figures.purity(audit),
        figures.per_class(audit),
        figures.sweep_figure([panel([1.0, 2.0])]),
    ):
        for line in figure.axes[0].get_lines():
            assert line.get_color() == style.COLORS[line.get_label()]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: figures.sweep_figure([]), r"panels=\[\]: give at least one"),
        (lambda: Panel("t", "x", [1, 2], {"noisy": Line([1, 2])}), "line 'noisy' of panel 't'"),
        (lambda: Panel("t", "x", [1, 2], {"clean": Line([1])}), "has 1 values for 2 x values"),
        (
            lambda: Panel("t", "x", [1, 2], {"clean": Line([1, 2], [0], [2, 3])}),
            "has 1 values for 2 x values",
        ),
    ],
)
def test_panels_that_do_not_fit_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("draw", [figures.protocols, figures.purity, figures.per_class])
def test_files_are_the_same_whatever_the_users_settings(draw):
    audit, before = digits_audit(), dict(matplotlib.rcParams)
    vector, raster = (save(draw(audit)) for save in (style.svg, style.png))
    assert dict(matplotlib.rcParams) == before
    with matplotlib.rc_context({"lines.marker": "x", "axes.grid": False, "svg.fonttype": "none"}):
        assert style.svg(draw(audit)) == vector
        assert style.png(draw(audit)) == raster
    assert b"date" not in vector.lower()


def test_names_are_not_read_as_formulas():
    audit = digits_audit()
    for row in audit["rows"]:
        if row["noise_id"]:
            row["noise_id"] = "costs $x_$ & <b>"
    audit["rows"] = [row for row in audit["rows"] if row["quality"] in (None, "optimal")]
    assert style.svg(figures.protocols(audit)).startswith(b"<?xml")
