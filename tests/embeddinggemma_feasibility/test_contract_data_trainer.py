import dataclasses

import pytest
import torch

from demo.contract_generator import generate_contract
from embeddinggemma_feasibility.annotation_data import AnnotationData, Span
from embeddinggemma_feasibility.contract_data_trainer import (
    CollapsedModelError,
    FineTuningResult,
    consolidate_model,
    fine_tune_model,
)
from embeddinggemma_feasibility.encoders import PACKAGED, Encoder, load_encoder
from embeddinggemma_feasibility.evaluation import Evaluation, evaluate
from embeddinggemma_feasibility.tagger import Tagger
from embeddinggemma_feasibility.trained_model import TrainedModel
from embeddinggemma_feasibility.training_config import TrainingConfig
from feedback.replay import choose_replay_documents


def score(tagger: Tagger, documents: list[AnnotationData]) -> Evaluation:
    return evaluate(documents, {data.document_id: tagger.extract(data.text) for data in documents})


@pytest.fixture(scope="module")
def champion(tuned: FineTuningResult) -> TrainedModel:
    return tuned.model


def test_every_marked_value_of_eight_contracts_is_learned(
    champion: TrainedModel, contracts: list[AnnotationData]
) -> None:
    value = score(champion.served, contracts).value
    assert value.false_negatives == 0
    assert value.f1 > 0.85  # with so few documents, the threshold is low: the blind taggers know only half of them


def test_eight_contracts_packaged_encoder_learned(contracts: list[AnnotationData]) -> None:
    value = score(fine_tune_model(contracts, encoder=load_encoder(PACKAGED)).model.served, contracts).value
    assert value.false_negatives == 0
    assert value.f1 > 0.85


def test_challenger_learns_the_feedback_and_the_champion_stays_as_it_was(
    champion: TrainedModel, contracts: list[AnnotationData]
) -> None:
    before = [champion.served.extract(data.text) for data in contracts]
    corrected = dataclasses.replace(contracts[0], spans=contracts[0].spans[:1])
    challenger = fine_tune_model([corrected], champion).model
    assert score(challenger.served, [corrected]).value.f1 == 1.0
    assert [champion.served.extract(data.text) for data in contracts] == before


def test_new_type_is_appended_to_the_champions_types(champion: TrainedModel, contracts: list[AnnotationData]) -> None:
    data = contracts[2]
    start = data.text.index("Objeto")
    extended = dataclasses.replace(data, spans=(*data.spans, Span(start, start + len("Objeto"), "título/cláusula")))
    challenger = fine_tune_model([extended], champion, contracts[:2], 7).model
    assert challenger.served.types == (*champion.served.types, "título/cláusula")
    assert score(challenger.served, [extended]).value_by_type["título/cláusula"].f1 == 1.0


def test_new_type_is_found_at_once_though_many_documents_were_learned_without_it(
    champion: TrainedModel, contracts: list[AnnotationData]
) -> None:
    data, known = contracts[2], frozenset(champion.served.types)
    start = data.text.index("Objeto")
    extended = dataclasses.replace(data, spans=(*data.spans, Span(start, start + len("Objeto"), "invented")))
    replay = [dataclasses.replace(each, reviewed_types=known) for each in contracts]
    challenger = fine_tune_model([extended], champion, replay, 100_000).model
    assert score(challenger.served, [extended]).value_by_type["invented"].f1 == 1.0


@pytest.mark.slow
def test_stream_of_thirty_contracts_is_learned_and_the_first_ones_are_not_forgotten(tiny_encoder: Encoder) -> None:
    generated = [generate_contract(seed) for seed in range(100, 130)]
    stream = [AnnotationData(str(n), contract.text, contract.spans) for n, contract in enumerate(generated)]
    by_id = {data.document_id: data for data in stream}
    model: TrainedModel | None = None
    for count, data in enumerate(stream):
        chosen = choose_replay_documents(list(by_id)[:count], [], 8)
        replay = [by_id[document_id] for document_id in chosen]
        model = fine_tune_model([data], model, replay, count, replay, tiny_encoder).model
        assert score(model.served, [data]).value.false_negatives <= 1
    assert model
    assert score(model.served, stream[:10]).value.f1 >= 0.9
    assert score(model.served, stream).value.f1 >= 0.9


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
    ranked = fine_tune_model([data], encoder=tiny_encoder).model.served.rank(text)
    assert {(entity.start, entity.end, entity.type) for entity in ranked[:4]} == {
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
    unknown = [dataclasses.replace(data, reviewed_types=frozenset()) for data in contracts]
    with pytest.raises(CollapsedModelError, match="finds nothing in 8 documents"):
        fine_tune_model(unknown, encoder=tiny_encoder)


def test_training_does_not_change_the_encoder(contracts: list[AnnotationData], tiny_encoder: Encoder) -> None:
    frozen = {name: value.clone() for name, value in tiny_encoder.model.state_dict().items()}
    model = fine_tune_model(contracts[:2], encoder=tiny_encoder).model
    assert all(torch.equal(frozen[name], value) for name, value in tiny_encoder.model.state_dict().items())
    assert model.served.adapted is None


def test_progress_is_reported_from_the_first_step_to_the_last(
    contracts: list[AnnotationData], tiny_encoder: Encoder
) -> None:
    shares: list[float] = []
    fine_tune_model(contracts[:2], encoder=tiny_encoder, on_progress=shares.append)
    assert 0 < shares[0] < shares[1]
    assert shares == sorted(shares)
    assert shares[-1] == 1


def test_consolidation_trains_the_adapter_once_and_again_when_the_spans_have_doubled(
    contracts: list[AnnotationData], tiny_encoder: Encoder
) -> None:
    frozen = {name: value.clone() for name, value in tiny_encoder.model.state_dict().items()}
    few, every = (sum(len(data.spans) for data in some) for some in (contracts[:3], contracts))
    config = TrainingConfig(first_adaptation=few)
    without = consolidate_model(contracts[:2], encoder=tiny_encoder, config=config).model
    first = consolidate_model(contracts[:3], without, tiny_encoder, config).model
    kept = consolidate_model(contracts[:5], first, tiny_encoder, config).model
    again = consolidate_model(contracts, kept, tiny_encoder, config).model
    assert [model.full.adapted_spans for model in (without, first, kept, again)] == [0, few, few, every]
    assert kept.served.adapted is first.full.adapted
    assert first.served.encoding_sha256() == kept.served.encoding_sha256() != again.full.encoding_sha256()
    assert score(again.served, contracts).value.f1 > 0.8
    assert all(torch.equal(frozen[name], value) for name, value in tiny_encoder.model.state_dict().items())


def test_consolidation_drops_the_types_that_no_annotation_has(
    contracts: list[AnnotationData], tiny_encoder: Encoder
) -> None:
    data = contracts[2]
    extended = dataclasses.replace(data, spans=(*data.spans, Span(0, 3, "invented")))
    champion = fine_tune_model([extended], encoder=tiny_encoder).model
    assert "invented" in champion.served.types
    assert "invented" not in consolidate_model(contracts, champion, tiny_encoder).model.served.types
