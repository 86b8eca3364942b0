"""The few kinds of panels that the dashboard is made of. Knows nothing of Genserve's metrics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from grafana_foundation_sdk.builders import common, heatmap, prometheus, stat, table, timeseries
from grafana_foundation_sdk.builders.dashboard import ThresholdsConfig
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import common as options
from grafana_foundation_sdk.models.dashboard import (
    DataSourceRef,
    DataTransformerConfig,
    DynamicConfigValue,
    Panel,
    Threshold,
    ThresholdsMode,
)
from grafana_foundation_sdk.models.heatmap import HeatmapColorMode
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

DATASOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")  # whatever the variable names, never a fixed uid
GREEN, AMBER, RED = "green", "orange", "red"


@dataclass(frozen=True, kw_only=True)
class Query:
    """One PromQL expression and how its series are called in the legend."""

    expr: str
    legend: str = ""


@dataclass(frozen=True, kw_only=True)
class Step:
    """From `value` on a panel has this colour; None is the lowest step."""

    value: float | None
    colour: str


def lines(
    title: str,
    description: str,
    queries: Sequence[Query],
    *,
    unit: str,
    width: int,
    stacked: bool = False,
    limit: str = "",
) -> Builder[Panel]:
    """A time series from zero up, with the newest value and the maximum in its legend.

    Args:
        title: the panel's heading.
        description: what the reader should know.
        queries: what is drawn.
        unit: Grafana's name of the unit.
        width: in the dashboard's 24 columns.
        stacked: series on top of each other; only where their sum means something.
        limit: the legend of a series that is a limit, not a measurement: dashed, without a fill.
    """
    legend = common.VizLegendOptions().display_mode(options.LegendDisplayMode.TABLE)
    legend = legend.placement(options.LegendPlacement.BOTTOM).show_legend(True).calcs(["lastNotNull", "max"])
    tooltip = common.VizTooltipOptions().mode(options.TooltipDisplayMode.MULTI).sort(options.SortOrder.DESCENDING)
    panel = timeseries.Panel().title(title).description(description).span(width).height(8).datasource(DATASOURCE)
    panel = panel.unit(unit).min(0).legend(legend).tooltip(tooltip).show_points(options.VisibilityMode.NEVER)
    panel = panel.line_width(1).fill_opacity(30 if stacked else 8)
    if stacked:
        panel = panel.stacking(common.StackingConfig().mode(options.StackingMode.NORMAL))
    if limit:
        dashes = DynamicConfigValue(id_val="custom.lineStyle", value={"fill": "dash", "dash": [8, 6]})
        panel = panel.override_by_name(limit, [dashes, DynamicConfigValue(id_val="custom.fillOpacity", value=0)])
    for index, query in enumerate(queries):
        panel = panel.with_target(_target(query, index))
    return panel


def number(
    title: str,
    description: str,
    query: Query,
    *,
    unit: str,
    width: int,
    steps: Sequence[Step] = (),
    empty: str = "-",
    decimals: int | None = None,
) -> Builder[Panel]:
    """One number, coloured by `steps`; `empty` is what is said where there is no data."""
    panel = stat.Panel().title(title).description(description).unit(unit).span(width).height(4).datasource(DATASOURCE)
    panel = panel.no_value(empty).reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    panel = panel.graph_mode(options.BigValueGraphMode.NONE).color_mode(options.BigValueColorMode.VALUE)
    if query.legend:
        panel = panel.text_mode(options.BigValueTextMode.VALUE_AND_NAME)
    if decimals is not None:
        panel = panel.decimals(decimals)
    thresholds = [Threshold(value=step.value, color=step.colour) for step in steps] or [Threshold(color="text")]
    panel = panel.thresholds(ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(thresholds))
    return panel.with_target(_target(query, 0).instant())


def rows_of(
    title: str, description: str, query: Query, *, columns: Sequence[tuple[str, str]], width: int, value: str = ""
) -> Builder[Panel]:
    """A table with one line for each series.

    Args:
        title: the panel's heading.
        description: what the reader should know.
        query: an instant query.
        columns: (label, heading), in order; other labels are not shown.
        width: in the dashboard's 24 columns.
        value: the heading of the series' value; "" hides it.
    """
    names = dict(columns) | {"Value": value}
    order = {name: index for index, name in enumerate(names)}
    hidden = {"Time": True} | ({} if value else {"Value": True})
    organize = DataTransformerConfig(
        id_val="organize", options={"renameByName": names, "indexByName": order, "excludeByName": hidden}
    )
    panel = table.Panel().title(title).description(description).span(width).height(8).datasource(DATASOURCE)
    return panel.with_target(_target(query, 0).instant().format(PromQueryFormat.TABLE)).with_transformation(organize)


def distribution(title: str, description: str, query: Query, *, unit: str, width: int) -> Builder[Panel]:
    """A heat map of a histogram's buckets over time; the query must rate the buckets and keep `le`."""
    colours = heatmap.HeatmapColorOptions().mode(HeatmapColorMode.SCHEME).scheme("Oranges").steps(64)
    panel = heatmap.Panel().title(title).description(description).span(width).height(8).datasource(DATASOURCE)
    panel = panel.calculate(False).y_axis(heatmap.YAxisConfig().unit(unit)).color(colours).hide_legend()
    return panel.with_target(_target(query, 0).format(PromQueryFormat.HEATMAP))


def _target(query: Query, index: int) -> prometheus.Dataquery:
    target = prometheus.Dataquery().expr(query.expr).ref_id(chr(ord("A") + index)).datasource(DATASOURCE)
    return target.legend_format(query.legend or "__auto")
