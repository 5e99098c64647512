"""The adapter of the encoder: LoRA (Hu et al., 2021)."""

import copy

from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import PreTrainedModel


def add_lora(encoder: PreTrainedModel, rank: int, layer_count: int) -> nn.Module:
    """Return the encoder with LoRA on all linear maps of its last layers; the encoder's own weights are shared."""
    shared = {id(parameter): parameter for parameter in encoder.parameters()}
    model = copy.deepcopy(encoder, shared)
    layers_name, layers = next(
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == model.config.num_hidden_layers
    )
    targets = [
        f"{layers_name}.{index}.{name}"
        for index in range(len(layers) - layer_count, len(layers))
        for name, module in layers[index].named_modules()
        if isinstance(module, nn.Linear)
    ]
    adapted: nn.Module = get_peft_model(model, LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=targets))
    return adapted
