"""The stages that the SyncNet scripts share, from a video file to scores."""

__version__ = "1.0.0"
