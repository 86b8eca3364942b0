"""The dashboard as a file: generated, complete, and free of the usual mistakes."""

import json
import re
import subprocess
import sys

import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from serving.metrics import Metrics
from tests.helm.board import BOARD, PANELS, PATH, QUERIES, VARIABLES
from tests.helm.chart import ROOT

GRAFANA = {"__rate_interval", "__range"}
NOT_DRAWN = {"python_gc_objects_collected", "python_gc_objects_uncollectable", "python_gc_collections"}
NOT_DRAWN |= {"process_virtual_memory_bytes"}


def test_the_dashboard_is_what_the_generator_writes() -> None:
    """Nobody edits the JSON: the committed file is the generator's text, byte for byte."""
    program = "import generate, sys; sys.stdout.write(generate.dashboard_json())"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT / "helm" / "dashboards", capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == PATH.read_text(), "run: python helm/dashboards/generate.py"


def test_rows_are_the_ones_that_operators_look_for() -> None:
    """The service first, then its inside, then what it runs on."""
    rows = [panel["title"] for panel in BOARD["panels"] if panel["type"] == "row"]
    assert rows == ["Overview", "Inference", "Cache", "Models", "Quality", "Resources"]


def test_every_panel_explains_itself() -> None:
    """A title of its own, a description that is a sentence, an identity, and a unit wherever numbers are drawn."""
    assert len({panel["title"] for panel in PANELS}) == len(PANELS)
    assert len({panel["id"] for panel in BOARD["panels"]}) == len(BOARD["panels"])
    for panel in PANELS:
        assert panel["description"].endswith("."), panel["title"]
        if panel["type"] in {"timeseries", "stat"}:
            assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]


def test_panels_fill_the_width_and_never_overlap() -> None:
    """Every cell of the 24 columns down to the last line belongs to exactly one panel."""
    taken: dict[tuple[int, int], str] = {}
    for panel in BOARD["panels"]:
        place = panel["gridPos"]
        for x in range(place.get("x", 0), place.get("x", 0) + place["w"]):
            for y in range(place.get("y", 0), place.get("y", 0) + place["h"]):
                assert (x, y) not in taken, f"{panel['title']} lies on {taken[x, y]}"
                taken[x, y] = panel["title"]
    height = max(y for _, y in taken) + 1
    assert set(taken) == {(x, y) for x in range(24) for y in range(height)}


def test_no_data_source_is_fixed() -> None:
    """Whatever names a data source names the variable, so that the file can be imported anywhere."""
    named = re.findall(r'"uid": "([^"]*)"', json.dumps(BOARD))
    assert set(named) == {"${datasource}", BOARD["uid"]}


def test_the_choices_narrow_down() -> None:
    """Data source, namespace, job, model and pod can be chosen, and each list follows the choices before it."""
    assert list(VARIABLES) == ["datasource", "namespace", "job", "model", "pod"]
    assert all(VARIABLES[name]["allValue"] == ".*" for name in list(VARIABLES)[1:])
    assert all(VARIABLES[name]["current"]["value"] == ["$__all"] for name in list(VARIABLES)[1:])
    assert "$namespace" in VARIABLES["job"]["query"]
    assert "$job" in VARIABLES["model"]["query"]
    assert "$job" in VARIABLES["pod"]["query"]


@pytest.mark.parametrize("query", QUERIES, ids=lambda query: query.panel)
def test_queries_are_sound(query: object) -> None:
    """Counters are only drawn as rates, over windows that Grafana chooses, filtered by every choice."""
    expr: str = query.expr  # type: ignore[attr-defined]
    counters = re.findall(r"(\w+\()?\w+_(?:total|bucket|sum|count)\{", expr)
    assert set(counters) <= {"rate(", "increase("}, expr
    assert set(re.findall(r"\[([^\]]*)\]", expr)) <= {"$__rate_interval", "$__range"}, expr
    assert set(re.findall(r"\$(\w+)", expr)) <= VARIABLES.keys() | GRAFANA, expr
    for selector in re.findall(r"\{[^}]*\}", expr):
        assert all(f'{label}=~"${label}"' in selector for label in ("namespace", "job", "pod")), expr


def test_every_metric_of_the_service_is_drawn() -> None:
    """What the service publishes is on the dashboard, and the dashboard draws nothing that it does not publish."""
    drawn = {re.sub(r"_(total|bucket|sum|count)$", "", name) for query in QUERIES for name in _metrics(query.expr)}
    published = {family.name for family in _families()} - NOT_DRAWN
    assert drawn - published == set(), "drawn, not published"
    assert published - drawn == set(), "published, not drawn"


def _metrics(expr: str) -> list[str]:
    return re.findall(r"((?:genserve|process)_\w+)\{", expr)


def _families() -> list[Metric]:
    text = Metrics().exposition().decode()
    families = text_string_to_metric_families(text)
    return [f for f in families if not f.name.endswith("_created") and f.name != "python_info"]


def test_the_runbook_lists_every_metric() -> None:
    """docs/operations.md names each metric of the service with its labels, and none that is not there."""
    lines = (ROOT / "docs" / "operations.md").read_text().splitlines()
    told = {}
    for cells in (line.split("|") for line in lines if line.startswith("| `genserve_")):
        told |= {name: cells[2].replace(" ", "") for name in re.findall(r"`(\w+)`", cells[1])}
    ours = [collector for collector in Metrics().__dict__.values() if hasattr(collector, "_labelnames")]
    families = {family.name: family.type for family in _families() if family.name.startswith("genserve_")}
    published = {name + ("_total" if kind == "counter" else "") for name, kind in families.items()}
    assert set(told) == published
    for collector in ours:
        name = collector._name + ("_total" if collector._type == "counter" else "")
        if collector._labelnames and name in told:
            assert told[name] == ",".join(collector._labelnames), name
