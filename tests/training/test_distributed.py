"""The device of each process of a run."""

import pytest
import torch

from curation.errors import UsageProblem
from training.run import distributed


@pytest.fixture(autouse=True)
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


@pytest.mark.parametrize("name", [None, "cuda"])
def test_each_process_of_a_machine_has_a_gpu_of_its_own(name: str | None) -> None:
    found = [distributed._device(name, local, ranks=2) for local in range(2)]
    assert found == [torch.device("cuda:0"), torch.device("cuda:1")]


def test_one_process_takes_the_gpu_that_is_named() -> None:
    assert distributed._device("cuda:1", 0, ranks=1) == torch.device("cuda:1")
    assert distributed._device("cpu", 3, ranks=8) == torch.device("cpu")


@pytest.mark.parametrize(
    ("name", "ranks", "message"),
    [
        (None, 4, r"^4 processes on a machine for 2 GPUs, expected a GPU for each — .*-per-node 2"),
        ("cuda", 3, r"^3 processes on a machine for 2 GPUs"),
        ("cuda:1", 2, r"^2 processes on a machine for cuda:1"),
        ("cuda:2", 1, r"^--device cuda:2: this machine has 2 CUDA devices"),
        ("tpu:0", 1, r"^--device tpu:0, expected cpu, cuda or cuda:0"),
    ],
)
def test_devices_that_do_not_suffice_are_refused(name: str | None, ranks: int, message: str) -> None:
    with pytest.raises(UsageProblem, match=message):
        distributed._device(name, 0, ranks=ranks)
