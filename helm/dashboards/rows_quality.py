"""The row about what models and candidates make. Knows nothing of requests."""

from __future__ import annotations

from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models.dashboard import Panel
from panels import Query, lines
from queries import EACH, MODEL, WINDOW


def quality() -> list[Builder[Panel]]:
    """Do models still make what they were promoted for, and what would candidates make?"""
    return [*_monitor(), *_shadow()]


def _monitor() -> list[Builder[Panel]]:
    each = "by (model, pod, instance)"
    fd = f'avg {each} (genserve_monitor_fd{{{MODEL}, bound="%s"}})'
    drawn = f"sum by (model) (rate(genserve_monitor_images_total{{{MODEL}}}[{WINDOW}]))"
    alarms = f"sum by (model) (increase(genserve_monitor_alarms_total{{{MODEL}}}[{WINDOW}]))"
    return [
        lines(
            "Distance of fresh samples",
            "Frechet distance of what is made now to the promotion's real samples, with its 95 % interval, and what "
            "the verdict found.",
            [
                Query(expr=fd % "value", legend=f"{{{{model}}}} {EACH}"),
                Query(expr=fd % "low", legend=f"{{{{model}}}} {EACH} low"),
                Query(expr=fd % "high", legend=f"{{{{model}}}} {EACH} high"),
                Query(expr=f"max by (model) (genserve_monitor_fd_expected{{{MODEL}}})", legend="{{model}} expected"),
            ],
            unit="short",
            width=8,
        ),
        lines(
            "Evidence against a model",
            "1 is an alarm: its samples have become worse. A healthy model reaches it once a week at most.",
            [Query(expr=f"max {each} (genserve_monitor_evidence{{{MODEL}}})", legend=f"{{{{model}}}} {EACH}")],
            unit="percentunit",
            width=8,
        ),
        lines(
            "Quality alarms",
            "Alarm: from an alarm until fresh samples of the reloaded model are well. Unfit: a reload did not help, "
            "and the replica is not ready.",
            [
                Query(expr=f"max {each} (genserve_monitor_alarm{{{MODEL}}})", legend=f"{{{{model}}}} {EACH} alarm"),
                Query(expr=f"max {each} (genserve_monitor_unfit{{{MODEL}}})", legend=f"{{{{model}}}} {EACH} unfit"),
                Query(expr=alarms, legend="{{model}} alarms raised"),
            ],
            unit="none",
            width=4,
        ),
        lines(
            "Fresh samples looked at",
            "Samples a second that the monitor drew in idle time; none under load.",
            [Query(expr=drawn, legend="{{model}}")],
            unit="suffix:images/s",
            width=4,
        ),
    ]


def _shadow() -> list[Builder[Panel]]:
    def rate(name: str) -> str:
        return f"sum by (model) (rate(genserve_shadow_{name}_total{{{MODEL}}}[{WINDOW}])) or on() vector(0)"

    seconds = "genserve_shadow_image_seconds"
    spent = f"sum by (model, role) (rate({seconds}_sum{{{MODEL}}}[{WINDOW}]))"
    images = f"sum by (model, role) (rate({seconds}_count{{{MODEL}}}[{WINDOW}]))"
    level = f"avg by (model, role) (genserve_shadow_level_%s{{{MODEL}}}) or on() vector(0)"
    which = f"on (model, namespace, pod, instance) group_left (version) genserve_shadow_info{{{MODEL}}}"
    memory = f"max by (model, version) (genserve_shadow_memory_bytes{{{MODEL}}} * {which})"
    fd = f'avg by (model) (genserve_shadow_fd{{{MODEL}, bound="%s"}}) or on() vector(0)'
    return [
        lines(
            "Candidates: images",
            "Images a second that candidates ran beside their champions, that were dropped for want of idle time, and "
            "runs that failed.",
            [
                Query(expr=rate("images"), legend="{{model}}"),
                Query(expr=rate("dropped_images"), legend="{{model}} dropped"),
                Query(expr=rate("errors"), legend="{{model}} failed"),
            ],
            unit="suffix:images/s",
            width=6,
        ),
        lines(
            "Candidates: time of an image",
            "Mean engine time of an image of the same requests, by champion and candidate.",
            [Query(expr=f"{spent} / {images}", legend="{{model}} {{role}}")],
            unit="s",
            width=6,
        ),
        lines(
            "Candidates: levels",
            "Mean and standard deviation of all values of the same images: who is darker or flatter shows.",
            [
                Query(expr=level % "mean", legend="{{model}} {{role}} mean"),
                Query(expr=level % "deviation", legend="{{model}} {{role}} deviation"),
            ],
            unit="short",
            width=4,
        ),
        lines(
            "Candidates: distance",
            "Frechet distance of the candidate's samples to the champion's real ones, with its 95 % interval; 0 until "
            "it is known.",
            [
                Query(expr=fd % "value", legend="{{model}}"),
                Query(expr=fd % "low", legend="{{model}} low"),
                Query(expr=fd % "high", legend="{{model}} high"),
            ],
            unit="short",
            width=4,
        ),
        lines(
            "Candidates: memory",
            "By which loading candidates made the replicas larger.",
            [Query(expr=f"{memory} or on() vector(0)", legend="{{model}}@{{version}}")],
            unit="bytes",
            width=4,
        ),
    ]
