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
    lora_layers: int = Field(2, description="How many of the encoder's last layers carry the adapter")
    batch_windows: int = Field(8, description="Windows in one optimiser step, and in one forward pass of extraction")
    max_steps: int = Field(40, description="Optimiser steps of one fine-tuning at most")
    enough_loss: float = Field(0.05, description="Stop after an epoch whose mean loss a window, in nats, is below this")
    adapter_learning_rate: float = Field(5e-4, description="AdamW's rate for the adapter")
    head_learning_rate: float = Field(3e-3, description="AdamW's rate for the head on the encoder")
    lexical_learning_rate: float = Field(3e-2, description="AdamW's rate for lexical table, biases and transitions")
    head_dropout: float = Field(0.3, description="Share of the encoder's outputs hidden from the head in training")
    lexical_dropout: float = Field(0.4, description="Share of the lexical features hidden in training")
    empty_windows: float = Field(2.0, description="Windows without an entity for each window with one")
    replay_documents: int = Field(8, description="Earlier documents replayed at most")
    seed: int = Field(0, description="Seed of the adapter's start, the dropout and the order of windows")
