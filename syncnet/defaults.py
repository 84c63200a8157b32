"""Default values of the flags, for the scripts and for the stages. This module imports nothing."""

FACEDET_SCALE = 0.25  # factor on the frame's size
CROP_SCALE = 0.40  # margin relative to the face's size
MIN_TRACK = 100  # frames
NUM_FAILED_DET = 25  # frames
MIN_FACE_SIZE = 100  # pixels
SCENE_THRESHOLD = 27.0
BATCH_SIZE = 20  # windows
VSHIFT = 15  # frames
SPEAKER_THRESHOLD = 2.0  # confidence
MIN_SPEAKING = 0.4  # seconds
MIN_SPAN = 1.0  # seconds
MAX_LAG = 600.0  # milliseconds

# The filter keeps shorter tracks and smaller faces than run_pipeline.
FILTER_MIN_TRACK = 50  # frames
FILTER_MIN_FACE_SIZE = 50  # pixels

PUBLISHED, DIRECT = "published", "direct"
MODES = (PUBLISHED, DIRECT)
DETECT_EVERY = 5  # frames between two that direct mode looks for faces in
FLOAT32, BFLOAT16 = "float32", "bfloat16"
PRECISIONS = (FLOAT32, BFLOAT16)
