"""The filter: scores of a folder of videos, and the folders of good and poor ones."""
