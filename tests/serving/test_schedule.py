"""The batching policy, alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.errors import QueueFull
from serving.schedule import Deadline, Schedule, Ticket, share_out


def ticket(images, group="g", at=1e9):
    return Ticket(group, images, Deadline(at))


def schedule(*tickets, queue=1000, batch=16):
    made = Schedule(max_queue_images=queue, max_batch_images=batch)
    for one in tickets:
        made.add(one, retry_after_seconds=1)
    return made


def sizes(turn):
    return [(piece.start, piece.stop) for piece in turn.pieces]


def test_a_lone_image_runs_at_once():
    """Nothing is held back to fill a batch."""
    assert sizes(schedule(ticket(1)).take(0, 1)) == [(0, 1)]


def test_what_waits_is_spread_over_idle_engines():
    """16 images and two idle engines: eight each."""
    queue = schedule(ticket(16))
    assert sizes(queue.take(0, 2)) == [(0, 8)]
    assert sizes(queue.take(0, 1)) == [(8, 16)]


def test_the_bound_counts_images():
    """One request of 6 fits beside 4, one of 7 does not; what runs makes room."""
    queue = schedule(ticket(4), queue=10)
    with pytest.raises(QueueFull) as error:
        queue.add(ticket(7), retry_after_seconds=2.5)
    assert (error.value.status, error.value.retry_after) == (429, 3)
    queue.add(ticket(6), retry_after_seconds=1)
    queue.take(0, 1)
    queue.add(ticket(10), retry_after_seconds=1)
    assert queue.waiting == 10


def test_small_tickets_pass_between_the_pieces_of_a_large_one():
    """One image that comes after 256 is in the next batch, and so is the large ticket."""
    large, small = ticket(256), ticket(1)
    queue = schedule(large)
    queue.take(0, 1)
    queue.add(small, retry_after_seconds=1)
    turn = queue.take(0, 1)
    assert {id(piece.ticket): piece.stop - piece.start for piece in turn.pieces} == {id(large): 15, id(small): 1}


def test_groups_never_share_a_batch_and_take_turns():
    """Two models that always have work are both served."""
    a, b = ticket(64, "a"), ticket(64, "b")
    queue = schedule(a, b)
    groups = [{piece.ticket.group for piece in queue.take(0, 1).pieces} for _ in range(4)]
    assert groups == [{"a"}, {"b"}, {"a"}, {"b"}]


def test_what_cannot_start_in_time_is_not_run():
    """An expired ticket leaves the queue; its deadline may have been extended by others before."""
    late, extended = ticket(3, at=5.0), ticket(2, at=5.0)
    queue = schedule(late, extended)
    extended.deadline.extend(9.0)
    turn = queue.take(6.0, 1)
    assert turn.expired == [late]
    assert [piece.ticket for piece in turn.pieces] == [extended]
    assert queue.waiting == 0


def test_removed_images_never_run():
    """What has started stays; the rest is gone."""
    gone = ticket(40)
    queue = schedule(gone, ticket(2))
    queue.take(0, 1)
    assert queue.remove(gone) == 40 - 14
    assert queue.remove(gone) == 0
    assert [piece.ticket is gone for piece in queue.take(0, 1).pieces] == []
    assert queue.waiting == 0


@given(st.integers(1, 64), st.lists(st.integers(1, 100), max_size=64))
def test_shares_are_max_min_fair(room, wanted):
    """Nobody gets more than it wants, nothing is left over, and who gets less than it wants gets the most of all."""
    wanted = wanted[:room]
    shares = share_out(room, wanted)
    assert sum(shares) == min(room, sum(wanted))
    assert all(1 <= share <= want for share, want in zip(shares, wanted, strict=True))
    unmet = [share for share, want in zip(shares, wanted, strict=True) if share < want]
    assert all(share >= max(shares) - 1 for share in unmet)


events = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(1, 40), st.sampled_from("ab"), st.integers(0, 60)),
        st.tuples(st.just("take"), st.integers(1, 3)),
        st.tuples(st.just("remove"), st.integers(0, 20)),
    ),
    max_size=60,
)


@given(events)
def test_nothing_is_lost_and_nothing_runs_twice(story):
    """Each image of each accepted ticket is run once, or was removed, or expired; the queue keeps its bound."""
    queue = Schedule(max_queue_images=64, max_batch_images=16)
    accepted, ran, gone = [], {}, set()
    for now, event in enumerate([*story, *[("take", 1)] * 64]):
        if event[0] == "add":
            one = ticket(event[1], event[2], now + event[3])
            if queue.waiting + one.images > 64:
                with pytest.raises(QueueFull):
                    queue.add(one, retry_after_seconds=1)
            else:
                queue.add(one, retry_after_seconds=1)
                accepted.append(one)
        elif event[0] == "remove" and accepted:
            chosen = accepted[event[1] % len(accepted)]
            queue.remove(chosen)
            gone.add(chosen)
        elif event[0] == "take":
            turn = queue.take(now, event[1])
            gone.update(turn.expired)
            assert len({piece.ticket.group for piece in turn.pieces}) <= 1
            assert sum(piece.stop - piece.start for piece in turn.pieces) <= 16
            for piece in turn.pieces:
                assert piece.ticket not in gone
                assert now < piece.ticket.deadline.at
                ran.setdefault(piece.ticket, []).extend(range(piece.start, piece.stop))
        assert 0 <= queue.waiting <= 64
    assert queue.waiting == 0
    for one in accepted:
        images = ran.get(one, [])
        assert images == list(range(len(images)))
        assert len(images) == one.images or one in gone
