"""The batching policy, alone and on engines of virtual time."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench.simulation import Client, Network, Simulation, best_rate
from serving.errors import DeadlineExceeded, QueueFull, QueueTooLong
from serving.schedule import Deadline, Schedule, Ticket
from serving.speed import Speed

CHUNK = 16  # images that the fast network makes in 5 ms


def fast():
    return Network(0.0002, 0.0003)


def slow():
    return Network(0.0, 0.004)


def schedule(*, queue=1000, batch=16, engines=1):
    return Schedule(max_queue_images=queue, max_batch_images=batch, engines=engines)


def ticket(images, group, at=1e9):
    return Ticket(group, images, Deadline(at))


def put(queue, *tickets, now=0.0):
    for one in tickets:
        queue.add(one, now)
    return tickets if len(tickets) > 1 else tickets[0]


def take(queue, now=0.0):
    """The pieces of the next batch, which ends at once."""
    batch = queue.take(now)
    queue.done(batch)
    return [(piece.ticket, piece.start, piece.stop) for piece in batch.pieces]


# What is in a batch.


def test_a_lone_image_runs_at_once():
    """Nothing is held back to fill a batch."""
    queue = schedule()
    one = put(queue, ticket(1, fast()))
    assert take(queue) == [(one, 0, 1)]


def test_what_waits_is_spread_over_idle_engines():
    """16 images and two idle engines: eight each."""
    queue = schedule(engines=2)
    one = put(queue, ticket(16, fast()))
    first, second = queue.take(0.0), queue.take(0.0)
    assert [list(batch.pieces) for batch in (first, second)] == [[(one, 0, 8)], [(one, 8, 16)]]


def test_a_batch_is_bounded_in_time_and_in_images():
    """16 of the fast network's images take 5 ms, two of the slow one's 8 ms, and the setting is a bound of its own."""
    for network, batch, images in ((fast(), 64, 16), (slow(), 64, 2), (fast(), 4, 4)):
        queue = schedule(batch=batch)
        one = put(queue, ticket(256, network))
        assert take(queue) == [(one, 0, images)]


def test_short_tickets_alone_fill_a_batch():
    """20 single images of the slow network, whose chunk is 2: the 10 of 40 ms; when a long one waits too, 2."""
    queue, network = schedule(), slow()
    short = put(queue, *[ticket(1, network) for _ in range(20)])
    assert [one for one, _, _ in take(queue)] == list(short[:10])
    long = put(queue, ticket(256, network, 1.0e8))
    assert [one for one, _, _ in take(queue)] == list(short[10:12])
    assert take(queue) == [(long, 0, 2)]
    queue, network = schedule(), fast()
    short = put(queue, *[ticket(1, network) for _ in range(20)])
    assert [one for one, _, _ in take(queue)] == list(short[:16])


def test_short_tickets_pass_a_long_one_and_leave_it_every_other_batch():
    """Single images that come after 256 have the next batch for themselves; then it is the long one's turn again."""
    queue, network = schedule(), fast()
    long = put(queue, ticket(256, network))
    assert take(queue) == [(long, 0, CHUNK)]
    short = put(queue, *[ticket(1, network) for _ in range(20)])
    assert [one for one, _, _ in take(queue)] == list(short[:16])
    assert take(queue) == [(long, 16, 32)]
    assert [one for one, _, _ in take(queue)] == list(short[16:])
    assert take(queue) == [(long, 32, 48)]


def test_where_images_cost_less_than_the_batch_short_and_long_ones_share_it():
    """A GPU: 4 ms for a batch, 0.1 ms for an image. One single image is filled up to 40."""
    queue, network = schedule(batch=64), Network(0.004, 0.0001)
    long = put(queue, ticket(256, network))
    take(queue)
    short = put(queue, ticket(1, network))
    assert take(queue) == [(short, 0, 1), (long, 42, 81)]


def test_long_tickets_are_done_one_after_another():
    """Two of 64: the first is done before the second begins."""
    queue, network = schedule(), fast()
    first, second = put(queue, ticket(64, network, 100.0), ticket(64, network, 200.0))
    assert [take(queue)[0][0] for _ in range(8)] == [first] * 4 + [second] * 4


def test_earliest_deadline_first_among_equals():
    """Whatever the order of arrival; a deadline that was extended counts as it is now."""
    queue, network = schedule(batch=1), fast()
    late, early, extended = put(queue, ticket(1, network, 9.0), ticket(1, network, 8.0), ticket(1, network, 7.0))
    extended.deadline.extend(10.0)
    assert [take(queue)[0][0] for _ in range(3)] == [early, late, extended]


def test_groups_never_share_a_batch_and_take_turns():
    """A model whose requests are always earlier does not starve the other."""
    queue, a, b = schedule(), fast(), slow()
    put(queue, *[ticket(64, a, 100.0) for _ in range(4)], ticket(4, b, 1000.0))
    groups = [{one.group for one, _, _ in take(queue)} for _ in range(4)]
    assert groups == [{a}, {b}, {a}, {b}]


# What does not run.


def test_the_bound_counts_images():
    """One request of 6 fits beside 4, one of 7 does not; what runs makes room; Retry-After is the time to drain."""
    queue, network = schedule(queue=10), Network(0.0, 1.0)
    put(queue, ticket(4, network))
    with pytest.raises(QueueFull) as error:
        queue.add(ticket(7, network), 0.0)
    assert (error.value.status, error.value.retry_after) == (429, 1)
    put(queue, ticket(6, network))
    with pytest.raises(QueueFull) as error:
        queue.add(ticket(7, network), 0.0)
    assert error.value.retry_after_seconds == pytest.approx(7.0)
    take(queue)
    put(queue, ticket(2, network))
    assert queue.waiting == 10


def test_what_was_admitted_before_is_not_refused():
    """Neither for the bound nor for the time."""
    queue, network = schedule(queue=10), Network(0.0, 1.0)
    put(queue, ticket(10, network))
    again = ticket(4, network, at=1.0)
    again.admitted = True
    put(queue, again)
    assert queue.waiting == 14


def test_removed_images_never_run():
    """What has started stays; the rest is gone, even many of them."""
    queue, network = schedule(), fast()
    gone = put(queue, ticket(40, network))
    take(queue)
    stays = put(queue, ticket(2, network))
    assert (queue.remove(gone), queue.remove(gone)) == (24, 0)
    many = put(queue, *[ticket(1, network) for _ in range(500)])
    assert sum(queue.remove(one) for one in many) == 500
    assert take(queue) == [(stays, 0, 2)]
    assert queue.waiting == 0


def test_who_would_be_late_is_refused_and_told_when_to_come_back():
    """Ten seconds' work waits: four seconds' more that must be sent after 12.5 s would be 1.52 s late."""
    queue, network = schedule(), Network(0.0, 1.0)
    put(queue, ticket(10, network, 112.0), now=100.0)
    with pytest.raises(QueueTooLong) as error:
        put(queue, ticket(4, network, 112.5), now=100.0)
    assert error.value.retry_after_seconds == pytest.approx(1.52)
    assert (error.value.status, error.value.retry_after, queue.waiting) == (429, 2, 10)
    put(queue, ticket(4, network, 112.5 + error.value.retry_after), now=100.0)


def test_who_is_due_before_others_waits_only_for_those_before_it():
    """Ten seconds' work that has a minute does not keep out a request of one second; one that would make it late is."""
    queue, network = schedule(), Network(0.0, 0.1)
    patient = put(queue, ticket(100, network, 60.0))
    hasty = put(queue, ticket(4, network, 1.0))
    assert take(queue)[0][0] is hasty
    assert queue.remove(patient) == 100
    put(queue, ticket(100, network, 10.5))
    with pytest.raises(QueueTooLong):
        put(queue, ticket(8, network, 2.0))


def test_what_is_too_much_even_alone_is_a_deadline_exceeded_and_doubted():
    """Coming back later would not help, so it is no 429; an idle engine's estimate is tried again in the end."""
    queue, network = schedule(), Network(0.0, 0.1, speed=Speed(0.0, 1.0))
    for _ in range(100):
        try:
            put(queue, ticket(1, network, 0.5))
        except DeadlineExceeded:
            continue
        break
    assert queue.waiting == 1


def test_no_number_of_hopeless_requests_makes_an_engine_look_faster():
    """Deadlines that are over, or that no engine could keep: what is measured still decides who is admitted."""
    queue, network = schedule(), Network(0.0, 0.1)
    for left in (-1.0, 0.0, 1e-9, 1e-4):
        for _ in range(2000):
            with pytest.raises(DeadlineExceeded):
                put(queue, ticket(1, network, left))
    with pytest.raises(DeadlineExceeded):
        put(queue, ticket(1, network, 0.09))


def test_what_can_no_longer_be_in_time_is_not_run():
    """The engine was busy for longer than expected; a part that is done already changes nothing."""
    queue, network = schedule(), Network(0.0, 0.1)
    late, later = put(queue, ticket(6, network, 1.0), ticket(2, network, 2.0))
    assert take(queue) == [(late, 0, 2)]
    batch = queue.take(0.7)
    assert batch.expired == [late]
    assert [piece.ticket for piece in batch.pieces] == [later]
    assert queue.waiting == 0


def test_pressed_for_time_whole_batches_go_to_the_earliest():
    """Single images with time to spare wait while a long ticket needs all of the engine."""
    queue, network = schedule(), Network(0.0, 0.1)
    long = put(queue, ticket(9, network, 1.0))
    put(queue, *[ticket(1, network, 100.0) for _ in range(4)])
    assert [take(queue, 0.2 * i)[0][0] for i in range(4)] == [long] * 4


# Whatever happens.

events = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(1, 40), st.sampled_from((0, 1)), st.floats(0.001, 3.0)),
        st.tuples(st.just("take"), st.floats(0.0, 0.1)),
        st.tuples(st.just("done"), st.integers(0, 5)),
        st.tuples(st.just("remove"), st.integers(0, 20)),
        st.tuples(st.just("extend"), st.integers(0, 20)),
    ),
    max_size=60,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(events, st.integers(1, 3))
def test_nothing_is_lost_and_nothing_runs_twice(story, engines):
    """Each image of each accepted ticket runs once and in order, or was removed, or expired; never after its time."""
    queue = schedule(queue=64, engines=engines)
    networks, now = (fast(), slow()), 0.0
    accepted, ran, gone, running = [], {}, set(), []
    for event in [*story, *[("take", 0.01), ("done", 0)] * 64]:
        if event[0] == "add":
            one = ticket(event[1], networks[event[2]], now + event[3])
            try:
                queue.add(one, now)
            except (QueueFull, QueueTooLong, DeadlineExceeded):
                continue
            accepted.append(one)
        elif event[0] in ("remove", "extend") and accepted:
            chosen = accepted[event[1] % len(accepted)]
            if event[0] == "extend":
                chosen.deadline.extend(now + 1.0)
            elif queue.remove(chosen):
                gone.add(chosen)
        elif event[0] == "done" and running:
            queue.done(running.pop(event[1] % len(running)))
        elif event[0] == "take" and queue.idle_engines:
            now += event[1]
            batch = queue.take(now)
            assert batch.pieces or not queue.waiting, "an idle engine gets something while anything waits"
            gone.update(batch.expired)
            if batch.pieces:
                running.append(batch)
            _check(batch, now, gone, ran)
        assert 0 <= queue.waiting <= 64
    assert queue.waiting == 0
    for one in accepted:
        assert ran.get(one, 0) == one.images or one in gone


def _check(batch, now, gone, ran):
    assert batch.images == sum(stop - start for _, start, stop in batch.pieces) <= 16
    for one, start, stop in batch.pieces:
        assert one.group is batch.group
        assert one not in gone
        assert one.line is None or one.waiting > 0
        assert start == ran.get(one, 0) < stop
        assert now + batch.group.speed.seconds(batch.images) <= one.deadline.at
        ran[one] = stop


# In virtual time.

networks = st.builds(Network, st.floats(0.0, 0.005), st.floats(0.0001, 0.01))


def simulate(clients, *, engines=2, seconds=4.0, seed=0):
    simulation = Simulation(schedule(engines=engines, queue=1024), seed=seed)
    simulation.run(clients, seconds)
    return simulation


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(networks, st.integers(1, 3), st.integers(1, 4), st.integers(0, 9))
def test_a_single_image_waits_at_most_two_chunks_longer_than_alone(network, engines, streams, seed):
    """Beside a stream of 256; beside several, one more where the last image of one of them had its turn just before."""
    lone = Client(network, 1, pause=0.05)
    simulate([lone, *(Client(network, 256) for _ in range(streams))], engines=engines, seed=seed)
    chunk = network.seconds(min(16, network.speed.chunk), simulate([]).chance)
    alone = network.overhead + network.per_image
    assert max(lone.latencies()) <= alone + (2 if streams == 1 else 3) * chunk * 1.0001


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(networks, st.floats(0.001, 0.3), st.integers(1, 3), st.integers(1, 64), st.integers(0, 9))
def test_one_model_waits_for_two_batches_of_another_at_most(network, per_image, engines, clients, seed):
    """However slow that one is: its batches are as short as 40 ms, or two of its images."""
    lone, other = Client(network, 1, pause=0.05), Network(0.0, per_image)
    simulate([lone, *(Client(other, 1) for _ in range(clients))], engines=engines, seed=seed)
    alone = network.overhead + network.per_image
    assert max(lone.latencies()) <= alone + 2 * max(0.04, 2 * per_image) * 1.0001


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(networks, st.integers(1, 3), st.integers(0, 9))
def test_a_long_request_gets_half_of_the_engines(network, engines, seed):
    """Beside 64 clients of single images: it waits for those before it, then has every other turn."""
    long = Client(network, 64)
    simulate([long, *(Client(network, 1) for _ in range(64))], engines=engines, seed=seed, seconds=0.5)
    chunk = network.overhead + network.per_image * min(16, network.speed.chunk)
    assert long.requests
    assert max(long.latencies()) <= 3 * network.speed.fastest(64, 1, 16) + 4 * chunk


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(networks, st.integers(2, 5), st.sampled_from((16, 64, 256)))
def test_equal_streams_get_equal_shares(network, streams, images):
    """The busiest of several clients that ask for the same gets at most two requests more than the least busy one."""
    clients = [Client(network, images) for _ in range(streams)]
    simulate(clients, seconds=8.0)
    done = [len(client.latencies()) for client in clients]
    assert max(done) - min(done) <= 2


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(networks, st.floats(0.2, 3.0), st.sampled_from((0.3, 1.0, 5.0)), st.integers(0, 99))
def test_who_is_taken_is_in_time(network, load, patience, seed):
    """Poisson arrivals of all sizes and patiences at up to three times what the engines can do; speeds are known.

    Batches are no fluid: where patience is a few batches' time, a few in a hundred are given up.
    """
    rate = load * best_rate(network, engines=2, max_batch_images=16) / (16 + 1 + 40)
    clients = [Client(network, n, rate=rate, timeout=patience * k) for n, k in ((16, 1), (1, 1), (40, 2))]
    simulate(clients, seed=seed)
    taken = [request for client in clients for request in client.requests if request.refused is None]
    assert not [request for request in taken if not request.expired and request.late_seconds > 0]
    assert sum(request.expired for request in taken) <= 0.02 * len(taken) + 4  # of one or two hundred


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from((0.25, 1.0, 30.0)), st.integers(0, 99), st.booleans())
def test_three_times_too_much_changes_nothing_for_goodput(patience, seed, known):
    """n=16, speeds noisy by 30 %, known or learned: at least 0.9 of what the engines could do is answered in time."""
    network = Network(0.0003, 0.0025, noise=0.3, speed=None if known else Speed())
    best = best_rate(network, engines=2, max_batch_images=16)
    client = Client(network, 16, rate=3 * best / 16, timeout=patience)
    simulate([client], seconds=8.0, seed=seed)
    assert len(client.done(8.0)) * 16 / 8.0 >= 0.9 * best


def test_an_engine_is_never_idle_while_anything_waits():
    """64 clients of single images keep both engines busy from the first image to the last."""
    network = fast()
    simulation = simulate([Client(network, 1) for _ in range(64)], seconds=2.0)
    assert simulation.busy_seconds >= 0.999 * 2 * 2.0
