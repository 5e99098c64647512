"""The model: a frozen encoder with a LoRA adapter, lexical features, and a CRF for each entity type."""

import hashlib
import json
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import embedding_bag, layer_norm
from torch.nn.utils.rnn import pad_sequence

from embeddinggemma_feasibility.annotation_data import Entity
from embeddinggemma_feasibility.calibration import Calibration
from embeddinggemma_feasibility.disk_cache import DiskCache
from embeddinggemma_feasibility.encoders import Encoder, has_bfloat16, load_encoder
from embeddinggemma_feasibility.lora import add_lora
from embeddinggemma_feasibility.representations import FORMAT, Representation, hash_text
from embeddinggemma_feasibility.span_crf import SCORED_TAGS, TAGS, constrain_transitions, rank_spans, unflatten_scores
from embeddinggemma_feasibility.training_config import TrainingConfig
from embeddinggemma_feasibility.windows import EncodedDocument, Window, encode_document, split_windows, words_between

BATCH_WINDOWS = 16
_PRIOR_OUTPUTS = 10
_OF_ENCODING = {"window_pieces", "window_overlap", "lexical_buckets", "adapted_share", "lora_rank", "lora_share"}
_UNKNOWN = -6.0  # the score of a type of which nothing is known, in nats: a span of it is very unlikely


class Tagger(nn.Module):
    """Finds the spans of `types` in a text.

    Each word has a score for the tags B and I of each type; that of O is 0. The scores are the sum of two parts: a
    linear head on the encoder's outputs, namely a middle layer's at the word's first piece and the adapted last layer's
    averaged over the word's sentence; and the rows of the word's lexical features in a hashed table. The encoder's
    outputs are standardised with `centre` and `spread`, computed from the documents of the first fine-tuning. `adapted`
    is the encoder with its adapter, None until that is first trained, on documents with `adapted_spans` spans.

    `calibration` turns the posterior probabilities of its spans into the confidences of the extracted entities.
    """

    centre: Tensor
    spread: Tensor

    def __init__(self, encoder: Encoder, types: Sequence[str], config: TrainingConfig) -> None:
        super().__init__()
        self.encoder, self.config, self.types = encoder, config, tuple(types)
        self.calibration = Calibration()
        layers = encoder.model.config.num_hidden_layers
        self._layers_above_middle = max(1, round(config.adapted_share * layers))
        self._lora_layers = max(1, round(config.lora_share * layers))
        self.adapted_spans = 0
        self.adapted: nn.Module | None = None
        hidden, outputs = encoder.model.config.hidden_size, len(self.types) * SCORED_TAGS
        self.head = nn.Parameter(torch.zeros(2 * hidden, outputs))
        self.bias = nn.Parameter(torch.full((outputs,), _UNKNOWN))
        self.lexical = nn.Parameter(torch.zeros(config.lexical_buckets, outputs))
        self.transitions = nn.Parameter(torch.zeros(len(self.types), TAGS, TAGS))
        self.register_buffer("centre", torch.zeros(2 * hidden))
        self.register_buffer("spread", torch.ones(2 * hidden))

    def forward(self, tokens: Tensor, sentences: Tensor, sentence_of_word: Tensor, lexical: Tensor) -> Tensor:
        """Return the tag scores of each word for each type, in nats.

        :param tokens: The encoder's middle layer at each word's first piece, as `normalise_layer` returns it.
            Shape: (words, hidden)
        :param sentences: The encoder's last layer averaged over each sentence, as `average_sentences` returns it.
            Shape: (sentences, hidden)
        :param sentence_of_word: Index of each word's sentence.
            Shape: (words,)
        :param lexical: Sum of the lexical table's rows for each word's features.
            Shape: (words, types * 2)
        :returns: Emissions of the CRF.
            Shape: (words, types, 3)
        """
        weights = self.head * (self.config.encoder_scale / self.spread)[:, None]
        token_weights, sentence_weights = weights.chunk(2)
        bias = self.bias - self.centre @ weights
        scores = tokens @ token_weights + (sentences @ sentence_weights)[sentence_of_word] + bias + lexical
        return unflatten_scores(scores)

    def encode(self, text: str) -> EncodedDocument:
        """Split a text into words and pieces with this model's tokenizer."""
        return encode_document(text, self.encoder.tokenizer, self.config.lexical_buckets)

    def windows(self, document: EncodedDocument) -> list[Window]:
        """Return the document's overlapping windows, in order."""
        return split_windows(len(document.pieces), self.config.window_pieces, self.config.window_overlap)

    def encode_windows(
        self, documents: Sequence[EncodedDocument], windows: Sequence[Window], words: Sequence[slice]
    ) -> list[tuple[Tensor, Tensor]]:
        """Run the encoder on a batch of windows, each with its document and the words wanted from it.

        :returns: For each window, the middle and the last layer's output at the first piece of each wanted word.
            Shapes: (words, hidden), (words, hidden)
        """
        model = self.adapted or self.encoder.model
        before, after = self.encoder.special_pieces
        rows = [
            torch.tensor([*before, *document.pieces[window.start : window.end], *after])
            for document, window in zip(documents, windows, strict=True)
        ]
        lengths = torch.tensor([len(row) for row in rows])
        pieces = pad_sequence(rows, batch_first=True)
        mask = (torch.arange(pieces.shape[1]) < lengths[:, None]).long()
        device = self.encoder.model.device
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type != "cpu" or has_bfloat16()):
            output = model(input_ids=pieces.to(device), attention_mask=mask.to(device), output_hidden_states=True)
        middle, last = output.hidden_states[-1 - self._layers_above_middle], output.last_hidden_state
        outputs = []
        for row, (document, window, wanted) in enumerate(zip(documents, windows, words, strict=True)):
            columns = torch.from_numpy(document.piece_of_word[wanted] - window.start + len(before))
            outputs.append((middle[row, columns].float().cpu(), last[row, columns].float().cpu()))
        return outputs

    def represent(self, text: str, cache: DiskCache | None = None) -> Representation:
        """Return the head's input for a text, from `cache` if it is there; otherwise compute and cache it.

        If another thread computes it for the same cache, wait for that one.
        """
        if cache is None:
            return self._represent(text)
        sha256 = self.cache_key(text)
        with cache.lock(sha256):
            representation = cache.load(sha256, self._load_representation)
            if representation is None:
                representation = self._represent(text)
                cache.add(sha256, representation.save)
            return representation

    def cache_key(self, text: str) -> str:
        """Return the key of a text's representation in a cache."""
        return hash_text(text) + self.encoding_sha256()[:32]

    def encoding_sha256(self) -> str:
        """Return the hash of all that a representation depends on, apart from the text."""
        config = self.config.model_dump_json(include=_OF_ENCODING)
        digest = hashlib.sha256(f"{FORMAT} {self.encoder.sha256} {config}".encode())
        for matrix in self._adapter_parameters():
            digest.update(matrix.detach().cpu().numpy().tobytes())
        return digest.hexdigest()

    def add_adapter(self) -> list[nn.Parameter]:
        """Return the adapter's matrices; create the adapter first if there is none."""
        if self.adapted is None:
            torch.manual_seed(self.config.seed)
            self.adapted = add_lora(self.encoder.model, self.config.lora_rank, self._lora_layers)
        return self._adapter_parameters()

    def _adapter_parameters(self) -> list[nn.Parameter]:
        parameters = self.adapted.parameters() if self.adapted else ()
        return [parameter for parameter in parameters if parameter.requires_grad]

    def _load_representation(self, file: Path) -> Representation:
        return Representation.load(file, len(self.lexical))

    @torch.inference_mode()
    def _represent(self, text: str) -> Representation:
        self.eval()
        document = self.encode(text)
        if not len(document.words) or not len(document.pieces):
            no_outputs = torch.zeros(0, self.encoder.model.config.hidden_size).half()
            no_words = torch.zeros(0, 2, dtype=torch.int32)
            return Representation(no_words, no_words, no_outputs, no_outputs, no_words[:, 0])
        windows = self.windows(document)
        kept = [words_between(document, window.keep_start, window.keep_end) for window in windows]
        outputs = []
        for first in range(0, len(windows), BATCH_WINDOWS):
            batch = slice(first, first + BATCH_WINDOWS)
            outputs += self.encode_windows([document] * len(windows[batch]), windows[batch], kept[batch])
        tokens, last = (torch.cat(layer) for layer in zip(*outputs, strict=True))
        sentence_of_word = torch.from_numpy(document.sentences)
        return Representation(
            torch.from_numpy(document.words).int(),
            torch.from_numpy(document.features).int(),
            normalise_layer(tokens).half(),
            average_sentences(last, sentence_of_word).half(),
            sentence_of_word.int(),
        )

    @torch.no_grad()
    def standardise(self, representations: Sequence[Representation]) -> None:
        """Compute `centre` and `spread` from the documents of the first fine-tuning.

        Ten more outputs with mean 0 and variance 1 are assumed, so that a short document's spread is not too small.
        Call this before the head is trained: its weights apply to outputs that are standardised in this way.
        """
        layers = [some.tokens for some in representations], [some.sentences for some in representations]
        for layer, centre, spread in zip(layers, self.centre.chunk(2), self.spread.chunk(2), strict=True):
            outputs = torch.cat(layer).float()
            count = len(outputs) + _PRIOR_OUTPUTS
            centre.copy_(outputs.sum(dim=0) / count)
            spread.copy_(((outputs.square().sum(dim=0) + _PRIOR_OUTPUTS) / count - centre.square()).sqrt())

    def extract(self, text: str, cache: DiskCache | None = None) -> list[Entity]:
        """Return the text's entities in reading order.

        The outputs of all windows are joined and decoded at once, so the windows' edges split no entity.
        """
        return self.read(text, cache)[0]

    def read(self, text: str, cache: DiskCache | None = None) -> tuple[list[Entity], float]:
        """Return what `extract` does, and how many values are expected to be wrong or missing."""
        ranked = self.rank(text, cache)
        entities = sorted(self.calibration.select(ranked), key=lambda entity: (entity.start, -entity.end, entity.type))
        return entities, self.calibration.count_uncertain(ranked)

    @torch.inference_mode()
    def rank(self, text: str, cache: DiskCache | None = None) -> list[Entity]:
        """Return the text's likely entities, likeliest first; the confidence is the posterior, not calibrated."""
        representation = self.represent(text, cache)
        lexical = embedding_bag(representation.features, self.lexical, mode="sum")
        scores: Tensor = self(*representation.encoder_outputs(), lexical)
        entities = []
        for type_index, first_word, last_word, posterior in rank_spans(scores, constrain_transitions(self.transitions)):
            start, end = int(representation.words[first_word, 0]), int(representation.words[last_word, 1])
            entities.append(Entity(self.types[type_index], text[start:end], start, end, posterior))
        return entities

    def has_learned(self) -> Tensor:
        """Return for each type whether its weights were ever trained.

        :returns: A mask of the types.
            Shape: (types,)
        """
        return self.transitions.flatten(1).any(dim=1)

    def copy_with_types(self, types: Sequence[str]) -> "Tagger":
        """Return a copy for exactly these types, new ones without any knowledge; the encoder's weights are shared."""
        copy = self.copy_without_knowledge(types)
        copy.calibration = self.calibration
        copy.take_types(self)
        return copy

    def copy_without_knowledge(self, types: Sequence[str]) -> "Tagger":
        """Return a tagger for these types that has learned nothing, and shares this one's adapter and buffers."""
        copy = Tagger(self.encoder, types, self.config)
        copy._set_tensors({"centre": self.centre, "spread": self.spread})
        copy.adapted, copy.adapted_spans = self.adapted, self.adapted_spans
        return copy

    @torch.no_grad()
    def take_types(self, other: "Tagger") -> None:
        """Overwrite what this tagger knows of the types that it shares with another one."""
        shared = [name for name in other.types if name in self.types]
        own = torch.tensor([self.types.index(name) for name in shared], dtype=torch.long)
        theirs = torch.tensor([other.types.index(name) for name in shared], dtype=torch.long)
        self.transitions[own] = other.transitions[theirs]
        for name in ("head", "bias", "lexical"):
            target, source = (_split_types(getattr(each, name)) for each in (self, other))
            target[..., own, :] = source[..., theirs, :]

    @torch.no_grad()
    def forget(self) -> None:
        """Set all weights but the adapter's to their initial values."""
        for parameter in (self.head, self.lexical, self.transitions):
            parameter.zero_()
        self.bias.fill_(_UNKNOWN)

    @torch.no_grad()
    def mix_in(self, others: Sequence["Tagger"], share: float) -> None:
        """Move the weights towards the mean of those of taggers for the same types; with `share` 1, to the mean."""
        for name, own in self.named_parameters(recurse=False):
            own.lerp_(torch.stack([getattr(other, name) for other in others]).mean(0), share)

    def save(self, folder: Path) -> None:
        """Write head and adapter to `tagger.safetensors`, all else to `tagger.json`, except the encoder."""
        tensors = self._own_tensors() | self._adapter_tensors()
        lexical = tensors.pop("lexical")
        rows = lexical.any(dim=1).nonzero().squeeze(1)
        tensors |= {"lexical_rows": rows.int(), "lexical": lexical[rows]}
        folder.mkdir(parents=True, exist_ok=True)
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "tagger.safetensors")
        description = {
            "encoder": self.encoder.name,
            "encoder_sha256": self.encoder.sha256,
            "types": self.types,
            "calibration": self.calibration.model_dump(),
            "adapted_spans": self.adapted_spans,
            "config": self.config.model_dump(),
        }
        (folder / "tagger.json").write_text(json.dumps(description, indent=2, ensure_ascii=False), "utf-8")

    @classmethod
    def load(cls, folder: Path, encoder_name: str | None = None) -> "Tagger":
        """Read a saved tagger; `encoder_name` is needed where the encoder has another name than when it was saved.

        Raises ValueError if the encoder is not the one that the tagger was trained on.
        """
        description: dict[str, Any] = json.loads((folder / "tagger.json").read_text("utf-8"))
        encoder = load_encoder(encoder_name or description["encoder"])
        if encoder.sha256 != description["encoder_sha256"]:
            raise ValueError(f"The model needs the encoder {description['encoder_sha256']}, not {encoder.sha256}")
        tagger = cls(encoder, description["types"], TrainingConfig(**{"lora_share": 1 / 4} | description["config"]))
        tagger.calibration = Calibration(**description.get("calibration", {}))
        tagger.adapted_spans = description.get("adapted_spans", 0)
        tensors = load_file(folder / "tagger.safetensors")
        if "calibration" not in description:
            tensors |= {name: _subtract_outside(tensors[name]) for name in ("head", "bias", "lexical")}
        lexical = torch.zeros_like(tagger.lexical)
        lexical[tensors.pop("lexical_rows").long()] = tensors["lexical"]
        tagger._set_tensors({**tensors, "lexical": lexical})
        return tagger.eval()

    def _own_tensors(self) -> dict[str, Tensor]:
        named = chain(self.named_parameters(recurse=False), self.named_buffers(recurse=False))
        return {name: tensor.detach() for name, tensor in named}

    def _adapter_tensors(self) -> dict[str, Tensor]:
        tensors = get_peft_model_state_dict(self.adapted) if self.adapted else {}
        return {f"adapter.{name}": tensor for name, tensor in tensors.items()}

    @torch.no_grad()
    def _set_tensors(self, tensors: dict[str, Tensor]) -> None:
        for name, own in self._own_tensors().items():
            if name in tensors:
                own.copy_(tensors[name])
        if adapter := {name.removeprefix("adapter."): tensors[name] for name in tensors if name.startswith("adapter.")}:
            self.add_adapter()
            set_peft_model_state_dict(self.adapted, adapter)


def _subtract_outside(weights: Tensor) -> Tensor:
    """Return the weights of a version that had a score for O, too, relative to that score.

    :param weights: Weights of the earlier version.
        Shape: (..., types * 3)
    :returns: Weights of the tags B and I.
        Shape: (..., types * 2)
    """
    by_tag = weights.reshape(*weights.shape[:-1], -1, TAGS)
    return (by_tag[..., 1:] - by_tag[..., :1]).flatten(-2)


def _split_types(weights: Tensor) -> Tensor:
    """Return a view of weights by type and tag.

    :param weights: Weights of the tags B and I.
        Shape: (..., types * 2)
    :returns: The same weights.
        Shape: (..., types, 2)
    """
    return weights.view(*weights.shape[:-1], -1, SCORED_TAGS)


def normalise_layer(outputs: Tensor) -> Tensor:
    """Return each vector with mean 0 and variance 1, since the scale differs widely between layers.

    :param outputs: A layer's outputs.
        Shape: (..., hidden)
    :returns: The normalised outputs.
        Shape: (..., hidden)
    """
    return layer_norm(outputs, outputs.shape[-1:])


def average_sentences(outputs: Tensor, sentence_of_word: Tensor) -> Tensor:
    """Return the normalised mean of a layer's outputs over each sentence.

    :param outputs: A layer's output for each word.
        Shape: (words, hidden)
    :param sentence_of_word: Index of each word's sentence.
        Shape: (words,)
    :returns: One vector for each sentence.
        Shape: (sentences, hidden)
    """
    counts = torch.bincount(sentence_of_word)
    sums = outputs.new_zeros(len(counts), outputs.shape[1]).index_add(0, sentence_of_word, outputs)
    return normalise_layer(sums / counts[:, None])
