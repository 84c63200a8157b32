"""Face detectors."""

from .s3fd import S3FD

__all__ = ["S3FD"]
