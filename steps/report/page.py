"""A page as one HTML file that opens from disk, without a network."""

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from steps.report import figures
from steps.report.blocks import Page

MANY_COLUMNS = 8
"""Tables with more are set in smaller type, so that they fit 1280 pixels."""


def render(page: Page) -> str:
    """Everything but our own script and style, and Bokeh's, is escaped by the template."""
    environment = Environment(
        loader=PackageLoader("steps.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    shown = page.charts()
    code, divisions = figures.embed(shown)
    by_chart = {id(chart): Markup(part) for chart, part in zip(shown, divisions, strict=True)}
    source = environment.loader
    assert source is not None
    style, script = (
        Markup(source.get_source(environment, name)[0]) for name in ("page.css", "page.js")
    )
    return environment.get_template("index.html.j2").render(
        page=page,
        many=MANY_COLUMNS,
        division=lambda chart: by_chart[id(chart)],
        style=style,
        script=script,
        bokeh=Markup(figures.script()) if shown else "",
        bokeh_code=Markup(code),
    )
