"""From frames to face tracks: detection, cuts, tracking, cropping."""
