"""Constants that the SyncNet network requires."""

FRAME_RATE = 25  # fps to which every input is converted
SAMPLE_RATE = 16000  # audio samples per second
SAMPLES_PER_FRAME = SAMPLE_RATE // FRAME_RATE
MILLISECONDS_PER_FRAME = 1000 // FRAME_RATE
WINDOW_FRAMES = 5  # frames that SyncNet compares with the 0.2 s of audio of the same time
# Shortest clip with a score. The published suite never scores the last window that fits; kept for comparability.
MIN_FRAMES = WINDOW_FRAMES + 1
