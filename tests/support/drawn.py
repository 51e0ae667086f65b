"""Where texts of a figure lie, by the renderer that the report's charts are drawn with."""

import io

from matplotlib.backends.backend_svg import RendererSVG
from matplotlib.figure import Figure


def renderer(figure: Figure) -> RendererSVG:
    figure.dpi = 72  # that of an SVG
    return RendererSVG(*figure.bbox.size, io.StringIO())


def inside(figure: Figure) -> bool:
    box = figure.get_tightbbox(renderer(figure))
    width, height = figure.get_size_inches()
    return box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height
