from pathlib import Path

import pytest

from benchmarks.learning_curve import DOCS, LEARNING_CURVE, RELIABILITY, draw


@pytest.mark.parametrize("name", [LEARNING_CURVE, RELIABILITY])
def test_committed_picture_is_what_the_committed_results_draw(tmp_path: Path, name: str) -> None:
    draw(tmp_path)
    assert (tmp_path / name).read_bytes() == (DOCS / name).read_bytes(), "python -m benchmarks.learning_curve"
