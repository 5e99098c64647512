"""The base encoder: by name, folder or packaged default, frozen, known by the hash of its weights."""

import hashlib
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import torch
from huggingface_hub import snapshot_download
from transformers import AutoModel, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from embeddinggemma_feasibility.packaged_encoder import find_packaged_weights, read_packaged_encoder

PACKAGED = "packaged"


@dataclass(frozen=True)
class Encoder:
    """A frozen base encoder and its tokenizer; `sha256` is of its weights' files, one after the other."""

    name: str
    sha256: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase

    @cached_property
    def special_pieces(self) -> tuple[list[int], list[int]]:
        """Return the ids that the encoder expects before and after a text."""
        encoding = self.tokenizer("a", return_special_tokens_mask=True)
        ids, special = encoding["input_ids"], encoding["special_tokens_mask"]
        first, last = special.index(0), len(special) - special[::-1].index(0)
        return ids[:first], ids[last:]


@lru_cache(maxsize=2)
def load_encoder(name: str = PACKAGED) -> Encoder:
    """Load an encoder by `packaged` (multilingual-e5-small), a local folder, or its name on the hub."""
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    if name == PACKAGED:
        files = [find_packaged_weights()]
        model, tokenizer = read_packaged_encoder()
    else:
        folder = _folder(name)
        files = sorted(folder.glob("*.safetensors"))
        model = AutoModel.from_pretrained(folder, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.model_max_length = 10**9
    model.train(mode=False).requires_grad_(False)
    return Encoder(name, _sha256(files), model, tokenizer)


def has_bfloat16() -> bool:
    """Tell whether the processor multiplies in bfloat16; without it bfloat16 is emulated, and slower than float32."""
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def _folder(name: str) -> Path:
    if Path(name).is_dir():
        return Path(name)
    return Path(snapshot_download(name, allow_patterns=["*.json", "*.safetensors", "*.txt", "*.model"]))


def _sha256(files: list[Path]) -> str:
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
