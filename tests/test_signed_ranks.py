from signed_ranks import located


def test_the_middle_of_what_is_known_is_found_with_its_bounds() -> None:
    middle, low, high = located([-0.01, 0.0, 0.01] * 13 + [5.0])
    assert abs(middle) < 0.002
    assert -0.01 <= low <= middle <= high <= 0.01
    assert high - low < 0.01
