"""The steps of the published suite: each from files to files."""
