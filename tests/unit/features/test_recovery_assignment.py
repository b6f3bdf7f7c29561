"""Owners and standby copies as workers come and go: what Faust's assignor, which is pinned, must go on doing."""

from faust.assignor.client_assignment import CopartitionedAssignment
from faust.assignor.copartitioned_assignor import CopartitionedAssignor
from hypothesis import given
from hypothesis import strategies as st

PARTITIONS = 4
Workers = dict[int, CopartitionedAssignment]


def rebalance(workers: Workers, replicas: int) -> None:
    CopartitionedAssignor({"orders", "changelog"}, workers, PARTITIONS, replicas).get_assignment()


def joined() -> CopartitionedAssignment:
    return CopartitionedAssignment(topics={"orders", "changelog"})


@given(
    replicas=st.integers(0, 2),
    changes=st.lists(st.tuples(st.booleans(), st.integers(0, 5)), min_size=1, max_size=15),
)
def test_each_partition_has_one_owner_and_copies_elsewhere_whoever_comes_and_goes(replicas, changes):
    workers: Workers = {}
    for came, number in changes:
        if came or len(workers) < 2:
            workers.setdefault(number, joined())
        else:
            workers.pop(sorted(workers)[number % len(workers)])
        rebalance(workers, replicas)
        owned = [partition for worker in workers.values() for partition in worker.actives]
        copied = [partition for worker in workers.values() for partition in worker.standbys]
        assert sorted(owned) == list(range(PARTITIONS))
        assert sorted(copied) == sorted(list(range(PARTITIONS)) * min(replicas, len(workers) - 1))
        assert not any(worker.actives & worker.standbys for worker in workers.values())


def test_of_two_workers_the_one_that_stays_has_a_copy_of_all_that_the_other_owned():
    workers: Workers = {1: joined(), 2: joined()}
    rebalance(workers, 1)
    assert workers[1].actives == workers[2].standbys
    assert workers[2].actives == workers[1].standbys
