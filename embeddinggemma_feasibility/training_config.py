"""What is trained, and how: logged to MLflow and saved beside the adapter."""

from pydantic import BaseModel, ConfigDict, Field


class TrainingConfig(BaseModel):
    """Everything that decides what a fine-tuning makes of its annotations, besides the annotations.

    The numbers were chosen on contracts that are not scored: `docs/experiments.md`.
    """

    model_config = ConfigDict(frozen=True)

    window_pieces: int = Field(254, description="Pieces the encoder sees at once, without special tokens")
    window_overlap: int = Field(64, description="Pieces two neighbouring windows share")
    lexical_buckets: int = Field(2**17, description="Rows of the hashed table of lexical features")
    lora_rank: int = Field(8, description="Rank of the adapter's matrices")
    adapted_share: float = Field(1 / 4, description="Share of the encoder's layers, the last ones, with the adapter")
    encoder_scale: float = Field(
        0.1, description="Standard deviation of what the head sees of the encoder: the smaller, the dearer its weights"
    )
    sample_words: int = Field(100, description="Words in one sample of the head's training")
    l2: float = Field(0.3, description="Half of it times the squared weights is added to the summed loss, in nats")
    first_iterations: int = Field(
        20, description="L-BFGS iterations of the head's first training, and after an adapter's"
    )
    later_iterations: int = Field(15, description="L-BFGS iterations of a champion's head")
    adapter_steps: int = Field(64, description="Optimiser steps of the adapter when it is its turn")
    adapter_batch_windows: int = Field(4, description="Windows of the encoder in one optimiser step of the adapter")
    first_adaptation: int = Field(128, description="Documents learned at the adapter's first turn, then twice as many")
    adapter_learning_rate: float = Field(5e-4, description="AdamW's rate for the adapter")
    empty_samples: float = Field(2.0, description="Samples without an entity for each sample with one")
    replay_documents: int = Field(32, description="Earlier documents replayed at most")
    replay_samples: int = Field(400, description="Samples of earlier documents at most")
    outside_penalty: float = Field(0.5, description="Nats taken from the score of 'no entity' in extraction")
    least_confidence: float = Field(0.3, description="Least posterior probability of an entity that is found")
    least_usual_confidence: float = Field(0.05, description="The same for the likeliest entity of a usual type")
    seed: int = Field(0, description="Seed of the adapter's start and the choice of samples")
