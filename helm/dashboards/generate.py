"""Writes the chart's Grafana dashboard: python helm/dashboards/generate.py. Knows nothing of single panels."""

from __future__ import annotations

import sys
from pathlib import Path

import rows_inference
import rows_models
import rows_overview
import rows_quality
from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    Panel,
    VariableOption,
    VariableRefresh,
    VariableSort,
)
from panels import DATASOURCE

PATH = Path(__file__).parents[1] / "genserve" / "dashboards" / "genserve.json"


def dashboard_json() -> str:
    """The dashboard as Grafana imports it; the same text at every call."""
    board = build.Dashboard("Genserve").uid("genserve").tags(["genserve", "inference"])
    about = "Genserve: requests, inference, cache, models, their quality, and resources. Explained in its runbook."
    board = board.description(about)
    board = board.time("now-1h", "now").refresh("30s").timezone("browser").editable()
    board = board.tooltip(DashboardCursorSync.CROSSHAIR)
    board = board.with_variable(build.DatasourceVariable("datasource").label("Data source").type("prometheus"))
    for name, query in _variables().items():
        board = board.with_variable(_variable(name, query))
    for title, panels in _sections().items():
        board = board.with_row(build.Row(title))
        for panel in panels:
            board = board.with_panel(panel)
    finished = board.build()
    for number, placed in enumerate(finished.panels or [], start=1):  # the SDK gives none, and links to panels need one
        placed.id_val = number
    return JSONEncoder(sort_keys=True, indent=2).encode(finished) + "\n"


def _sections() -> dict[str, list[Builder[Panel]]]:
    return {
        "Overview": rows_overview.overview(),
        "Inference": rows_inference.inference(),
        "Cache": rows_inference.cache(),
        "Models": rows_models.models(),
        "Quality": rows_quality.quality(),
        "Resources": rows_models.resources(),
    }


def _variables() -> dict[str, str]:
    """Each variable offers what the ones before it leave."""
    chosen = 'namespace=~"$namespace"'
    return {
        "namespace": "label_values(genserve_build_info, namespace)",
        "job": f"label_values(genserve_build_info{{{chosen}}}, job)",
        "model": f'label_values(genserve_model_info{{{chosen}, job=~"$job"}}, model)',
        "pod": f'label_values(genserve_build_info{{{chosen}, job=~"$job"}}, pod)',
    }


def _variable(name: str, query: str) -> build.QueryVariable:
    variable = build.QueryVariable(name).label(name.capitalize()).datasource(DATASOURCE).query(query)
    variable = variable.refresh(VariableRefresh.ON_TIME_RANGE_CHANGED).sort(VariableSort.ALPHABETICAL_ASC)
    everything = VariableOption(selected=True, text=["All"], value=["$__all"])
    return variable.multi(True).include_all(True).current(everything).all_value(".*")  # also what has no such label


if __name__ == "__main__":
    PATH.write_text(dashboard_json(), encoding="utf-8")
    sys.stdout.write(f"{PATH}\n")
