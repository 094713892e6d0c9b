"""The lazily cleaned heap against a sorted dictionary."""

from hypothesis import given
from hypothesis import strategies as st

from runpod_worker.service.queue.heap import LazyHeap

ids = st.sampled_from("abcde")


@given(st.lists(st.tuples(ids, st.none() | st.integers(0, 9)), max_size=300), st.integers(0, 6), st.integers(0, 9))
def test_heap_orders_what_is_true_now(moves, limit, up_to):
    keys: dict[str, int] = {}
    heap = LazyHeap(keys.get)

    for id_, key in moves:
        before = keys.pop(id_, None)
        if key is not None:
            keys[id_] = key
            if before is None or key < before:
                heap.push(id_, key, len(keys))

    expected = sorted((key, id_) for id_, key in keys.items())
    assert heap.first() == (expected[0] if expected else None)
    assert heap.first_ids(limit) == [id_ for _, id_ in expected[:limit]]
    assert heap.first_ids(99, up_to=up_to) == [id_ for key, id_ in expected if key <= up_to]
    assert heap.first_ids(99) == [id_ for _, id_ in expected], "reading changes nothing"


def test_entries_that_are_wrong_do_not_pile_up():
    keys: dict[str, int] = {}
    heap = LazyHeap(keys.get)

    for key in range(10_000):
        keys.clear()
        keys[f"id-{key}"] = key
        heap.push(f"id-{key}", key, 1)

    assert len(heap._heap) < 200
