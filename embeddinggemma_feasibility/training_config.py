"""The hyperparameters of a fine-tuning: logged to MLflow and saved with the model."""

from pydantic import BaseModel, ConfigDict, Field


class TrainingConfig(BaseModel):
    """All that determines the result of a fine-tuning, apart from the annotations, the encoder and the champion.

    The defaults were chosen on contracts that are not used for scoring: `docs/experiments.md`.
    """

    model_config = ConfigDict(frozen=True)

    window_pieces: int = Field(254, description="Pieces in one window of the encoder, without special tokens")
    window_overlap: int = Field(64, description="Pieces that two neighbouring windows share")
    lexical_buckets: int = Field(2**15, description="Rows of the hashed table of lexical features")
    adapted_share: float = Field(
        1 / 4, description="Share of the encoder's layers, the last ones, above the one that is read at each word"
    )
    lora_rank: int = Field(16, description="Rank of the adapter's matrices")
    lora_share: float = Field(1 / 2, description="Share of the encoder's layers, the last ones, with the adapter")
    encoder_scale: float = Field(
        0.1,
        description="Standard deviation that the encoder's outputs are scaled to; "
        "the smaller it is, the more strongly the L2 penalty shrinks their weights",
    )
    sample_words: int = Field(100, description="Words in one sample of the head's training")
    l2: float = Field(1.0, description="Least L2 penalty: half of it times the squared weights is added to the loss")
    l2_of_sample: float = Field(
        0.002, description="L2 penalty for each sample, by weight; it replaces `l2` where their sum is greater"
    )
    first_iterations: int = Field(60, description="L-BFGS iterations of a head that starts from nothing")
    later_iterations: int = Field(10, description="L-BFGS iterations of a head that starts from a champion's")
    consolidation_iterations: int = Field(150, description="L-BFGS iterations of a head in a consolidation")
    consolidation_documents: int = Field(500, description="Documents that a consolidation learns from at most")
    consolidation_samples: int = Field(8000, description="Samples of a consolidation at most")
    first_adaptation: int = Field(2000, description="Annotated spans from which on a consolidation trains the adapter")
    adapter_epochs: float = Field(2.5, description="How often the adapter's training reads each window")
    adapter_batch_windows: int = Field(4, description="Windows of the encoder in one optimiser step of the adapter")
    adapter_learning_rate: float = Field(1e-3, description="AdamW's highest learning rate for the adapter")
    adapter_warmup: float = Field(0.1, description="Share of the steps in which the learning rate rises to that")
    empty_samples: float = Field(2.0, description="Samples without an entity for each sample with one")
    replay_documents: int = Field(32, description="Earlier documents that are replayed at most")
    replay_samples: int = Field(400, description="Samples of earlier documents at most")
    seed: int = Field(0, description="Seed of the adapter's initial weights and of the choice of samples")
