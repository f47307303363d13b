"""Every error a user can meet, with the exit code of the command that ends in it.

    FoleyproofError                 1   anything below
    ├── UsageProblem                2   what was asked for does not exist or was not made yet
    ├── BadCard                     1   a card is incomplete, or its SQL is refused
    ├── BadMetadata                 1   a metadata file is not what its card describes
    ├── BadManifest                 1   a built file cannot be read
    ├── BadWeights                  1   a checkpoint does not fit its network
    │   └── WrongWeights           13   a file of weights is not the one it should be
    ├── NotWritable                 1   a file or folder that is written is in the way or read-only
    ├── ManifestChanged            13   bytes differ from what a completion record or certificate says
    ├── ConfigDiffers              12   options or manifest differ from those a result was made with
    ├── RemoteRefuses              15   a server will not give a file, or not now
    ├── TransferFailed              1   a file could not be fetched, however often it was tried
    ├── Locked                     11   another process works in the same folder
    ├── WorkerLost                  1   a process that did a part of the work died
    └── NoSpace                    14   the disk is full

A message has three parts: what came in (value, clip, file), what was expected, what to do.
One bad row is never an error: it becomes a row in `problems.parquet` (see `verdict.py`).
"""


class FoleyproofError(Exception):
    """Base of all errors shown to a user as one message."""

    exit_code = 1


class UsageProblem(FoleyproofError):
    """A name is unknown, or an earlier stage has not run; the message names the command that helps."""

    exit_code = 2


class BadCard(FoleyproofError):
    """A dataset card lacks a field, contradicts itself, or holds SQL that is refused."""


class BadMetadata(FoleyproofError):
    """A metadata file is missing, truncated, empty, or not in the format its card describes."""


class BadManifest(FoleyproofError):
    """A built Parquet file or record cannot be read."""


class BadWeights(FoleyproofError):
    """The tensors of a checkpoint are not those of the network, or it cannot be kept."""


class WrongWeights(BadWeights):
    """A file of weights is not the published one, not what it was before, or asks to run code."""

    exit_code = 13


class NotWritable(FoleyproofError):
    """The system refuses a file or folder that is written: permissions, a file in its place."""


class ManifestChanged(FoleyproofError):
    """A file differs from what its completion record or certificate says."""

    exit_code = 13


class ConfigDiffers(FoleyproofError):
    """A clean manifest or a folder of shards is there and was made with other options or rows."""

    exit_code = 12


class RemoteRefuses(FoleyproofError):
    """A server refuses: not allowed, or asked too often."""

    exit_code = 15


class TransferFailed(FoleyproofError):
    """A file could not be fetched; the next run continues it."""


class Locked(FoleyproofError):
    """Another process holds the lock of this folder, or of this part of a stage."""

    exit_code = 11


class WorkerLost(FoleyproofError):
    """A worker process died, most often for want of memory; what is done is kept."""


class NoSpace(FoleyproofError):
    """The disk is full; nothing was left half written."""

    exit_code = 14
