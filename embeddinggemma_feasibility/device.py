"""Where the encoder computes."""

from typing import Literal

import torch


def choose_device(setting: Literal["auto", "cpu", "cuda"]) -> torch.device:
    """Return the device that the setting asks for; `auto` is the GPU if torch finds one.

    It may initialise CUDA, which does not survive a fork: call it only in a process that does not fork. Raises
    RuntimeError if `cuda` is asked for and torch finds no GPU.
    """
    has_gpu = torch.cuda.is_available()
    if setting == "cuda" and not has_gpu:
        raise RuntimeError("CONTRACT_FEEDBACK_DEVICE is cuda, but torch finds no GPU: choose auto or cpu")
    return torch.device("cuda" if has_gpu and setting != "cpu" else "cpu")
