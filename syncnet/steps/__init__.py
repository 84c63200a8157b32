"""The steps of the published suite, each of which reads and writes files."""
