"""Every query of the dashboard, asked of a real Prometheus that scrapes the running service."""

import math
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from tests.helm.board import QUERIES, VARIABLES, Asked, substituted
from tests.helm.live import Live, live_service
from tests.helm.processes import program
from tests.waiting import wait_until

EVERYTHING = {"namespace": ".*", "job": ".*", "model": ".*", "pod": ".*"}
VIEWS = {
    "everything": EVERYTHING,
    "one pod in Kubernetes": {"namespace": "prod", "job": "genserve", "model": "tiny", "pod": "genserve-0"},
    "compose, without Kubernetes' labels": EVERYTHING | {"job": "compose"},
}
TOLD = {
    "Ready replicas": 1.0,
    "Availability": 1.0,  # what the service refuses is no failure
    "Failures": 0.0,
    "Redis available": 1.0,
    "Unjudged": 0.0,
    "Load failures": 0.0,
}
SECONDS = 60.0  # until a rate over a few scrapes has data


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A service with a shared cache under a little traffic, and the Prometheus that watches it."""
    with live_service(tmp_path_factory.mktemp("live")) as running:
        yield running


@pytest.mark.parametrize("view", VIEWS)
def test_every_query_returns_data(live: Live, view: str) -> None:
    """No panel of a healthy, busy service is empty, whatever is chosen."""
    waiting = dict(enumerate(QUERIES))

    def all_answered() -> bool:
        for index, query in list(waiting.items()):
            if any(math.isfinite(value) for value in _ask(live, query, VIEWS[view])):
                del waiting[index]
        return not waiting

    try:
        wait_until(all_answered, SECONDS)
    except AssertionError:
        pytest.fail("no data: " + "; ".join(f"{query.panel}: {query.expr}" for query in waiting.values()))


@pytest.mark.parametrize("name", [name for name in VARIABLES if name != "datasource"])
def test_every_choice_offers_something(live: Live, name: str) -> None:
    """Each variable's list has what was scraped."""
    text = VARIABLES[name]["query"].removeprefix("label_values(").removesuffix(")")
    metric, label = (part.strip() for part in text.rsplit(",", 1))
    selector = substituted(metric, EVERYTHING, rate_interval="", time_range="")
    wait_until(lambda: live.prometheus(f"/api/v1/label/{label}/values", {"match[]": selector}), SECONDS)
    offered = live.prometheus(f"/api/v1/label/{label}/values", {"match[]": selector})
    assert VIEWS["one pod in Kubernetes"][name] in offered


def test_the_numbers_are_the_service_s(live: Live) -> None:
    """Queries do not only return something: they tell what the traffic was."""
    wait_until(lambda: any(0 < ratio < 1 for ratio in _panel(live, "Hit ratio by tier")), SECONDS)
    wait_until(
        lambda: sum(_panel(live, "Refusals and clients that left")) > 0, SECONDS
    )  # for a model that is not there
    wait_until(lambda: max(_panel(live, "Batch size, mean"), default=0) >= 1, SECONDS)
    told = {**TOLD, "Frechet distance (FD)": live.fd}
    for title, value in told.items():  # a scrape that came too late leaves a panel empty until the next
        wait_until(lambda title=title, value=value: _panel(live, title) == [value], SECONDS)


def test_probes_are_not_traffic(live: Live) -> None:
    """No panel that speaks of clients counts the kubelet's questions or Prometheus' own."""
    for title in ("Requests by route", "Latency by route, p95"):
        (query,) = [query for query in QUERIES if query.panel == title]
        wait_until(lambda query=query: _series(live, query, EVERYTHING), SECONDS)
        routes = {series["metric"]["route"] for series in _series(live, query, EVERYTHING)}
        assert "/sample" in routes
        assert not {route for route in routes if route.startswith(("/health", "/metrics"))}


def test_the_probes_of_the_chart_are_answered(live: Live) -> None:
    """The paths that the chart's probes ask exist, and say yes."""
    assert live.client.get(live.service + "/health/ready").status_code == 200
    assert live.client.get(live.service + "/health/live").status_code == 200


def test_promtool_finds_no_fault_with_the_metrics(live: Live) -> None:
    """Names, units, help texts and types are as Prometheus' own linter wants them."""
    text = live.client.get(live.service + "/metrics").text
    done = subprocess.run(
        [program("promtool"), "check", "metrics"], input=text, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_service_logs_no_error(live: Live) -> None:
    """The traffic of these tests is nothing that the service stumbles over."""
    assert "Traceback" not in live.log.read_text()


def _panel(live: Live, title: str) -> list[float]:
    """The finite values that a panel's only query shows for the pod in Kubernetes."""
    (query,) = [query for query in QUERIES if query.panel == title]
    return [value for value in _ask(live, query, VIEWS["one pod in Kubernetes"]) if math.isfinite(value)]


def _ask(live: Live, query: Asked, choice: dict[str, str]) -> list[float]:
    return [float(series["value"][1]) for series in _series(live, query, choice)]


def _series(live: Live, query: Asked, choice: dict[str, str]) -> list[dict[str, Any]]:
    expr = substituted(query.expr, choice, rate_interval="4s", time_range="5m")  # 4 scrapes, as Grafana has it
    result: list[dict[str, Any]] = live.prometheus("/api/v1/query", {"query": expr})["result"]
    return result
