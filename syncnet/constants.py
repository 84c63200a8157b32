"""Numbers that the SyncNet network fixes."""

FRAME_RATE = 25  # frames of video a second that SyncNet sees, whatever the input's rate
SAMPLE_RATE = 16000  # samples of sound a second
SAMPLES_PER_FRAME = SAMPLE_RATE // FRAME_RATE
MILLISECONDS_PER_FRAME = 1000 // FRAME_RATE
WINDOW_FRAMES = 5  # frames that SyncNet compares with their 0.2 s of sound
MIN_FRAMES = WINDOW_FRAMES + 1  # the last window that would fit is never scored, so that this many give one
