"""Every error specee raises on purpose, and its one warning.

Each message names the value received, what is allowed, and what to do. All errors derive from
:class:`SpeceeError`; those that stand for a bad argument also derive from :class:`ValueError`, so
callers who know nothing of specee can still catch them.
"""

from __future__ import annotations


class SpeceeError(Exception):
    """Base class of all errors raised on purpose by specee."""


class ConfigurationError(SpeceeError, ValueError):
    """An option or environment variable has a value that is not allowed."""


class KernelArgumentError(SpeceeError, ValueError):
    """A tensor or size given to a GPU kernel's launcher is not one that it takes."""


class FallbackWarning(UserWarning):
    """A transformers model is left to transformers' own, slower loop; the message says why."""


class BackendUnavailableError(SpeceeError, RuntimeError):
    """A backend was asked for that this build or machine does not have."""


class DeviceError(SpeceeError, RuntimeError):
    """A call of a device's driver failed; the message has the driver's words."""


class CheckpointError(SpeceeError, ValueError):
    """A checkpoint cannot be used: missing, damaged, or inconsistent with its configuration."""


class UnsupportedModelError(CheckpointError):
    """The checkpoint is sound, but its architecture or an option of it is not supported."""


class DownloadError(SpeceeError, RuntimeError):
    """A model could not be fetched, and is not in the cache either."""


class RowError(SpeceeError, ValueError):
    """A row, parent, path or layer passed to a sequence or backend does not exist or does not fit."""


class CapacityError(SpeceeError, ValueError):
    """A sequence has no room for the rows asked for, or a context is longer than the model's."""


class NumericalError(SpeceeError, ArithmeticError):
    """A computation left the range of its number format: a hidden state is infinite or not a number."""


class OutOfMemoryError(SpeceeError, MemoryError):
    """Memory for weights or a KV cache could not be reserved; nothing was started."""
