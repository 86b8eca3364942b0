"""The row that says whether clients are served well. Knows nothing of the inside."""

from __future__ import annotations

from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models.dashboard import Panel
from panels import AMBER, GREEN, RED, Query, Step, lines, number
from queries import CALLS, MODEL, POD, WINDOW, quantile


def overview() -> list[Builder[Panel]]:
    """Is the service well, and what do its clients see?"""
    return [*_overview_numbers(), *_overview_lines()]


def _overview_numbers() -> list[Builder[Panel]]:
    served = f"sum(increase(genserve_requests_total{{{CALLS}}}[$__range]))"
    failed = f'sum(increase(genserve_requests_total{{{CALLS}, status=~"5.."}}[$__range]))'
    return [
        number(
            "Availability",
            "Share of the requests in the shown time range that were not answered with 5xx. "
            "Probes, /metrics and what the service refuses (4xx, 429) are not failures.",
            Query(expr=f"1 - ({failed} or on() vector(0)) / ({served} > 0)"),
            unit="percentunit",
            width=4,
            decimals=3,
            steps=[Step(value=None, colour=RED), Step(value=0.99, colour=AMBER), Step(value=0.999, colour=GREEN)],
            empty="no requests",
        ),
        number(
            "Ready replicas",
            "Replicas that are loaded, warmed up and not draining.",
            Query(expr=f"sum(genserve_ready{{{POD}}})"),
            unit="short",
            width=4,
            steps=[Step(value=None, colour=RED), Step(value=1, colour=GREEN)],
            empty="none",
        ),
        number(
            "Requests",
            "Requests a second, without probes and /metrics.",
            Query(expr=f"sum(rate(genserve_requests_total{{{CALLS}}}[{WINDOW}]))"),
            unit="reqps",
            width=4,
        ),
        number(
            "Images",
            "Images a second that were handed to clients, from the engine or from the cache.",
            Query(expr=f"sum(rate(genserve_images_served_total{{{MODEL}}}[{WINDOW}]))"),
            unit="suffix:images/s",
            width=4,
        ),
        number(
            "Latency, p95",
            "95 of 100 requests were answered within this time, over all routes but the probes.",
            Query(expr=quantile(0.95, "genserve_request_duration_seconds", CALLS)),
            unit="s",
            width=4,
            empty="no requests",
        ),
        number(
            "Version",
            "Replicas of each version of the service: more than one only during a roll-out.",
            Query(expr=f"count by (version) (genserve_build_info{{{POD}}})", legend="{{version}}"),
            unit="short",
            width=4,
        ),
    ]


def _overview_lines() -> list[Builder[Panel]]:
    by_route = [
        lines(
            f"Latency by route, {name}",
            f"{share} of the requests of a route were answered within this time. Gaps: no requests.",
            [Query(expr=quantile(level, "genserve_request_duration_seconds", CALLS, by="route"), legend="{{route}}")],
            unit="s",
            width=8,
        )
        for level, name, share in ((0.5, "median", "Half"), (0.95, "p95", "95 of 100"), (0.99, "p99", "99 of 100"))
    ]
    count = f"rate(genserve_requests_total{{{CALLS}}}[{WINDOW}])"
    errors = f'rate(genserve_requests_total{{{CALLS}, status=~"5.."}}[{WINDOW}])'
    refused = f'rate(genserve_requests_total{{{CALLS}, status=~"4.."}}[{WINDOW}])'
    return [
        lines(
            "Requests by route",
            "Requests a second by route template and method.",
            [Query(expr=f"sum by (method, route) ({count})", legend="{{method}} {{route}}")],
            unit="reqps",
            width=8,
            stacked=True,
        ),
        lines(
            "Failures",
            "Answers with 5xx a second, by route. Flat at zero is how it should be.",
            [Query(expr=f"sum by (route, status) ({errors}) or on() vector(0)", legend="{{status}} {{route}}")],
            unit="reqps",
            width=8,
        ),
        lines(
            "Refusals and clients that left",
            "Answers with 4xx a second: bad input, unknown models, a full queue (429); 499 is a client that left.",
            [Query(expr=f"sum by (route, status) ({refused}) or on() vector(0)", legend="{{status}} {{route}}")],
            unit="reqps",
            width=8,
        ),
        *by_route,
    ]
