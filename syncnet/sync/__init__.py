"""From distances to results: offset, confidence, min dist and the speaking face."""
