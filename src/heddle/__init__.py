"""heddle turns GPUs - one workstation, a cluster, a fleet - into one shared AI platform."""

__version__ = "0.1.0"
