"""Media files: ffmpeg and its conversions, what containers say of themselves, frames as streams."""
