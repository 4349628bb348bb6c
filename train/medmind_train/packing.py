"""Which examples share a row of `capacity` tokens: best-fit-decreasing bin packing. Knows lengths, nothing else."""

from bisect import bisect_left, insort
from collections.abc import Sequence


def pack(lengths: Sequence[int], capacity: int, order: Sequence[int]) -> list[list[int]]:
    """Put every example into the fullest row that still has room for it, the longest examples first.

    At most 11/9 of the fewest rows possible (Johnson et al. 1974, SIAM J. Comput. 3(4), best fit decreasing); on texts,
    many of which are short, nearly no room is left over. How many rows there are does not depend on `order`.

    Args:
        lengths: tokens of each example, none more than `capacity`.
        capacity: tokens of a row.
        order: the examples' indices; decides among examples of one length.

    Returns:
        The rows, each a list of indices.

    Raises:
        ValueError: an example longer than a row.
    """
    rows: list[list[int]] = []
    spaces: list[int] = []  # the distinct amounts of room that rows have left, ascending
    waiting: dict[int, list[int]] = {}  # the rows that have so much
    for index in sorted(order, key=lambda index: -lengths[index]):
        length = lengths[index]
        at = bisect_left(spaces, length)
        if at < len(spaces):
            space = spaces[at]
            row = waiting[space].pop()
            if not waiting[space]:
                del waiting[space], spaces[at]
        elif length <= capacity:
            space, row = capacity, len(rows)
            rows.append([])
        else:
            raise ValueError(f"an example of {length} tokens in rows of {capacity}")
        rows[row].append(index)
        if left := space - length:
            if left not in waiting:
                insort(spaces, left)
            waiting.setdefault(left, []).append(row)
    return rows
