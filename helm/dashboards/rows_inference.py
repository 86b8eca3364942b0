"""The rows about the engine, its queue and the cache. Knows nothing of models or machines."""

from __future__ import annotations

from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models.dashboard import Panel
from panels import Query, distribution, lines
from queries import EACH, POD, WINDOW, quantile


def inference() -> list[Builder[Panel]]:
    """Where does the time go, how full are batches, how long is the queue?"""
    stage = "genserve_stage_duration_seconds"
    batch = f"genserve_batch_size_images_bucket{{{POD}}}"
    rejected = f"rate(genserve_queue_rejected_images_total{{{POD}}}[{WINDOW}])"
    mean = "sum(rate(genserve_batch_size_images_{}{{" + POD + "}}[" + WINDOW + "]))"
    return [
        lines(
            "Time by stage, median",
            "Half of the work passes a stage within this time: waiting in the queue, running on the engine, encoding.",
            [Query(expr=quantile(0.5, stage, POD, by="stage"), legend="{{stage}}")],
            unit="s",
            width=12,
        ),
        lines(
            "Time by stage, p95",
            "A long queue with a quick engine asks for replicas; a slow engine for larger batches or other hardware.",
            [Query(expr=quantile(0.95, stage, POD, by="stage"), legend="{{stage}}")],
            unit="s",
            width=12,
        ),
        lines(
            "Batch size, mean",
            "Images in each call of the engine, averaged over the rate interval.",
            [Query(expr=f"{mean.format('sum')} / {mean.format('count')}", legend="images in a batch")],
            unit="suffix:images",
            width=8,
        ),
        _queue(),
        lines(
            "Refused by the queue",
            "Images a second that were not run: the queue was full or too long for their time, or their time was over.",
            [Query(expr=f"sum by (reason) ({rejected}) or on() vector(0)", legend="{{reason}}")],
            unit="suffix:images/s",
            width=8,
        ),
        distribution(
            "Batch sizes",
            "How often the engine is called with how many images. One bright band at the top: the batch is the limit.",
            Query(expr=f"sum by (le) (increase({batch}[{WINDOW}]))", legend="{{le}}"),
            unit="suffix:images",
            width=8,
        ),
        lines(
            "Time to empty the queue",
            "By the engines' measured speed. Who has less time is refused with 429 and told when to come back.",
            [Query(expr=f"max by (pod, instance) (genserve_queue_wait_seconds{{{POD}}})", legend=EACH)],
            unit="s",
            width=8,
        ),
        lines(
            "Requests in progress",
            "Requests that have arrived and are not answered yet.",
            [Query(expr=f"sum by (pod, instance) (genserve_requests_in_progress{{{POD}}})", legend=EACH)],
            unit="suffix:requests",
            width=8,
        ),
    ]


def _queue() -> Builder[Panel]:
    return lines(
        "Queue",
        "Images that wait, in the fullest replica, and the bound above which requests are refused with 429.",
        [
            Query(expr=f"max(genserve_queue_images{{{POD}}})", legend="waiting"),
            Query(expr=f"min(genserve_queue_limit_images{{{POD}}})", legend="limit"),
        ],
        unit="suffix:images",
        width=8,
        limit="limit",
    )


def cache() -> list[Builder[Panel]]:
    """Does the cache help, and is it there?"""
    looked_up = f"rate(genserve_cache_requests_total{{{POD}}}[{WINDOW}])"
    hits = f'rate(genserve_cache_requests_total{{{POD}, result="hit"}}[{WINDOW}])'
    errors = f'rate(genserve_cache_requests_total{{{POD}, result="error"}}[{WINDOW}])'
    every = f"sum by (tier) ({looked_up})"
    return [
        lines(
            "Hit ratio by tier",
            "Share of the images looked up in a tier that were found there. Redis is asked only for what is not local.",
            [Query(expr=f"(sum by (tier) ({hits}) or {every} * 0) / ({every} > 0)", legend="{{tier}}")],
            unit="percentunit",
            width=8,
        ),
        lines(
            "Lookups",
            "Images a second looked up, by tier and result.",
            [Query(expr=f"sum by (tier, result) ({looked_up})", legend="{{tier}} {{result}}")],
            unit="suffix:images/s",
            width=8,
            stacked=True,
        ),
        lines(
            "Cache errors",
            "Lookups a second that failed. Requests are answered all the same: the images are computed.",
            [Query(expr=f"sum by (tier) ({errors}) or on() vector(0)", legend="{{tier}}")],
            unit="suffix:images/s",
            width=8,
        ),
        lines(
            "Bytes held",
            "Bytes in the local tier of each replica, bounded by GENSERVE_CACHE_BYTES.",
            [Query(expr=f"sum by (pod, instance) (genserve_cache_bytes{{{POD}}})", legend=EACH)],
            unit="bytes",
            width=8,
        ),
        lines(
            "Entries",
            "Entries in the local tier of each replica.",
            [Query(expr=f"sum by (pod, instance) (genserve_cache_entries{{{POD}}})", legend=EACH)],
            unit="short",
            width=8,
        ),
        lines(
            "Redis available",
            "1 while a replica uses Redis, 0 while it does without. No data: no Redis is configured.",
            [Query(expr=f'min by (pod, instance) (genserve_cache_available{{{POD}, tier="redis"}})', legend=EACH)],
            unit="bool_yes_no",
            width=8,
        ),
        *_stock(),
    ]


def _stock() -> list[Builder[Panel]]:
    served = f"rate(genserve_stock_served_total{{{POD}}}[{WINDOW}])"
    return [
        lines(
            "Stock",
            "Images made ahead and ready, by model. It empties in a burst, and fills while an engine is idle.",
            [Query(expr=f"sum by (model) (genserve_stock_images{{{POD}}}) or on() vector(0)", legend="{{model}}")],
            unit="suffix:images",
            width=12,
        ),
        lines(
            "Answered from the stock",
            "Requests a second without a seed that found an image ready.",
            [Query(expr=f"sum by (model) ({served}) or on() vector(0)", legend="{{model}}")],
            unit="suffix:images/s",
            width=12,
        ),
    ]
