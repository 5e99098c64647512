from pathlib import Path

from benchmarks.learning_curve import PICTURE, draw


def test_committed_picture_is_what_the_committed_results_draw(tmp_path: Path) -> None:
    drawn = tmp_path / "learning_curve.svg"
    draw(drawn)
    assert drawn.read_bytes() == PICTURE.read_bytes(), "python -m benchmarks.learning_curve"
