"""Charts are laid out by the widths of their texts: none may be cut off."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from atlas.report.charts import curve_plot, dot_plot
from atlas.report.charts.theme import fit, style
from tests.support.drawn import inside, renderer

LONG = ["integrated_gradients_of_a_mask", "up"]
LOOK = {"color": "#010101", "lw": 1}


@pytest.mark.parametrize("names", [None, LONG])
@pytest.mark.parametrize("label", ["", "probability"])
@pytest.mark.parametrize(("scale", "end"), [("linear", 1), ("linear", 900_000), ("linear", -0.25), ("log", 1e-4)])
def test_all_text_lies_inside(names, label, scale, end):
    with style("chart"):
        figure = Figure(figsize=(4.5, 2.4))
        axes = figure.add_subplot()
        axes.plot([end / 1000, end], [-abs(end), abs(end)])
        axes.set_xlim(*sorted((end / 1000, end)))
        if scale == "log":
            dot_plot.scale(
                axes, np.array([end / 1000, end])
            )  # no chart has matplotlib's own powers, which are mathematics
            assert axes.get_xscale() == "log"
        axes.set_xlabel("mean rank over metrics  (1 is best)")
        axes.set_ylabel(label)
        if names:
            axes.set_yticks(range(len(names)), names)
            axes.set_ylim(len(names) - 0.4, -0.6)
        fit(axes, names=names, beneath=0.2)
        assert inside(figure)
        assert axes.get_position().width > 0.3


@pytest.mark.parametrize("number", [1, 2, 13])
def test_a_legend_names_all_lines_beneath_the_axes(number):
    with style("legend"):
        beneath = curve_plot.LINE * -(-number // curve_plot.COLUMNS)
        figure = Figure(figsize=(curve_plot.WIDTH, curve_plot.HEIGHT + beneath))
        axes = figure.add_subplot()
        axes.set_xlabel("fraction of pixels changed")
        fit(axes, beneath=beneath)
        names = [f"guided_gradcam_{place}" for place in range(number)]
        columns = [names[place :: min(number, curve_plot.COLUMNS)] for place in range(min(number, curve_plot.COLUMNS))]
        curve_plot._legend(figure, dict.fromkeys(names, LOOK), columns)
        assert inside(figure)
        boxes = [text.get_window_extent(renderer(figure)) for text in figure.texts]
        assert len(boxes) == number
        assert not any(one.overlaps(other) for at, one in enumerate(boxes) for other in boxes[:at])
        assert max(box.y1 for box in boxes) < axes.xaxis.label.get_window_extent(renderer(figure)).y0
