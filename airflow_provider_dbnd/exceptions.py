"""Every error this package raises on purpose, by who can fix it.

    DbndError
    |- ParameterError(ValueError)             a value is missing, unknown or does not fit its type
    |- SignatureError(TypeError)              a function's signature cannot be used as a task or pipeline
    |- ResultError(TypeError)                 what a function returned is not what its annotation says
    |- GraphError(ValueError)                 tasks are wired in a way that cannot work
    |- ConfigurationError(ValueError)         dbnd.toml, an environment or a setting is wrong
    |- FormatNotFoundError(LookupError)       no format for this type or extension
    |- FormatError(ValueError)                a value does not survive the format, or a file cannot be read
    |- MissingDependencyError(ImportError)    an optional library is not installed
    |- FingerprintError(ValueError)           a function's code cannot be told from another version of it
    |- StoreError(OSError)                    the artifact store refused a read or a write
    |  |- ArtifactNotFoundError(FileNotFoundError)
    |  `- ArtifactCorruptedError              bytes or content differ from what the reference promises
    |- TaskFailedError(RuntimeError)          a task's function failed; carries where to look
    `- EngineError(RuntimeError)              an engine could not run a task, or lost it
       |- CodeDeliveryError                   a task's code cannot travel, or cannot be loaded there
       `- VersionMismatchError                the two sides run versions that do not fit

Each also is the builtin a Python caller would expect, so ``except ValueError`` works.
"""

from __future__ import annotations


class DbndError(Exception):
    """Root of all errors raised by this package."""


class ParameterError(DbndError, ValueError):
    """A parameter's value is missing, unknown, or does not fit its type."""


class SignatureError(DbndError, TypeError):
    """A function's signature cannot be used as a task or a pipeline."""


class ResultError(DbndError, TypeError):
    """What a task's function returned is not what its annotation says."""


class GraphError(DbndError, ValueError):
    """Tasks are wired in a way that cannot work."""


class ConfigurationError(DbndError, ValueError):
    """A configuration file, environment or setting is wrong."""


class FormatNotFoundError(DbndError, LookupError):
    """No format is registered for a type or a file extension."""


class FormatError(DbndError, ValueError):
    """A value would not survive its format, or a file is not what its extension says."""


class MissingDependencyError(DbndError, ImportError):
    """An optional library is not installed; the message carries the install command."""


class FingerprintError(DbndError, ValueError):
    """A function's code has no fingerprint, so that no result of it can be reused."""


class StoreError(DbndError, OSError):
    """The artifact store refused a read or a write."""


class ArtifactNotFoundError(StoreError, FileNotFoundError):
    """The object a reference names is not in the store."""


class ArtifactCorruptedError(StoreError):
    """The stored bytes or the data in them differ from what the reference promises."""


class TaskFailedError(DbndError, RuntimeError):
    """A task's function failed; the message names the task and its manifest."""


class EngineError(DbndError, RuntimeError):
    """An engine could not run a task, or lost it; the message names the engine, the job and a remedy."""


class CodeDeliveryError(EngineError):
    """A task's code cannot travel to another machine, or cannot be loaded there."""


class VersionMismatchError(EngineError):
    """What sends a task and what runs it are of versions that do not fit together."""
