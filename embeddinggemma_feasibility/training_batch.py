"""Samples concatenated to one input of the tagger, and their loss."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor
from torch.func import functional_call

from embeddinggemma_feasibility.samples import Sample
from embeddinggemma_feasibility.span_crf import constrain_transitions, negative_log_likelihood
from embeddinggemma_feasibility.tagger import Tagger


@dataclass(frozen=True, eq=False)
class TrainingBatch:
    """One or more samples, concatenated: the input of `Tagger.forward`, and the gold tags.

    :param tokens: The encoder's middle layer at each word's first piece.
        Shape: (words, hidden)
    :param sentences: The encoder's last layer averaged over each sentence.
        Shape: (sentences, hidden)
    :param sentence_of_word: Index of each word's sentence.
        Shape: (words,)
    :param features: Hashed lexical features of each word.
        Shape: (words, features)
    :param tags: Gold tag of each word for each type.
        Shape: (words, types)
    :param lengths: Words in each sample.
        Shape: (samples,)
    :param reviewed: 1 for each type that a sample's document was reviewed for, else 0.
        Shape: (samples, types)
    """

    tokens: Tensor
    sentences: Tensor
    sentence_of_word: Tensor
    features: Tensor
    tags: Tensor
    lengths: Tensor
    reviewed: Tensor

    @classmethod
    def of_samples(cls, samples: Sequence[Sample]) -> "TrainingBatch":
        """Concatenate samples of represented documents."""
        return cls.concatenate(
            [
                cls(
                    *sample.representation.encoder_outputs(),
                    features=sample.representation.features,
                    tags=sample.tags,
                    lengths=torch.tensor([len(sample.tags)]),
                    reviewed=sample.reviewed[None],
                )
                for sample in samples
            ]
        )

    @classmethod
    def concatenate(cls, batches: Sequence["TrainingBatch"]) -> "TrainingBatch":
        """Return one batch with the samples of all."""
        offsets = accumulate((len(batch.sentences) for batch in batches), initial=0)
        return cls(
            torch.cat([batch.tokens for batch in batches]),
            torch.cat([batch.sentences for batch in batches]),
            torch.cat([batch.sentence_of_word + offset for batch, offset in zip(batches, offsets, strict=False)]),
            torch.cat([batch.features for batch in batches]),
            torch.cat([batch.tags for batch in batches]),
            torch.cat([batch.lengths for batch in batches]),
            torch.cat([batch.reviewed for batch in batches]),
        )

    def loss(self, tagger: Tagger, parameters: Mapping[str, Tensor], lexical: Tensor, sample_weights: Tensor) -> Tensor:
        """Return the negative log-likelihood, in nats, summed over samples and reviewed types.

        :param parameters: Parameters that replace the tagger's own of the same name.
        :param lexical: Sum of the lexical table's rows for each word's features.
            Shape: (words, types * 2)
        :param sample_weights: How much each sample counts.
            Shape: (samples,)
        :returns: The loss.
            Shape: ()
        """
        inputs = self.tokens, self.sentences, self.sentence_of_word, lexical
        emissions = functional_call(tagger, dict(parameters), inputs)
        transitions = constrain_transitions(parameters.get("transitions", tagger.transitions))
        losses = negative_log_likelihood(emissions, transitions, self.tags, self.lengths)
        return (losses * self.reviewed * sample_weights[:, None]).sum()
