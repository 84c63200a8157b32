"""The stages shared by the SyncNet scripts, from a video file to scores."""

__version__ = "1.0.0"
