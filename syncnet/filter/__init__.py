"""The filter: score a folder of videos and sort them into good and poor ones."""
