"""The processes of a run: one alone, or those that torchrun started, on any number of machines.

What ranks tell each other besides tensors goes over the CPU (gloo), also where gradients go over NCCL.
"""

import contextlib
import os
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

from curation.errors import UsageProblem, WorkerLost
from curation.tables import number

_PATIENCE = timedelta(minutes=10)  # for a rank that does not answer; it may write a checkpoint
_LOOKS_S = 0.05  # how often the first rank looks who asks
_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """This process among those of the run."""

    device: torch.device
    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether it is the one that talks and writes the log."""
        return self.rank == 0

    def gathered(self, value: _Value) -> list[_Value]:
        """What every rank gives, in their order, on every rank."""
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        with speaking():
            dist.all_gather_object(found, value)
        return found

    def told(self, value: _Value) -> _Value:
        """What the first rank gives, on every rank."""
        if self.size == 1:
            return value
        box = [value]
        with speaking():
            dist.broadcast_object_list(box, src=0)
        return box[0]

    def gatherer_for_a_thread(self) -> Callable[[Any], list[Any]]:
        """`gathered` over a group of its own, for a thread whose calls come at times of their own."""
        if self.size == 1:
            return lambda value: [value]
        with speaking():
            group = dist.new_group(backend="gloo", timeout=_PATIENCE)

        def gathered(value: Any) -> list[Any]:
            found: list[Any] = [None] * self.size
            with speaking():
                dist.all_gather_object(found, value, group=group)
            return found

        return gathered


@contextlib.contextmanager
def joined(device: str | None = None, *, repeatably: bool = True) -> Iterator[World]:
    """Meet the other ranks, where torchrun started some.

    Args:
        repeatably: see `repeatable`.
        device: as torch names it; None: the GPU of the rank, or the CPU where there is none.

    Raises:
        UsageProblem: there is no such device.
        WorkerLost: another rank went away.
    """
    rank, size, local = (int(os.environ.get(n, d)) for n, d in _PLACES)
    chosen = _device(device, local, ranks=int(os.environ.get("LOCAL_WORLD_SIZE", 1)))
    if chosen.type == "cuda":
        if repeatably:
            repeatable()
        torch.cuda.set_device(chosen)
    if size == 1:
        yield World(device=chosen)
        return
    backend = "cpu:gloo,cuda:nccl" if chosen.type == "cuda" else "gloo"
    with speaking():
        store, rank, size = next(rendezvous("env://", rank, size, timeout=_PATIENCE))
        store = dist.PrefixStore(_token(store, rank, size), store)  # type: ignore[attr-defined]
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=_PATIENCE)
    yield World(device=chosen, rank=rank, size=size)
    # not where the block failed: ranks that are gone would be waited for
    dist.destroy_process_group()


def _token(store: Any, rank: int, size: int) -> str:
    """A word that the processes of this attempt share, and those of earlier ones did not.

    The store of torchrun outlives its restarts, and so do the addresses in it: gloo would call processes
    that are gone. So each rank asks the first one under a name that was never there, which answers
    whoever asks until all have heard it.
    """
    if rank:
        name = secrets.token_hex(8)
        store.set(f"asks/{rank}", name)
        told: str = store.get(f"told/{name}").decode()  # waits for it
        store.set(f"heard/{told}/{rank}", "")
        return told
    token = secrets.token_hex(8)
    missing = set(range(1, size))
    until_s = time.monotonic() + _PATIENCE.total_seconds()
    while missing and time.monotonic() < until_s:
        for other in missing:
            if store.check([f"asks/{other}"]):  # it may be a name of before; that hurts nobody
                store.set(f"told/{store.get(f'asks/{other}').decode()}", token)
        missing = {other for other in missing if not store.check([f"heard/{token}/{other}"])}
        time.sleep(_LOOKS_S if missing else 0)
    if missing:
        raise _lost(TimeoutError(f"ranks {sorted(missing)} did not come"))
    return token


_PLACES = (("RANK", 0), ("WORLD_SIZE", 1), ("LOCAL_RANK", 0))  # as torchrun names them


def repeatable() -> None:
    """Have a GPU sum in the same order each time, so that a resumed run is the unbroken one there.

    It costs about a twentieth of a step of S: flash attention takes longer than cuDNN's. What has no
    such way raises RuntimeError.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # as cuBLAS wants it, before it begins
    torch.use_deterministic_algorithms(True)
    torch.backends.cuda.enable_cudnn_sdp(False)  # its gradients differ from time to time
    # we write all that we read
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def _device(name: str | None, local: int, *, ranks: int) -> torch.device:
    """Of this rank, among so many of its machine.

    Raises:
        UsageProblem: there is no such device, or not one for each.
    """
    count = torch.cuda.device_count()
    if name is None:
        name = "cuda" if count else "cpu"
    try:
        chosen = torch.device(name)
    except RuntimeError as error:
        raise UsageProblem(
            f"--device {name}, expected cpu, cuda or cuda:0 — name one of these"
        ) from error
    if chosen.type not in ("cpu", "cuda") or (chosen.type == "cuda" and (chosen.index or 0) >= count):
        raise UsageProblem(
            f"--device {name}: this machine has {count or 'no'} CUDA devices, expected one of them — "
            "leave it out to take what is there"
        )
    if chosen.type == "cuda" and ranks > (count if chosen.index is None else 1):
        there = number(count, "GPU") if chosen.index is None else chosen
        raise UsageProblem(
            f"{ranks} processes on a machine for {there}, expected a GPU for each — give torchrun "
            f"--nproc-per-node {count} and leave --device out, or take --device cpu"
        )
    return torch.device("cuda", local) if name == "cuda" else chosen


@contextlib.contextmanager
def speaking() -> Iterator[None]:
    """Turn what torch raises where another rank is gone into our error."""
    try:
        yield
    except (dist.DistBackendError, dist.DistNetworkError, dist.DistStoreError) as error:
        raise _lost(error) from error
    except RuntimeError as error:  # gloo raises no kind of its own
        if "gloo" in str(error).lower() or "Connection" in str(error):
            raise _lost(error) from error
        raise


def _lost(error: Exception) -> WorkerLost:
    return WorkerLost(
        f"another rank of the run does not answer ({str(error).splitlines()[0][:160]}), expected all of "
        "them — start the run again, which goes on from its last checkpoint; torchrun --max-restarts "
        "does so by itself"
    )
