"""Reads the committed dashboard: its panels, its queries, its variables. Knows nothing of Prometheus."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tests.helm.chart import CHART

PATH = CHART / "dashboards" / "genserve.json"
BOARD: dict[str, Any] = json.loads(PATH.read_text())
PANELS: list[dict[str, Any]] = [panel for panel in BOARD["panels"] if panel["type"] != "row"]
VARIABLES: dict[str, dict[str, Any]] = {variable["name"]: variable for variable in BOARD["templating"]["list"]}


@dataclass(frozen=True)
class Asked:
    """One query of one panel."""

    panel: str
    expr: str
    instant: bool


QUERIES = [
    Asked(panel["title"], target["expr"], target.get("instant", False))
    for panel in PANELS
    for target in panel["targets"]
]


def substituted(text: str, values: Mapping[str, str], *, rate_interval: str, time_range: str) -> str:
    """A query as Grafana sends it, with the variables' values put in."""
    text = text.replace("$__rate_interval", rate_interval).replace("$__range", time_range)
    for name, value in values.items():
        text = text.replace(f"${name}", value)
    return text
