"""Work beside the main thread."""

from __future__ import annotations

import threading

import pytest

from ray_app.system.background import FEW, OneByOne, in_background, in_threads


def test_what_a_thread_made_and_what_it_raised_come_back():
    assert in_background(lambda: 7).result() == 7
    with pytest.raises(ValueError, match="no"):
        in_background(lambda: int("no")).result()


def test_works_never_overlap_and_keep_their_order():
    works, gate, done = OneByOne(), threading.Event(), []
    works.do(lambda: (gate.wait(), done.append("first")))
    threading.Timer(0.05, gate.set).start()
    works.do(lambda: done.append("second"))
    assert done[0] == "first"
    works.wait()
    assert done == ["first", "second"]


def test_a_fault_is_raised_once_by_whoever_waits_next():
    works = OneByOne()
    works.do(lambda: int("no"))
    with pytest.raises(ValueError, match="no"):
        works.do(lambda: None)
    works.wait()


def test_many_items_keep_their_order_and_the_first_is_done_alone():
    began, at_once = [], threading.Lock()

    def work(item: int) -> int:
        if item:
            assert began == [0]
        else:
            assert at_once.acquire(blocking=False)
            began.append(0)
        return item * item

    items = list(range(FEW * 3))
    assert in_threads(work, items) == [item * item for item in items]


def test_a_fault_of_one_item_is_raised():
    with pytest.raises(ZeroDivisionError):
        in_threads(lambda item: 1 // (FEW - item), list(range(FEW * 2)))
