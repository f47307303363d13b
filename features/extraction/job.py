"""What all tasks of an extraction have in common, as plain data that goes to other processes."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from features.inputs.prepared import InputConfig
from features.weights.published import WeightChoice

Facts = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """How clips become rows, and with which machine."""

    sample_rate_hz: int
    weights: WeightChoice
    precision: Literal["fp32", "bf16"]
    device: str  # "cpu", "cuda:0"
    threads: int  # of torch
    decoders: int  # processes
    video_batch: int  # clips that are encoded at once: these cuts may decide the last bit
    audio_batch: int  # … of those without picture
    inputs: InputConfig
    shard_rows: int  # at most, of a shard

    def as_json(self) -> dict[str, Any]:
        """As data that JSON can hold."""
        told = {name.name: getattr(self, name.name) for name in fields(self)}
        weights = asdict(self.weights)
        folder = weights["folder"]
        weights["folder"] = None if folder is None else str(folder.absolute())
        return {**told, "weights": weights, "inputs": asdict(self.inputs)}

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> "Job":
        """What `as_json` told."""
        weights = dict(told["weights"])
        if weights["folder"] is not None:
            weights["folder"] = Path(weights["folder"])
        inputs: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in told["inputs"].items()
        }
        return cls(**{**told, "weights": WeightChoice(**weights), "inputs": InputConfig(**inputs)})


@dataclass(slots=True)
class Effort:
    """What was done, and who waited for whom, since this was told last."""

    clips: int = 0  # with a file, that are rows or rejected
    texts: int = 0
    busy_s: float = 0.0  # from the first batch asked for to the last one written
    encoder_wait_s: float = 0.0  # of that, for something to encode
    decoder_wait_s: float = 0.0  # of that, decoded clips for an encoder

    def add(self, other: "Effort") -> None:
        """Take in what another told."""
        for name in ("clips", "texts", "busy_s", "encoder_wait_s", "decoder_wait_s"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
