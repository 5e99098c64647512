"""A document as the tagger's head reads it: computed by the encoder once, and kept on disk."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

FORMAT = 1  # raise it when the fields, their shapes or their meaning change: cached ones are then not found any more


@dataclass(frozen=True, eq=False)
class Representation:
    """A text's words, what the encoder returned for them, and their lexical features.

    The encoder's outputs are normalised and in half precision, to save disk space.

    :param words: Character offsets of each word, the end exclusive.
        Shape: (words, 2)
    :param features: Each word's hashed lexical features: rows of the tagger's table.
        Shape: (words, features)
    :param tokens: A middle layer's output at each word's first piece.
        Shape: (words, hidden)
    :param sentences: The last layer's outputs, averaged over each sentence.
        Shape: (sentences, hidden)
    :param sentence_of_word: Index of each word's sentence.
        Shape: (words,)
    """

    words: Tensor
    features: Tensor
    tokens: Tensor
    sentences: Tensor
    sentence_of_word: Tensor

    def encoder_outputs(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the encoder's outputs in single precision, as the tagger reads them.

        :returns: `tokens`, `sentences`, and `sentence_of_word`.
            Shapes: (words, hidden), (sentences, hidden), (words,)
        """
        return self.tokens.float(), self.sentences.float(), self.sentence_of_word.long()

    def cut(self, words: slice) -> "Representation":
        """Return a copy of consecutive words, at least one, with the sentences they stand in."""
        sentence_of_word = self.sentence_of_word[words]
        first, last = int(sentence_of_word[0]), int(sentence_of_word[-1])
        return Representation(
            self.words[words].clone(),
            self.features[words].clone(),
            self.tokens[words].clone(),
            self.sentences[first : last + 1].clone(),
            sentence_of_word - first,
        )

    def save(self, file: Path) -> None:
        """Write a safetensors file; raises OSError if that fails, as on a full disk."""
        try:
            save_file(vars(self), file)
        except SafetensorError as error:
            raise OSError(f"Cannot write {file}: {error}") from error

    @classmethod
    def load(cls, file: Path, rows: int) -> "Representation":
        """Read a saved representation; `features` are less than `rows`. Raises OSError if it is missing or damaged."""
        try:
            loaded = cls(**load_file(file))
        except (SafetensorError, TypeError) as error:  # TypeError: it has other fields
            raise OSError(f"Cannot read {file}: {error}") from error
        if not (_is_within(loaded.features, rows) and _is_within(loaded.sentence_of_word, len(loaded.sentences))):
            raise OSError(f"{file} is damaged")
        return loaded


def hash_text(text: str) -> str:
    """Return half of a text's SHA-256: the names of its representations in a cache start with it, and so do no others.

    The other half of a name is that of the hash of the encoding.
    """
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _is_within(indices: Tensor, length: int) -> bool:
    return not indices.numel() or bool(indices.min() >= 0 and indices.max() < length)
