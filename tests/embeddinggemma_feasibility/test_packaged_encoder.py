import numpy as np
import pytest
import torch

from embeddinggemma_feasibility.encoders import load_encoder
from embeddinggemma_feasibility.windows import encode_document


def embed(text: str) -> torch.Tensor:
    encoder = load_encoder()
    with torch.inference_mode():
        states: torch.Tensor = encoder.model(**encoder.tokenizer(text, return_tensors="pt")).last_hidden_state
        return states.mean(dim=1)[0]


@pytest.mark.parametrize(
    ("english", "portuguese", "other"),
    [
        ("This contract is governed by the laws of Portugal.", "Este contrato rege-se pela lei portuguesa.", "preço"),
        ("The price is 500 euros a month.", "O preço é de 500 euros por mês.", "lei aplicável e foro"),
    ],
)
def test_translation_is_nearer_than_a_text_on_another_subject(english: str, portuguese: str, other: str) -> None:
    vectors = [embed(text) for text in (english, portuguese, other)]
    near, far = (torch.cosine_similarity(vectors[0], vector, dim=0) for vector in vectors[1:])
    assert near > far + 0.02


def test_case_and_accents_change_the_embedding() -> None:
    assert not torch.equal(embed("Avo"), embed("avo"))
    assert not torch.equal(embed("avo"), embed("avó"))


def test_every_word_begins_in_its_piece_whatever_characters_separate_the_words() -> None:
    text = "Este  Contrato\tde Prestação\nde \ufb01nal\u2028x  \u00bd “R$ 1.234,56” é 日本 \U0001f600 fim"
    tokenizer = load_encoder().tokenizer
    document = encode_document(text, tokenizer, 1000)
    encoding = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    offsets = np.array(encoding["offset_mapping"])[document.piece_of_word]
    assert np.all(offsets[:, 0] <= document.words[:, 0])
    assert np.all(document.words[:, 0] < offsets[:, 1])
    words = [text[start:end] for start, end in document.words]
    known = document.pieces[document.piece_of_word] != tokenizer.unk_token_id
    assert [word for word, is_known in zip(words, known, strict=True) if not is_known] == ["\U0001f600"]
