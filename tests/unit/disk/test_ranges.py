from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from qemu_odx.disk.port import Extent
from qemu_odx.disk.ranges import RangeCounter, RangeSet, disjoint

TOP = 40
ranges = st.tuples(st.integers(0, TOP), st.integers(0, TOP)).map(lambda pair: (min(pair), max(pair)))
changes = st.lists(st.tuples(st.booleans(), ranges), max_size=30)


def runs(members: set[int]) -> list[tuple[int, int]]:
    """The set as maximal ranges."""
    edges = [at for at in range(TOP + 2) if (at in members) != (at - 1 in members)]
    return list(zip(edges[::2], edges[1::2], strict=True))


def build(steps: list[tuple[bool, tuple[int, int]]]) -> tuple[RangeSet, set[int]]:
    """The same additions and removals on both."""
    ours, plain = RangeSet(), set[int]()
    for add, (start, end) in steps:
        (ours.add if add else ours.remove)(start, end)
        plain = plain | set(range(start, end)) if add else plain - set(range(start, end))
    return ours, plain


@given(changes)
def test_a_range_set_is_a_set_in_maximal_ranges(steps: list[tuple[bool, tuple[int, int]]]) -> None:
    """Against a set of integers."""
    ours, plain = build(steps)
    assert list(ours) == runs(plain)
    assert bool(ours) == bool(plain)


@given(changes, ranges)
def test_looking_at_a_part_of_a_range_set(
    steps: list[tuple[bool, tuple[int, int]]], part: tuple[int, int]
) -> None:
    """The members in the part, and whether there are any."""
    ours, plain = build(steps)
    inside = plain & set(range(*part))
    assert list(ours.within(*part)) == runs(inside)
    assert ours.overlaps(*part) == bool(inside)


@given(changes, ranges)
def test_the_gap_around_a_range(steps: list[tuple[bool, tuple[int, int]]], part: tuple[int, int]) -> None:
    """It is the largest one."""
    ours, plain = build(steps)
    start, end = part
    if start < end and not plain & set(range(start, end)):
        first, last = ours.gap(start, end)
        assert first <= start < end <= last
        assert not plain & set(range(first, min(last, TOP + 1)))
        assert first == 0 or first - 1 in plain
        assert last > TOP or last in plain


@given(st.lists(ranges, max_size=12), st.data())
def test_a_counter_tells_what_falls_to_zero(added: list[tuple[int, int]], data: st.DataObject) -> None:
    """Ranges are taken out in any order."""
    ours, counts = RangeCounter(), [0] * (TOP + 1)
    for start, end in added:
        ours.add(start, end)
        counts[start:end] = [count + 1 for count in counts[start:end]]
    for start, end in data.draw(st.permutations(added)):
        zero = {at for first, last in ours.remove(start, end) for at in range(first, last)}
        counts[start:end] = [count - 1 for count in counts[start:end]]
        assert zero == {at for at in range(start, end) if counts[at] == 0}
        probe = data.draw(ranges)
        assert ours.any(*probe) == any(counts[slice(*probe)])
    assert not ours._steps


@given(st.lists(ranges, max_size=10))
def test_extents_become_disjoint(added: list[tuple[int, int]]) -> None:
    """Empty ones vanish, overlapping ones join."""
    plain = {at for start, end in added for at in range(start, end)}
    assert disjoint(Extent(start, end - start) for start, end in added) == runs(plain)
