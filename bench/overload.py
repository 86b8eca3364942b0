"""Three times the peak, at random times, each with a deadline: what is left of it. Knows no table."""

from bench.load import closed_loop
from bench.open_load import arrivals, open_loop
from bench.stand import GENERATED, Stand
from bench.table import Figures

TIMES = 3.0  # the peak
NUM_IMAGES = 16
DEADLINE_SECONDS = 1.0
HOPELESS_SECONDS = 0.001  # in which no image of any model is done
CONNECTIONS = 16  # of the closed loops
MOST_CONNECTIONS = 512  # of the open one
SERVED, REFUSED = (200,), (429, 504)


def overload(stand: Stand, model: str) -> Figures:
    """Images/s answered within their deadline under three times the peak, over the peak."""
    server = stand.server("plain", model)
    before = stand.drive(server, model, num_images=NUM_IMAGES, connections=CONNECTIONS)
    cpu = rejection_cpu_seconds(stand, model)
    times = arrivals(TIMES * before.rate, DEADLINE_SECONDS + stand.seconds, seed=stand.seeds())
    requests = stand.requests(model, NUM_IMAGES, headers=(f"X-Request-Timeout: {DEADLINE_SECONDS:g}",))
    generated, spent = server.counter(GENERATED), server.cpu_seconds()
    load = stand.load().run(open_loop, server.port, requests, times, connections=MOST_CONNECTIONS)
    generated, spent = server.counter(GENERATED) - generated, server.cpu_seconds() - spent
    after = stand.drive(server, model, num_images=NUM_IMAGES, connections=CONNECTIONS)
    counts = load.counts()
    strange = {status: count for status, count in counts.items() if status not in SERVED + REFUSED}
    stand.check(not strange, f"{model}, overload: answers by status {strange}")
    peak = (before.rate + after.rate) / 2 * NUM_IMAGES
    end = DEADLINE_SECONDS + stand.seconds
    good = load.answered_within(DEADLINE_SECONDS, DEADLINE_SECONDS, end) * NUM_IMAGES / stand.seconds
    rejected = sum(counts.get(status, 0) for status in REFUSED)
    return {
        "figure": good / peak,
        "peak_images_per_second": peak,
        "goodput_images_per_second": good,
        "asked_images_per_second": TIMES * before.rate * NUM_IMAGES,
        "answered_late": counts.get(200, 0) - load.answered_within(DEADLINE_SECONDS, 0, float("inf")),
        "rejected_per_second": rejected / end,
        "rejection_cpu_us": 1e6 * cpu,
        "rejections_share_of_cpu": rejected * cpu / spent,
        "images_generated_in_vain": generated - counts.get(200, 0) * NUM_IMAGES,
        "load_late_p99_ms": 1000 * load.late_seconds,
        "statuses": {str(status): count for status, count in counts.items()},
    }


def rejection_cpu_seconds(stand: Stand, model: str) -> float:
    """The server's CPU time for one refusal, from a closed loop of requests that cannot be done in time."""
    server = stand.server("plain", model)
    requests = stand.requests(model, NUM_IMAGES, headers=(f"X-Request-Timeout: {HOPELESS_SECONDS:g}",))
    spent = server.cpu_seconds()
    load = stand.load().run(closed_loop, server.port, requests, connections=CONNECTIONS, seconds=stand.seconds / 2)
    spent = server.cpu_seconds() - spent
    refused = sum(load.failures.get(str(status), 0) for status in REFUSED)
    stand.check(load.answered == 0 and refused == sum(load.failures.values()), f"{model}, hopeless: {load.failures}")
    return spent / max(1, refused)
