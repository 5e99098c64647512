"""The types of work pools."""

from enum import StrEnum


class PoolType(StrEnum):
    """Where runs take place: beside the worker, or in a container each."""

    PROCESS = "process"
    DOCKER = "docker"
    KUBERNETES = "kubernetes"
