"""From distances to results: offset, confidence, min dist, and who speaks."""
