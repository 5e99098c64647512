import pytest
from pydantic import TypeAdapter, ValidationError

from registry.text_types import EntityType

_types = TypeAdapter(EntityType)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "at least 1 item"),
        (" ", "spaces at the start and at the end"),
        ("party ", "spaces at the start and at the end"),
        ("governing\nlaw", r"Leave out '\n', which is not printable"),
        ("governing\u00a0law", r"Leave out '\xa0', which is not printable"),
        ("par\u200bty", r"Leave out '\u200b', which is not printable"),
        ("par\ud800ty", r"Leave out '\ud800', half of a surrogate pair"),
        ("x" * 101, "at most 100 items"),
    ],
)
def test_type_that_reviewers_could_not_tell_apart_is_refused_with_the_reason(name: str, reason: str) -> None:
    with pytest.raises(ValidationError) as refused:
        _types.validate_python(name)
    assert reason in str(refused.value)


@pytest.mark.parametrize(
    "name", ["governing law", "http://x.org/onto#Party", "$x_$", "cláusula", "合同", "<b>", "x" * 100]
)
def test_any_other_type_is_accepted_as_it_is(name: str) -> None:
    assert _types.validate_python(name) == name
