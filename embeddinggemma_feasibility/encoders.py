"""The frozen base encoder, identified by the hash of its weights."""

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
    """A frozen base encoder and its tokenizer; `sha256` is the hash of its concatenated weight files."""

    name: str
    sha256: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase

    @cached_property
    def special_pieces(self) -> tuple[list[int], list[int]]:
        """Return the ids of the special pieces that the encoder expects before and after a text."""
        encoding = self.tokenizer("a", return_special_tokens_mask=True)
        ids, special = encoding["input_ids"], encoding["special_tokens_mask"]
        first, last = special.index(0), len(special) - special[::-1].index(0)
        return ids[:first], ids[last:]


@lru_cache(maxsize=2)
def load_encoder(name: str = PACKAGED) -> Encoder:
    """Load an encoder: `packaged` (multilingual-e5-small), a local folder, or a name on the Hugging Face hub."""
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    if name == PACKAGED:
        files = [find_packaged_weights()]
        model, tokenizer = read_packaged_encoder()
    else:
        folder = _find_folder(name)
        files = sorted(folder.glob("*.safetensors"))
        model = AutoModel.from_pretrained(folder, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.model_max_length = 10**9
    model.train(mode=False).requires_grad_(False)
    return Encoder(name, _hash_files(files), model, tokenizer)


def has_bfloat16() -> bool:
    """Return whether the processor multiplies in bfloat16; emulated, bfloat16 is slower than float32."""
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def _find_folder(name: str) -> Path:
    if Path(name).is_dir():
        return Path(name)
    return Path(snapshot_download(name, allow_patterns=["*.json", "*.safetensors", "*.txt", "*.model"]))


def _hash_files(files: list[Path]) -> str:
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
