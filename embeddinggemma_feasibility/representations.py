"""Documents as a head sees them, kept on disk: an encoder reads each text once."""

import contextlib
import hashlib
import logging
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Representation:
    """A text's words, and what an encoder and its hashed features say of them.

    `words` (words, 2) character offsets; `features` (words, features) hashed; `tokens` (words, hidden) a middle layer's
    output at each word's first piece; `sentences` (sentences, hidden) the mean of the last layer's over each sentence;
    `sentence_of_word` (words,). Both outputs are normalised and kept in half precision.
    """

    words: Tensor
    features: Tensor
    tokens: Tensor
    sentences: Tensor
    sentence_of_word: Tensor

    def encoded(self, words: slice = slice(None)) -> tuple[Tensor, Tensor, Tensor]:
        """Return of some words `tokens`, of their sentences `sentences`, and `sentence_of_word` among these."""
        of_word = self.sentence_of_word[words].long()
        if not len(of_word):
            return self.tokens[words].float(), self.sentences[:0].float(), of_word
        first, last = int(of_word[0]), int(of_word[-1])
        return self.tokens[words].float(), self.sentences[first : last + 1].float(), of_word - first


class RepresentationCache:
    """A folder of representations by the hash of encoder, adapter and text; the longest unused go when it is full."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder, self._max_bytes = folder, max_bytes

    def get(self, key: str, compute: Callable[[], Representation]) -> Representation:
        """Return what is kept under a key, computed and kept now if it was not; a file that is broken is replaced.

        Where nothing can be kept, say on a full disk, it is computed each time, with a warning.
        """
        path = self._folder / f"{hashlib.sha256(key.encode()).hexdigest()}.safetensors"
        with contextlib.suppress(OSError, SafetensorError):
            os.utime(path)
            return Representation(**load_file(path))
        representation = compute()
        try:
            self._keep(path, {field.name: getattr(representation, field.name) for field in fields(representation)})
        except (OSError, SafetensorError) as error:
            _logger.warning("What the encoder has read of a document cannot be kept: %s", error)
        return representation

    def _keep(self, path: Path, tensors: dict[str, Tensor]) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._make_room(sum(tensor.nbytes for tensor in tensors.values()))
        with tempfile.TemporaryDirectory(dir=self._folder) as folder:
            save_file(tensors, Path(folder) / path.name)
            (Path(folder) / path.name).replace(path)

    def _make_room(self, size: int) -> None:
        kept = []
        for path in self._folder.glob("*.safetensors"):
            with contextlib.suppress(FileNotFoundError):
                kept.append((path.stat().st_mtime, path.stat().st_size, path))
        total = size + sum(entry[1] for entry in kept)
        for _, freed, path in sorted(kept):
            if total <= self._max_bytes:
                break
            path.unlink(missing_ok=True)
            total -= freed
