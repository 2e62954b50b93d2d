"""Numbers in words."""

import pytest

from kit.text import as_fast


@pytest.mark.parametrize(
    ("ratio", "said"),
    [
        (1.0, "1.00x as fast"),
        (1.634, "1.63x as fast"),
        (37.41, "37.41x as fast"),
        (0.61, "1.64x slower"),
        (1 / 9.96, "9.96x slower"),
        (1 / 36, "36x slower"),
        (1 / 2931, "2,931x slower"),
    ],
)
def test_a_speed_up_goes_in_one_direction(ratio: float, said: str) -> None:
    assert as_fast(ratio) == said
