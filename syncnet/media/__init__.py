"""Media files: running ffmpeg and its conversions, reading container metadata, streaming frames."""
