"""The rows about what is served and on what. Knows nothing of requests."""

from __future__ import annotations

from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models.dashboard import Panel
from panels import Query, lines, rows_of
from queries import EACH, MODEL, POD, WINDOW


def models() -> list[Builder[Panel]]:
    """What is served, how much of it, how good is it?"""
    return [*_models_served(), *_models_trust()]


def _models_served() -> list[Builder[Panel]]:
    labels = "model, version, digest, provider, numerics"
    headings = [(label, label.capitalize()) for label in labels.split(", ")]
    made = f"sum by (model) (rate(genserve_images_generated_total{{{MODEL}}}[{WINDOW}]))"
    given = f"sum by (model) (rate(genserve_images_served_total{{{MODEL}}}[{WINDOW}]))"
    return [
        lines(
            "Images served by model",
            "Images a second that were handed to clients.",
            [Query(expr=given, legend="{{model}}")],
            unit="suffix:images/s",
            width=8,
            stacked=True,
        ),
        lines(
            "Images computed by model",
            "Images a second that the engine ran. The rest of what was served came from the cache or was shared.",
            [Query(expr=made, legend="{{model}}")],
            unit="suffix:images/s",
            width=8,
            stacked=True,
        ),
        lines(
            "Age of the loaded version",
            "Time since a replica loaded what it serves: a drop to zero is a promotion or a start.",
            [
                Query(
                    expr=f"time() - max by (model, pod, instance) (genserve_model_loaded_timestamp_seconds{{{MODEL}}})",
                    legend=f"{{{{model}}}} {EACH}",
                )
            ],
            unit="s",
            width=8,
        ),
        rows_of(
            "Models",
            "What the replicas serve now. Two versions of a model: a promotion is on its way. Two numerics: replicas "
            "on different hardware, whose pixels may differ by rounding.",
            Query(expr=f"count by ({labels}) (genserve_model_info{{{MODEL}}})"),
            columns=headings,
            value="Replicas",
            width=24,
        ),
    ]


def _models_trust() -> list[Builder[Panel]]:
    failures = f"sum by (model) (increase(genserve_model_load_failures_total{{{MODEL}}}[{WINDOW}]))"
    fd = f"max by (model, version, extractor) (genserve_model_fd{{{MODEL}}})"
    return [
        lines(
            "Frechet distance (FD)",
            "From the gate's verdict on the served version; smaller is better; only comparable within one extractor.",
            [Query(expr=fd, legend="{{model}}@{{version}} [{{extractor}}]")],
            unit="short",
            width=6,
        ),
        lines(
            "Unjudged",
            "1 where a model without a passing verdict is served (GENSERVE_ALLOW_UNJUDGED).",
            [Query(expr=f"max by (model) (genserve_model_unjudged{{{MODEL}}})", legend="{{model}}")],
            unit="bool_yes_no",
            width=6,
        ),
        lines(
            "Load failures",
            "Versions that were to be loaded and were refused; the one before keeps serving.",
            [Query(expr=f"{failures} or on() vector(0)", legend="{{model}}")],
            unit="short",
            width=6,
        ),
        lines(
            "Fallbacks",
            "1 where the wanted execution provider is missing, or the variant that a promotion promised cannot run.",
            [
                Query(expr=f"max by (pod, instance) (genserve_provider_fallback{{{POD}}})", legend=EACH),
                Query(expr=f"max by (model) (genserve_variant_fallback{{{MODEL}}})", legend="variant of {{model}}"),
            ],
            unit="bool_yes_no",
            width=6,
        ),
    ]


def resources() -> list[Builder[Panel]]:
    """What does each replica use, and is it in service?"""
    per_pod = "sum by (pod, instance)"
    files = f"{per_pod} (process_max_fds{{{POD}}})"
    restarts = f"genserve_worker_restarts_total{{{POD}}}[{WINDOW}]"
    return [
        lines(
            "CPU",
            "Cores that each replica keeps busy.",
            [Query(expr=f"{per_pod} (rate(process_cpu_seconds_total{{{POD}}}[{WINDOW}]))", legend=EACH)],
            unit="suffix:cores",
            width=8,
        ),
        lines(
            "Memory",
            "Resident memory of each replica.",
            [Query(expr=f"{per_pod} (process_resident_memory_bytes{{{POD}}})", legend=EACH)],
            unit="bytes",
            width=8,
        ),
        lines(
            "Open files",
            "Share of the file descriptors that a replica may open.",
            [Query(expr=f"{per_pod} (process_open_fds{{{POD}}}) / {files}", legend=EACH)],
            unit="percentunit",
            width=8,
        ),
        lines(
            "Ready",
            "1 while a replica answers its readiness probe with yes.",
            [Query(expr=f"min by (pod, instance) (genserve_ready{{{POD}}})", legend=EACH)],
            unit="bool_yes_no",
            width=6,
        ),
        lines(
            "Draining",
            "1 from SIGTERM until the replica has answered its last request.",
            [Query(expr=f"max by (pod, instance) (genserve_draining{{{POD}}})", legend=EACH)],
            unit="bool_yes_no",
            width=6,
        ),
        lines(
            "HTTP processes",
            "Up in each replica; restarts are processes that ended unasked.",
            [
                Query(expr=f"min by (pod, instance) (genserve_workers{{{POD}}})", legend=EACH),
                Query(expr=f"{per_pod} (increase({restarts}))", legend=f"{EACH} restarts"),
            ],
            unit="none",
            width=6,
        ),
        lines(
            "Uptime",
            "Time since each replica started: saw teeth are restarts.",
            [Query(expr=f"time() - min by (pod, instance) (process_start_time_seconds{{{POD}}})", legend=EACH)],
            unit="s",
            width=6,
        ),
    ]
