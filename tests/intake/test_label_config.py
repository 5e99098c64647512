import pytest

from intake.label_config import MAX_CONFIG, Label, read_label_config
from registry.errors import InvalidInputError
from tests.label_studio import CONFIG

TEXT_TAG = '<Text name="text" value="$text"/>'
LABELS = '<Labels name="label" toName="text"><Label value="date"/></Labels>'


def test_labels_are_found_by_alias_and_by_value_and_named_by_alias() -> None:
    config = read_label_config(CONFIG)
    party = Label("party", "label")
    assert (config.text_name, config.text_key, set(config.labels)) == ("text", "text", {"party", "date"})
    assert [config.find_label(name) for name in ("party", "Party", "amount")] == [party, party, None]


def test_labels_of_two_controls_on_one_text_are_all_found_and_those_on_something_else_are_not() -> None:
    more = '<Labels name="more" toName="text"><Label value="amount"/></Labels>'
    audio = '<Labels name="sound" toName="audio"><Label value="noise"/></Labels><Audio name="audio" value="$a"/>'
    config = read_label_config(f"<View>{audio}{LABELS}<View>{more}</View>{TEXT_TAG}</View>")
    assert {name: label.from_name for name, label in config.labels.items()} == {"date": "label", "amount": "more"}


@pytest.mark.parametrize(
    ("xml", "reason"),
    [
        ("<View>", "not XML"),
        ("<View>\ud800</View>", "not XML"),
        ('<!DOCTYPE a [<!ENTITY b "c">]><View>&b;</View>', "not XML that is accepted"),
        ("<View/>" + " " * MAX_CONFIG, "more than"),
        (f"<View>{TEXT_TAG}</View>", "no <Labels> on a <Text>"),
        (f'<View>{LABELS}<HyperText name="text" value="$text"/></View>', "no <Labels> on a <Text>"),
        (f'<View><Labels name="label" toName="text"/>{TEXT_TAG}</View>', "0 labels"),
        (f'<View><Labels toName="text"><View>{LABELS}</View></Labels>{TEXT_TAG}</View>', "inside another"),
        (f"<View>{LABELS.replace('date', ' date')}{TEXT_TAG}</View>", "The label ' date'"),
        (f'<View>{LABELS}<Text name="text" value="$text" valueType="url"/></View>', "fetches nothing"),
        (f'<View>{LABELS}<Text name="text" value="$text" encoding="base64"/></View>', "encoding"),
        (f'<View>{LABELS}<Text name="text" value="text"/></View>', "variable"),
    ],
)
def test_configuration_that_cannot_be_served_is_refused_with_the_reason(xml: str, reason: str) -> None:
    with pytest.raises(InvalidInputError, match=reason):
        read_label_config(xml)


@pytest.mark.parametrize("data", [{}, {"text": 5}, {"text": "a\0"}, {"text": "\ud800"}])
def test_task_without_a_storable_text_is_refused(data: dict[str, object]) -> None:
    with pytest.raises(InvalidInputError, match="'text'"):
        read_label_config(CONFIG).read_text(data)
