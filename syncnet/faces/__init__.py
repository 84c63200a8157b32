"""From frames to face tracks: face detection, scene detection, tracking and cropping."""
