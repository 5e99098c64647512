"""The model: a frozen encoder with a LoRA adapter, lexical features beside it, a CRF for each type on top."""

import copy
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import dropout, embedding_bag, pad
from torch.nn.utils.rnn import pad_sequence

from embeddinggemma_feasibility.annotation_data import Entity
from embeddinggemma_feasibility.encoders import Encoder, has_bfloat16, load_encoder
from embeddinggemma_feasibility.span_crf import TAGS, decode, forbid_orphans
from embeddinggemma_feasibility.training_config import TrainingConfig
from embeddinggemma_feasibility.windows import EncodedDocument, Window, encode_document, split_windows, words_between


class Tagger(nn.Module):
    """Finds the spans of `types` in a text.

    A word's tag scores are the sum of a linear head on the adapted encoder's output at its first piece and of the rows
    of its lexical features (case, shape, digits, neighbours, place) in a hashed table, which the encoder does not see.
    """

    def __init__(self, encoder: Encoder, types: Sequence[str], config: TrainingConfig) -> None:
        super().__init__()
        self.encoder, self.config, self.types = encoder, config, tuple(types)
        torch.manual_seed(config.seed)
        self.adapted = _adapt(encoder, config)
        hidden, outputs = encoder.model.config.hidden_size, len(self.types) * TAGS
        self.head = nn.Parameter(torch.zeros(hidden, outputs))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.lexical = nn.Parameter(torch.zeros(config.lexical_buckets, outputs))
        self.transitions = nn.Parameter(torch.zeros(len(self.types), TAGS, TAGS))

    def encode(self, text: str) -> EncodedDocument:
        """Return the text as this model reads it."""
        return encode_document(text, self.encoder.tokenizer, self.config.lexical_buckets)

    def windows(self, document: EncodedDocument) -> list[Window]:
        """Return the document's overlapping windows, in order."""
        return split_windows(len(document.pieces), self.config.window_pieces, self.config.window_overlap)

    def hidden_states(self, documents: Sequence[EncodedDocument], windows: Sequence[Window]) -> Tensor:
        """Return the adapted encoder's output for the pieces of each document's window: (windows, pieces, hidden)."""
        before, after = self.encoder.special_pieces
        rows = [
            torch.tensor([*before, *document.pieces[window.start : window.end], *after])
            for document, window in zip(documents, windows, strict=True)
        ]
        lengths = torch.tensor([len(row) for row in rows])
        pieces = pad_sequence(rows, batch_first=True)
        mask = (torch.arange(pieces.shape[1]) < lengths[:, None]).long()
        with torch.autocast("cpu", torch.bfloat16, enabled=has_bfloat16()):
            output = self.adapted(input_ids=pieces, attention_mask=mask).last_hidden_state
        states: Tensor = output[:, len(before) :].float()
        return states

    def emissions(self, hidden: Tensor, features: Tensor) -> Tensor:
        """Return tag scores (words, types, 3) from `hidden` (words, hidden) and `features` (words, features)."""
        hidden = nn.functional.layer_norm(hidden, hidden.shape[-1:])
        hidden = dropout(hidden, self.config.head_dropout, self.training)
        kept = dropout(torch.ones(features.shape), self.config.lexical_dropout, self.training)
        lexical = embedding_bag(features, self.lexical, mode="sum", per_sample_weights=kept)
        return (hidden @ self.head + self.bias + lexical).reshape(-1, len(self.types), TAGS)

    @torch.inference_mode()
    def extract(self, text: str) -> list[Entity]:
        """Return the text's entities in reading order.

        The windows' scores are joined before the one decoding of the whole text, so no entity is lost at a seam.
        """
        self.eval()
        document = self.encode(text)
        if not len(document.words) or not len(document.pieces):
            return []
        windows, batch = self.windows(document), self.config.batch_windows
        kept = []
        for first in range(0, len(windows), batch):
            some = windows[first : first + batch]
            for window, states in zip(some, self.hidden_states([document] * len(some), some), strict=True):
                words = words_between(document, window.keep_start, window.keep_end)
                kept.append(states[document.piece_of_word[words] - window.start])
        scores = self.emissions(torch.cat(kept), torch.from_numpy(document.features))
        entities = []
        for type_index, first_word, last_word, confidence in decode(scores, forbid_orphans(self.transitions)):
            start, end = int(document.words[first_word, 0]), int(document.words[last_word, 1])
            entities.append(Entity(self.types[type_index], text[start:end], start, end, confidence))
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
        state = load_file(folder / "tagger.safetensors")
        lexical = torch.zeros_like(tagger.lexical)
        lexical[state.pop("lexical_rows").long()] = state["lexical"]
        tagger._set_weights({**state, "lexical": lexical})
        return tagger.eval()

    def _weights(self) -> dict[str, Tensor]:
        own = {name: parameter.detach() for name, parameter in self.named_parameters(recurse=False)}
        return {**own, **{f"adapter.{name}": value for name, value in get_peft_model_state_dict(self.adapted).items()}}

    @torch.no_grad()
    def _set_weights(self, state: dict[str, Tensor]) -> None:
        for name, parameter in self.named_parameters(recurse=False):
            parameter.copy_(state[name])
        adapter = {name.removeprefix("adapter."): value for name, value in state.items() if name.startswith("adapter.")}
        set_peft_model_state_dict(self.adapted, adapter)


def _adapt(encoder: Encoder, config: TrainingConfig) -> nn.Module:
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
        for index in range(max(0, len(layers) - config.lora_layers), len(layers))
        for name, module in layers[index].named_modules()
        if isinstance(module, nn.Linear)
    ]
    lora = LoraConfig(r=config.lora_rank, lora_alpha=2 * config.lora_rank, target_modules=targets)
    adapted: nn.Module = get_peft_model(model, lora)
    return adapted
