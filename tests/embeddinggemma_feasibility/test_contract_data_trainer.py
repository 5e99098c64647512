import dataclasses

import pytest
import torch

from embeddinggemma_feasibility.annotation_data import AnnotationData, Span
from embeddinggemma_feasibility.contract_data_trainer import CollapsedModelError, fine_tune_model
from embeddinggemma_feasibility.encoders import PACKAGED, Encoder, load_encoder
from embeddinggemma_feasibility.evaluation import Evaluation, evaluate
from embeddinggemma_feasibility.tagger import Tagger
from embeddinggemma_feasibility.training_config import TrainingConfig


def score(tagger: Tagger, documents: list[AnnotationData]) -> Evaluation:
    return evaluate(documents, {data.document_id: tagger.extract(data.text) for data in documents})


@pytest.fixture(scope="module")
def champion(contracts: list[AnnotationData], tiny_encoder: Encoder) -> Tagger:
    return fine_tune_model(contracts, encoder=tiny_encoder).model.served


def test_eight_contracts_tiny_encoder_learned_perfectly(champion: Tagger, contracts: list[AnnotationData]) -> None:
    evaluation = score(champion, contracts)
    assert evaluation.value.f1 == evaluation.span.f1 == 1.0


def test_eight_contracts_packaged_encoder_learned_perfectly(contracts: list[AnnotationData]) -> None:
    evaluation = score(fine_tune_model(contracts, encoder=load_encoder(PACKAGED)).model.served, contracts)
    assert evaluation.value.f1 == evaluation.span.f1 == 1.0


def test_challenger_learns_the_feedback_and_the_champion_stays_as_it_was(
    champion: Tagger, contracts: list[AnnotationData]
) -> None:
    before = [champion.extract(data.text) for data in contracts]
    corrected = dataclasses.replace(contracts[0], spans=contracts[0].spans[:1])
    challenger = fine_tune_model([corrected], champion).model.served
    assert score(challenger, [corrected]).value.f1 == 1.0
    assert [champion.extract(data.text) for data in contracts] == before


def test_new_type_is_appended_to_the_champions_types(champion: Tagger, contracts: list[AnnotationData]) -> None:
    data = contracts[2]
    start = data.text.index("Objeto")
    extended = dataclasses.replace(data, spans=(*data.spans, Span(start, start + len("Objeto"), "título/cláusula")))
    challenger = fine_tune_model([extended], champion, contracts[:2]).model.served
    assert challenger.types == (*champion.types, "título/cláusula")
    assert score(challenger, [extended]).value.f1 == 1.0


def test_two_types_on_one_span_and_nested_spans_are_learned(tiny_encoder: Encoder) -> None:
    text = "This agreement is dated 5 May 2020 and made between Acme Holdings Ltd and Bell plc."
    day, company = text.index("5 May"), text.index("Acme")
    spans = (
        Span(day, day + 10, "agreement_date"),
        Span(day, day + 10, "effective_date"),
        Span(company, company + 17, "party"),
        Span(company, company + 4, "brand"),
    )
    data = AnnotationData("nested", text, spans)
    tagger = fine_tune_model([data], encoder=tiny_encoder).model.served
    assert {(entity.start, entity.end, entity.type) for entity in tagger.extract(text)} == {
        (span.start, span.end, span.type) for span in spans
    }


def test_type_not_reviewed_in_a_replayed_document_is_not_unlearned_there(tiny_encoder: Encoder) -> None:
    old = AnnotationData("old", "Fee: 100 EUR. Place: Braga.", (Span(5, 12, "fee"),), frozenset({"fee"}))
    new = AnnotationData("new", "Fee: 200 EUR. Place: Braga.", (Span(5, 12, "fee"), Span(21, 26, "place")))
    tagger = fine_tune_model([new], replay=[old], encoder=tiny_encoder).model.served
    assert "place" in {entity.type for entity in tagger.extract(old.text)}


def test_no_annotation_and_no_champion_raises(contracts: list[AnnotationData], tiny_encoder: Encoder) -> None:
    with pytest.raises(ValueError, match="at least one annotation"):
        fine_tune_model([dataclasses.replace(contracts[0], spans=())], encoder=tiny_encoder)


def test_model_that_predicts_nothing_raises(contracts: list[AnnotationData], tiny_encoder: Encoder) -> None:
    config = TrainingConfig(first_iterations=1, least_confidence=1, least_common_type_confidence=1)
    with pytest.raises(CollapsedModelError, match="finds nothing in 8 documents"):
        fine_tune_model(contracts, encoder=tiny_encoder, config=config)


def test_training_changes_only_adapter_and_head(contracts: list[AnnotationData], tiny_encoder: Encoder) -> None:
    frozen = {name: value.clone() for name, value in tiny_encoder.model.state_dict().items()}
    tagger = fine_tune_model(contracts, encoder=tiny_encoder, config=TrainingConfig(first_adaptation=8)).model.served
    assert all(torch.equal(frozen[name], value) for name, value in tiny_encoder.model.state_dict().items())
    assert tagger.adapted
    adapter = [value for name, value in tagger.adapted.named_parameters() if "lora_B" in name]
    assert adapter
    assert all(value.any() for value in adapter)


def test_progress_is_reported_from_the_first_step_to_the_last(
    contracts: list[AnnotationData], tiny_encoder: Encoder
) -> None:
    shares: list[float] = []
    fine_tune_model(contracts[:2], encoder=tiny_encoder, on_progress=shares.append)
    assert 0 < shares[0] < shares[1]
    assert shares == sorted(shares)
    assert shares[-1] == 1
