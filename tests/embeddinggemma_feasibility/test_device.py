import pytest
import torch

from embeddinggemma_feasibility.device import choose_device

has_gpu = torch.cuda.is_available()


def test_auto_is_the_gpu_if_there_is_one_and_cpu_is_always_the_cpu() -> None:
    assert choose_device("auto").type == ("cuda" if has_gpu else "cpu")
    assert choose_device("cpu").type == "cpu"


@pytest.mark.skipif(has_gpu, reason="There is a GPU")
def test_cuda_without_a_gpu_is_refused() -> None:
    with pytest.raises(RuntimeError, match="finds no GPU"):
        choose_device("cuda")
