"""The figures show the numbers that they get, in a style that user settings do not change."""

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure

from pnoise_jax.studies.reporting import audit_figures, evidence_figures, report, style
from pnoise_jax.studies.reporting.figures import Line, Panel, sweep_figure
from tests.studies.example_audit import digits_audit, glyphs_audit

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
    figure = audit_figures.protocols(audit)
    points = drawn(figure)
    assert legend(figure) == [*PROTOCOLS, "batch vote"]
    intervals = [np.array(c.get_segments())[..., 0] for c in figure.axes[0].collections]
    for name, order, ends in zip(
        PROTOCOLS[1:], ("shuffled", "class_sorted"), intervals, strict=True
    ):
        rows = noisy(audit, order)
        np.testing.assert_array_equal(points[name][:, 0], [row["top1"] for row in rows])
        np.testing.assert_array_equal(ends, [row["interval"] for row in rows])
    clean = points["clean"][:, 0].reshape(6, 3)  # from, to, and a gap
    np.testing.assert_array_equal(clean[:, :2], np.full((6, 2), 76.1))
    votes = [row["batch_vote_top1"] for row in noisy(audit, "class_sorted")]
    np.testing.assert_array_equal(points["batch vote"][:, 0], votes)


def test_protocols_puts_the_dots_next_to_their_clean_line_and_label():
    figure = audit_figures.protocols(digits_audit())
    points, ax = drawn(figure), figure.axes[0]
    ticks = ax.get_yticks()
    assert [label.get_text() for label in ax.get_yticklabels()] == 3 * ["batch 10", "batch 50"]
    for name in PROTOCOLS[1:]:
        np.testing.assert_allclose(points[name][:, 1], ticks, atol=0.2)
    np.testing.assert_allclose(points["clean"][::3, 1], ticks - 0.5)
    assert np.all(np.diff(ticks) >= 1)


def test_protocols_writes_the_numbers_and_the_noises():
    audit = digits_audit()
    texts = [text.get_text() for text in audit_figures.protocols(audit).axes[0].texts]
    for row in noisy(audit, "shuffled") + noisy(audit, "class_sorted"):
        assert f"{row['top1']:.1f}" in texts
    names = dict.fromkeys(row["noise_id"] for row in audit["rows"] if row["noise"])
    assert [text for text in texts if " at " in text] == [*names]


def test_orders_shows_every_accuracy_in_a_strip_of_its_batch_size():
    audit = digits_audit()
    figure = evidence_figures.orders(audit)
    assert legend(figure) == ["clean", *evidence_figures.ORDERS.values()]
    assert len(figure.axes) == 3
    names = dict.fromkeys(row["noise_id"] for row in audit["orders"])
    for ax, noise_id in zip(figure.axes, names, strict=True):
        assert ax.get_title(loc="left") == noise_id
        assert [label.get_text() for label in ax.get_yticklabels()] == ["batch 10", "batch 50"]
        left, right = ax.get_xlim()
        for order, name in evidence_figures.ORDERS.items():
            lines = [line for line in ax.get_lines() if line.get_label() == name]
            rows = [r for r in audit["orders"] if (r["noise_id"], r["order"]) == (noise_id, order)]
            for strip, (line, row) in enumerate(zip(lines, rows, strict=True)):
                x, y = line.get_xydata().T
                np.testing.assert_array_equal(x, row["top1_by_order"])
                np.testing.assert_allclose(y, strip, atol=0.4)
                assert left <= x.min()
                assert x.max() <= right


def test_orders_shows_the_spread_of_random_orders_and_the_clean_accuracy():
    audit = digits_audit()
    ax = evidence_figures.orders(audit).axes[0]
    rows = [r for r in audit["orders"] if r["order"] == "shuffled"][:2]
    bars = [collection.get_segments()[0][:, 0] for collection in ax.collections]
    np.testing.assert_array_equal(bars, [[row["lowest"], row["highest"]] for row in rows])
    assert drawn(evidence_figures.orders(audit))["clean"][0, 0] == 76.1


def test_orders_that_agree_stay_on_an_axis_within_0_and_100():
    audit = digits_audit()
    for row in audit["orders"]:
        row["top1_by_order"] = [100.0] * row["orders"]
    for row in audit["rows"]:
        row["top1"] = 100.0
    for ax in evidence_figures.orders(audit).axes:
        low, high = ax.get_xlim()
        assert (high, high - low) == (100.5, evidence_figures.LEAST_WIDTH)


def test_interventions_show_the_targets_of_each_verdict():
    audit = digits_audit()
    figure = evidence_figures.interventions(audit)
    rows = [row for row in audit["interventions"] if row["batch_size"] == 10]
    points, ax = drawn(figure), figure.axes[0]
    assert legend(figure) == ["called the class of its mates", "called the other class"]
    for name, key in zip(legend(figure), ("called", "called_other"), strict=True):
        np.testing.assert_array_equal(points[name][:, 0], [row[key] for row in rows])
        np.testing.assert_array_equal(points[name][:, 1], ax.get_yticks())
    labels = [label.get_text() for label in ax.get_yticklabels()]
    assert labels == 3 * ["contested", "third class", "blank"]
    texts = [text.get_text() for text in ax.texts]
    assert texts.count("+1.55 sd") == len(rows)
    names = dict.fromkeys(row["noise_id"] for row in rows)
    assert [t for t in texts if "mates" in t] == [f"{name}\nbatch 10, 9 mates" for name in names]


def test_interventions_leave_out_noises_that_have_none():
    audit = digits_audit()
    audit["interventions"] = audit["interventions"][:3]
    assert len(evidence_figures.interventions(audit).axes[0].get_yticks()) == 3


def test_purity_has_a_panel_for_each_sweep():
    audit = digits_audit()
    figure = audit_figures.purity(audit)
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


def test_purity_leaves_out_points_without_mates():
    audit = glyphs_audit()
    audit["purity"][0]["purity"] = None
    figure = audit_figures.purity(audit)
    assert len(drawn(figure)["batch vote"]) == len(audit["purity"]) - 1


def test_few_classes_are_shown_one_by_one():
    audit = digits_audit()
    figure = audit_figures.per_class(audit)
    ordered = sorted(audit["per_class"], key=lambda c: -c["clean"])
    labels = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert labels == [c["name"] for c in ordered]
    for name, field in zip(PROTOCOLS, ("clean", "shuffled", "class_sorted"), strict=True):
        np.testing.assert_array_equal(drawn(figure)[name][:, 1], [c[field] for c in ordered])


def test_long_class_names_are_shortened_and_turned():
    audit = digits_audit()
    for c in audit["per_class"]:
        c["name"] = f"{c['class']} a name of many words"
    audit["per_class"][0]["name"] = "x" * 40
    labels = audit_figures.per_class(audit).axes[0].get_xticklabels()
    assert {label.get_rotation() for label in labels} == {90.0}
    assert {len(label.get_text()) for label in labels} == {audit_figures.MAX_NAME}
    assert "x" * 15 + "…" in {label.get_text() for label in labels}


@pytest.mark.parametrize("letter", ["i", "n", "W"])
@pytest.mark.parametrize("count", [2, 3, 4, 10])
def test_no_class_name_is_cut_off_or_overlaps(count, letter):
    audit = digits_audit()
    audit["per_class"] = audit["per_class"][:count]
    for c in audit["per_class"]:
        c["name"] = letter * 16
    figure = audit_figures.per_class(audit)
    figure.draw_without_rendering()
    boxes = [label.get_window_extent() for label in figure.axes[0].get_xticklabels()]
    edges = np.array([(box.x0, box.x1) for box in boxes])
    assert edges.min() >= 0
    assert edges.max() <= figure.bbox.width
    assert np.all(edges[1:, 0] > edges[:-1, 1])


def test_many_classes_are_shown_as_sorted_curves():
    audit = glyphs_audit()
    figure = audit_figures.per_class(audit)
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
    figure = sweep_figure(panels)
    assert legend(figure) == PROTOCOLS
    assert len(figure.axes) == 3
    for i, (ax, expected) in enumerate(zip(figure.axes, panels, strict=True)):
        assert ax.get_xlabel() == "strength"
        assert ax.get_title(loc="left") == expected.title
        assert ax.get_shared_y_axes().joined(ax, figure.axes[0])
        for name, band in zip(PROTOCOLS, ax.collections, strict=True):
            line = expected.lines[name]
            np.testing.assert_allclose(
                drawn(figure, i)[name], np.transpose([expected.x, line.mean])
            )
            ends = band.get_paths()[0].get_extents()
            assert (ends.y0, ends.y1) == (min(line.low), max(line.high))
    assert figure.axes[1].get_xticks().tolist() == [6, 8, 10, 12]  # layers are whole
    assert 0.5 in figure.axes[0].get_xticks() or 0.4 in figure.axes[0].get_xticks()


def test_each_protocol_has_its_colour_everywhere():
    audit = digits_audit()
    for figure in (
        audit_figures.protocols(audit),
        audit_figures.purity(audit),
        audit_figures.per_class(audit),
        sweep_figure([panel([1.0, 2.0])]),
    ):
        for line in figure.axes[0].get_lines():
            assert line.get_color() == style.COLORS[line.get_label()]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: sweep_figure([]), r"panels=\[\]: give at least one"),
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


@pytest.mark.parametrize("draw", report.FIGURES.values(), ids=report.FIGURES.keys())
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
    assert style.svg(audit_figures.protocols(audit)).startswith(b"<?xml")
