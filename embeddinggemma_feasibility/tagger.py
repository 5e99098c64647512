"""The model: a frozen encoder with a LoRA adapter, lexical features beside it, a CRF for each type on top."""

import copy
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import embedding_bag, layer_norm, pad
from torch.nn.utils.rnn import pad_sequence

from embeddinggemma_feasibility.annotation_data import Entity
from embeddinggemma_feasibility.encoders import Encoder, has_bfloat16, load_encoder
from embeddinggemma_feasibility.representations import Representation, RepresentationCache
from embeddinggemma_feasibility.span_crf import OUTSIDE, TAGS, forbid_orphans, rank_spans
from embeddinggemma_feasibility.training_config import TrainingConfig
from embeddinggemma_feasibility.windows import EncodedDocument, Window, encode_document, split_windows, words_between

BATCH_WINDOWS = 16
_PRIOR_OUTPUTS = 10


class Tagger(nn.Module):
    """Finds the spans of `types` in a text.

    A word's tag scores are the sum of a linear head, on the encoder's middle layer at the word's first piece and on the
    mean of its adapted last layer over the word's sentence, and of the rows of the word's lexical features (case,
    shape, digits, neighbours, line breaks, place) in a hashed table. The head sees each of the encoder's outputs
    less its `centre` and divided by its `spread`, as they were in the first documents learned. `adapted` is the encoder
    with its adapter, None until the adapter's first turn.

    `usual_types` are those that most documents have; `documents_learned` counts the documents it was ever taught.
    """

    def __init__(self, encoder: Encoder, types: Sequence[str], config: TrainingConfig) -> None:
        super().__init__()
        self.encoder, self.config, self.types = encoder, config, tuple(types)
        self.usual_types: frozenset[str] = frozenset()
        self.documents_learned = 0
        self._adapted_layers = max(1, round(config.adapted_share * encoder.model.config.num_hidden_layers))
        self.adapted: nn.Module | None = None
        hidden, outputs = encoder.model.config.hidden_size, len(self.types) * TAGS
        self.head = nn.Parameter(torch.zeros(2 * hidden, outputs))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.centre = nn.Parameter(torch.zeros(2 * hidden), requires_grad=False)
        self.spread = nn.Parameter(torch.ones(2 * hidden), requires_grad=False)
        self.lexical = nn.Parameter(torch.zeros(config.lexical_buckets, outputs))
        self.transitions = nn.Parameter(torch.zeros(len(self.types), TAGS, TAGS))

    def encode(self, text: str) -> EncodedDocument:
        """Return the text as this model reads it."""
        return encode_document(text, self.encoder.tokenizer, self.config.lexical_buckets)

    def windows(self, document: EncodedDocument) -> list[Window]:
        """Return the document's overlapping windows, in order."""
        return split_windows(len(document.pieces), self.config.window_pieces, self.config.window_overlap)

    def encode_windows(
        self,
        documents: Sequence[EncodedDocument],
        windows: Sequence[Window],
        words: Sequence[slice],
    ) -> list[tuple[Tensor, Tensor]]:
        """Return the middle and the last layer's output for `words` of each document's window, each (words, hidden)."""
        model = self.adapted or self.encoder.model
        before, after = self.encoder.special_pieces
        rows = [
            torch.tensor([*before, *document.pieces[window.start : window.end], *after])
            for document, window in zip(documents, windows, strict=True)
        ]
        lengths = torch.tensor([len(row) for row in rows])
        pieces = pad_sequence(rows, batch_first=True)
        mask = (torch.arange(pieces.shape[1]) < lengths[:, None]).long()
        with torch.autocast("cpu", torch.bfloat16, enabled=has_bfloat16()):
            output = model(input_ids=pieces, attention_mask=mask, output_hidden_states=True)
        layers = output.hidden_states[-1 - self._adapted_layers], output.last_hidden_state
        states = []
        for row, (document, window, some) in enumerate(zip(documents, windows, words, strict=True)):
            wanted = torch.from_numpy(document.piece_of_word[some] - window.start + len(before))
            states.append((layers[0][row, wanted].float(), layers[1][row, wanted].float()))
        return states

    def represent(self, text: str, cache: RepresentationCache | None = None) -> Representation:
        """Return the text as the head sees it, from `cache` where it is there."""
        if cache is None:
            return self._represent(text)
        return cache.get(f"{self.adapter_sha256()} {text}", lambda: self._represent(text))

    def adapter_sha256(self) -> str:
        """Return the hash of all that a representation depends on, besides the text."""
        config = self.config
        digest = hashlib.sha256(f"{self.encoder.sha256} {config.model_dump_json()}".encode())
        for matrix in self._adapter_parameters():
            digest.update(matrix.detach().numpy().tobytes())
        return digest.hexdigest()

    def add_adapter(self) -> list[nn.Parameter]:
        """Return the matrices of the adapter, which gets its start values if there was none."""
        if self.adapted is None:
            torch.manual_seed(self.config.seed)
            self.adapted = _adapt(self.encoder, self.config, self._adapted_layers)
        return self._adapter_parameters()

    def _adapter_parameters(self) -> list[nn.Parameter]:
        parameters = self.adapted.parameters() if self.adapted else ()
        return [parameter for parameter in parameters if parameter.requires_grad]

    @torch.inference_mode()
    def _represent(self, text: str) -> Representation:
        self.eval()
        document = self.encode(text)
        if not len(document.words) or not len(document.pieces):
            none = torch.zeros(0, self.encoder.model.config.hidden_size).half()
            empty = torch.zeros(0, 2, dtype=torch.int32)
            return Representation(empty, empty, none, none, empty[:, 0])
        windows = self.windows(document)
        kept = [words_between(document, window.keep_start, window.keep_end) for window in windows]
        states = []
        for first in range(0, len(windows), BATCH_WINDOWS):
            some = slice(first, first + BATCH_WINDOWS)
            states += self.encode_windows([document] * len(windows[some]), windows[some], kept[some])
        tokens, last = (torch.cat(layer) for layer in zip(*states, strict=True))
        sentence_of_word = torch.from_numpy(document.sentences)
        return Representation(
            torch.from_numpy(document.words).int(),
            torch.from_numpy(document.features).int(),
            normalise_layer(tokens).half(),
            mean_sentences(last, sentence_of_word).half(),
            sentence_of_word.int(),
        )

    def emissions(self, tokens: Tensor, sentences: Tensor, sentence_of_word: Tensor, lexical: Tensor) -> Tensor:
        """Return tag scores (words, types, 3).

        From the encoder `tokens` (words, hidden), `sentences` (sentences, hidden) and `sentence_of_word` (words,); from
        the table `lexical` (words, 3 types), the sum of the rows of each word's features.
        """
        weights = self.head * (self.config.encoder_scale / self.spread)[:, None]
        of_tokens, of_sentences = weights.chunk(2)
        bias = self.bias - self.centre @ weights
        scores = tokens @ of_tokens + (sentences @ of_sentences)[sentence_of_word] + bias + lexical
        return scores.reshape(-1, len(self.types), TAGS)

    @torch.no_grad()
    def standardise(self, representations: Sequence[Representation]) -> None:
        """Take `centre` and `spread` from documents and _PRIOR_OUTPUTS imagined outputs of mean 0 and variance 1.

        They decide what the head's weights mean, so this is for a tagger that has learned nothing.
        """
        layers = [some.tokens for some in representations], [some.sentences for some in representations]
        for layer, centre, spread in zip(layers, self.centre.chunk(2), self.spread.chunk(2), strict=True):
            outputs = torch.cat(layer).float()
            count = len(outputs) + _PRIOR_OUTPUTS
            centre.copy_(outputs.sum(dim=0) / count)
            spread.copy_(((outputs.square().sum(dim=0) + _PRIOR_OUTPUTS) / count - centre.square()).sqrt())

    def extract(self, text: str, cache: RepresentationCache | None = None) -> list[Entity]:
        """Return the text's entities in reading order.

        The windows are joined before the one decoding of the whole text, so no entity is lost at a seam. An entity is
        found if it is likely enough, for which the likeliest of a usual type need be less likely.
        """
        return self.extract_from(text, self.represent(text, cache))

    @torch.inference_mode()
    def extract_from(self, text: str, representation: Representation) -> list[Entity]:
        """Return the entities of a text that was represented already."""
        lexical = embedding_bag(representation.features, self.lexical, mode="sum")
        scores = self.emissions(*representation.encoded(), lexical)
        scores[..., OUTSIDE] -= self.config.outside_penalty
        entities: list[Entity] = []
        for type_index, first_word, last_word, confidence in rank_spans(scores, forbid_orphans(self.transitions)):
            name = self.types[type_index]
            least = self.config.least_confidence
            if name in self.usual_types and all(entity.type != name for entity in entities):
                least = self.config.least_usual_confidence
            if confidence >= least:
                start, end = int(representation.words[first_word, 0]), int(representation.words[last_word, 1])
                entities.append(Entity(name, text[start:end], start, end, confidence))
        return sorted(entities, key=lambda entity: (entity.start, -entity.end, entity.type))

    def copy_with_types(self, types: Sequence[str]) -> "Tagger":
        """Return a copy that also finds `types`, new ones behind the known; the frozen weights are shared."""
        grown = Tagger(self.encoder, (*self.types, *(name for name in types if name not in self.types)), self.config)
        added = len(grown.types) - len(self.types)
        state = self._weights()
        for name in ("head", "bias", "lexical"):
            state[name] = pad(state[name], (0, added * TAGS))
        state["transitions"] = pad(state["transitions"], (0, 0, 0, 0, 0, added))
        grown._set_weights(state)
        grown.usual_types, grown.documents_learned = self.usual_types, self.documents_learned
        return grown

    def save(self, folder: Path) -> None:
        """Write the adapter and head (`tagger.safetensors`) and what they belong to (`tagger.json`)."""
        state = self._weights()
        lexical = state.pop("lexical")
        rows = lexical.any(dim=1).nonzero().squeeze(1)
        tensors = {**state, "lexical_rows": rows.int(), "lexical": lexical[rows]}
        folder.mkdir(parents=True, exist_ok=True)
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "tagger.safetensors")
        description = {
            "encoder": self.encoder.name,
            "encoder_sha256": self.encoder.sha256,
            "types": self.types,
            "usual_types": sorted(self.usual_types),
            "documents_learned": self.documents_learned,
            "config": self.config.model_dump(),
        }
        (folder / "tagger.json").write_text(json.dumps(description, indent=2, ensure_ascii=False))

    @classmethod
    def load(cls, folder: Path, encoder_name: str | None = None) -> "Tagger":
        """Read a saved tagger; `encoder_name` says where its encoder lies here, if not where it lay when saved.

        Raises ValueError if that is another encoder than the one it was trained on.
        """
        description: dict[str, Any] = json.loads((folder / "tagger.json").read_text())
        encoder = load_encoder(encoder_name or description["encoder"])
        if encoder.sha256 != description["encoder_sha256"]:
            raise ValueError(f"The model needs the encoder {description['encoder_sha256']}, not {encoder.sha256}")
        tagger = cls(encoder, description["types"], TrainingConfig(**description["config"]))
        tagger.usual_types = frozenset(description["usual_types"])
        tagger.documents_learned = description["documents_learned"]
        state = load_file(folder / "tagger.safetensors")
        lexical = torch.zeros_like(tagger.lexical)
        lexical[state.pop("lexical_rows").long()] = state["lexical"]
        tagger._set_weights({**state, "lexical": lexical})
        return tagger.eval()

    def _weights(self) -> dict[str, Tensor]:
        own = {name: parameter.detach() for name, parameter in self.named_parameters(recurse=False)}
        adapter = get_peft_model_state_dict(self.adapted) if self.adapted else {}
        return own | {f"adapter.{name}": matrix for name, matrix in adapter.items()}

    @torch.no_grad()
    def _set_weights(self, state: dict[str, Tensor]) -> None:
        for name, parameter in self.named_parameters(recurse=False):
            parameter.copy_(state[name])
        if adapter := {name.removeprefix("adapter."): state[name] for name in state if name.startswith("adapter.")}:
            self.add_adapter()
            set_peft_model_state_dict(self.adapted, adapter)


def normalise_layer(states: Tensor) -> Tensor:
    """Return each vector with mean 0 and variance 1: layers differ widely in scale."""
    return layer_norm(states, states.shape[-1:])


def mean_sentences(states: Tensor, sentence_of_word: Tensor) -> Tensor:
    """Return the normalised mean of `states` (words, hidden) over each sentence, shape (sentences, hidden)."""
    counts = torch.bincount(sentence_of_word)
    sums = states.new_zeros(len(counts), states.shape[1]).index_add(0, sentence_of_word, states)
    return normalise_layer(sums / counts[:, None])


def _adapt(encoder: Encoder, config: TrainingConfig, adapted_layers: int) -> nn.Module:
    """Return the encoder with LoRA (Hu et al., 2021) on all linear maps of its last layers, its weights shared."""
    shared = {id(parameter): parameter for parameter in encoder.model.parameters()}
    model = copy.deepcopy(encoder.model, shared)
    layers_name, layers = next(
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == model.config.num_hidden_layers
    )
    targets = [
        f"{layers_name}.{index}.{name}"
        for index in range(len(layers) - adapted_layers, len(layers))
        for name, module in layers[index].named_modules()
        if isinstance(module, nn.Linear)
    ]
    lora = LoraConfig(r=config.lora_rank, lora_alpha=2 * config.lora_rank, target_modules=targets)
    adapted: nn.Module = get_peft_model(model, lora)
    return adapted
