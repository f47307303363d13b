"""The thread that works ahead: it ends when it should, and what goes wrong in it is told."""

import gc
import threading
import time
from collections.abc import Iterator

import pytest

from curation.errors import ManifestChanged, NoSpace
from training.data.prefetch import Prefetch


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "prefetch"]


def store(plan: int, buffer: list[int]) -> list[int]:
    buffer[:] = [plan]
    return buffer


def ring(count: int = 3) -> list[list[int]]:
    return [[] for _ in range(count)]


def endless() -> Iterator[int]:
    number = 0
    while True:
        yield number
        number += 1


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    assert not threads()
    yield
    gc.collect()
    assert not threads()


def test_it_gives_all_in_order_and_ends() -> None:
    found = [list(filled) for filled in Prefetch(range(20), store, ring())]
    assert found == [[number] for number in range(20)]
    assert not threads()


def test_at_its_end_it_stays_ended() -> None:
    ahead = Prefetch(range(1), store, ring())
    assert next(ahead) == [0]
    for _ in range(3):
        with pytest.raises(StopIteration):
            next(ahead)


def test_the_thread_ends_with_the_block() -> None:
    with Prefetch(endless(), store, ring()) as ahead:
        assert next(ahead) == [0]
        assert len(threads()) == 1
    assert not threads()
    with pytest.raises(StopIteration):
        next(ahead)


def test_the_thread_ends_when_nobody_has_the_iterator_any_more() -> None:
    ahead = Prefetch(endless(), store, ring())
    next(ahead)
    del ahead
    gc.collect()
    assert not threads()


def test_the_thread_ends_when_the_loop_fails() -> None:
    def loop() -> None:
        with Prefetch(endless(), store, ring()) as ahead:
            next(ahead)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        loop()
    assert not threads()


def test_closing_twice_and_before_the_first_is_no_harm() -> None:
    ahead = Prefetch(endless(), store, ring())
    ahead.close()
    ahead.close()
    assert not threads()


@pytest.mark.parametrize("error", [ManifestChanged("shard: a — b"), NoSpace("full"), KeyError("ours")])
def test_an_error_comes_after_what_was_filled_before_it_and_comes_again(error: Exception) -> None:
    def fill(plan: int, buffer: list[int]) -> list[int]:
        if plan == 2:
            raise error
        return store(plan, buffer)

    ahead = Prefetch(endless(), fill, ring())
    assert [list(next(ahead)), list(next(ahead))] == [[0], [1]]
    for _ in range(2):
        with pytest.raises(type(error)) as caught:
            next(ahead)
        assert caught.value is error
    assert not threads()


def test_an_error_in_the_plans_is_told_too() -> None:
    def plans() -> Iterator[int]:
        yield 0
        raise ManifestChanged("index: changed")

    ahead = Prefetch(plans(), store, ring())
    next(ahead)
    with pytest.raises(ManifestChanged, match="index: changed"):
        next(ahead)


def test_what_the_system_refuses_is_told_as_a_change_of_the_shards() -> None:
    def fill(plan: int, buffer: list[int]) -> list[int]:
        raise OSError(5, "Input/output error", "shards/av-0000.safetensors")

    with pytest.raises(
        ManifestChanged, match=r"av-0000.safetensors: cannot be read \(Input/output error\)"
    ):
        next(Prefetch(endless(), fill, ring()))


def test_a_buffer_is_not_filled_while_the_loop_has_it() -> None:
    with Prefetch(endless(), store, ring()) as ahead:
        for number in range(30):
            filled = next(ahead)
            if number % 10 == 0:
                time.sleep(0.02)
            assert filled == [number]


def test_waiting_is_measured_and_work_ahead_is_not_waited_for() -> None:
    def slow(plan: int, buffer: list[int]) -> list[int]:
        time.sleep(0.03)
        return store(plan, buffer)

    with Prefetch(range(4), slow, ring()) as ahead:
        for _ in ahead:
            pass
        assert 0.08 <= ahead.waited_s < 1
    with Prefetch(range(3), slow, ring()) as ahead:
        while ahead._ready.qsize() < 3:
            time.sleep(0.01)
        for _ in range(3):
            next(ahead)
        assert ahead.waited_s < 0.03
