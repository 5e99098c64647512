import pytest
from pydantic import TypeAdapter, ValidationError

from registry.text_types import EntityType, PersonName

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


@pytest.mark.parametrize("name", ["ana\nERROR rui", "\x1b[2Jana", "ana\u2028", "ana "])
def test_name_of_a_person_that_could_forge_a_line_of_a_log_is_refused(name: str) -> None:
    with pytest.raises(ValidationError, match="Leave out"):
        TypeAdapter(PersonName).validate_python(name)


@pytest.mark.parametrize("name", ["", "Ana María (LGL)", "ana@example.org", "李"])
def test_any_other_name_of_a_person_is_accepted_as_it_is(name: str) -> None:
    assert TypeAdapter(PersonName).validate_python(name) == name
