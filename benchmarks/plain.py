"""The plain formulation of the scripts: one step after the other, with the networks' modules as specified.

    python -m benchmarks.plain pipeline --videofile video.mp4 --data_dir work --s3fd_weights s3fd.pt --min_track 50
    python -m benchmarks.plain syncnet --data_dir work --initial_model syncnet.pt
    python -m benchmarks.plain demo --videofile clip.avi --data_dir work --initial_model syncnet.pt

``benchmarks.processes`` compares the suite's scripts with it. One frame at a time passes through the detector, and its
boxes are decoded and suppressed one by one; 20 windows at a time pass through SyncNet, with the whole clip in memory;
nothing runs in parallel. It writes the same files and prints the offset and confidence of every track.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import nn

from detectors.s3fd import CANDIDATE_IOU, PIXEL_MEANS, SCALES_IOU, resize
from detectors.s3fd.box_utils import SIZES, STEPS, VARIANCES, map_sizes
from syncnet import defaults
from syncnet.constants import FRAME_RATE, WINDOW_FRAMES
from syncnet.faces.crops import CROP_SIZE, crop_face, cut_audio, smooth, video_writer
from syncnet.faces.detect import CONFIDENCE
from syncnet.faces.scenes import detect_scenes, frame_numbers, new_manager
from syncnet.faces.tracks import Face, Track, iou, track_faces
from syncnet.media import conversions
from syncnet.media.containers import check_streams
from syncnet.media.fingerprint import behaviour
from syncnet.models.weights import load_s3fd, load_syncnet
from syncnet.results.layout import (
    Layout,
    crop_audio_file,
    crop_file,
    frame_file,
    frame_files,
    make_folder,
    scratch_audio,
    silent_crop_file,
)
from syncnet.sync import scoring

REFERENCE = "plain"


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=("pipeline", "syncnet", "demo"))
    parser.add_argument("--videofile")
    parser.add_argument("--data_dir", required=True)
    parser.add_argument("--s3fd_weights")
    parser.add_argument("--initial_model")
    parser.add_argument("--min_track", type=int, default=defaults.MIN_TRACK)
    return parser


def detect(
    net: nn.Module, image: np.ndarray, device: torch.device, *, scale: float = defaults.FACEDET_SCALE
) -> list[tuple[float, ...]]:
    """Detect the faces of one frame, box by box.

    Args:
        net: The detector's network.
        image: H x W x 3, uint8, RGB.
        device: Device of the network.
        scale: Scale of detection.

    Returns:
        Rows of x1, y1, x2, y2, score, in pixels of the frame.
    """
    height, width = image.shape[:2]
    small = resize(image, scale)
    pixels = torch.from_numpy(small).to(device).permute(2, 0, 1)[None].float()
    with torch.no_grad():
        locations, scores = net(pixels - torch.tensor(PIXEL_MEANS, device=device)[:, None, None])
    rows, columns = small.shape[:2]
    centres = [
        ((j + 0.5) * step / columns, (i + 0.5) * step / rows, size / columns, size / rows)
        for (h, w), step, size in zip(map_sizes(rows, columns), STEPS, SIZES)
        for i in range(h)
        for j in range(w)
    ]
    boxes = []
    for (x, y, w, h), (dx, dy, dw, dh), score in zip(centres, locations[0].tolist(), scores[0].tolist()):
        if score > CONFIDENCE:
            x, y = x + dx * VARIANCES[0] * w, y + dy * VARIANCES[0] * h
            w, h = w * np.exp(dw * VARIANCES[1]), h * np.exp(dh * VARIANCES[1])
            boxes.append(((x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height, score))
    for threshold in (CANDIDATE_IOU, SCALES_IOU):
        kept = []
        for box in sorted(boxes, key=lambda b: -b[4]):
            if all(iou(box, other) <= threshold for other in kept):
                kept.append(box)
        boxes = kept
    return boxes


def run_pipeline(videofile: str | Path, layout: Layout, *, s3fd_weights: str | Path, min_track: int) -> None:
    """Convert a video, detect and track its faces, and write the crops."""
    net, _ = load_s3fd(s3fd_weights)
    layout.clear()
    for folder in (layout.frames, layout.crops):
        make_folder(folder)
    conversions.start_conversion(
        videofile,
        layout.video,
        script=layout.crops / "rate.txt",
        streams=check_streams(videofile),
        behaviour=behaviour(),
    ).finish()
    conversions.start_frames(layout.video, layout.frames, quality=conversions.PIPELINE_QUALITY).finish()
    conversions.start_audio(layout.video, layout.audio).finish()
    faces = []
    for index, file in enumerate(frame_files(layout.frames)):
        image = cv2.cvtColor(cv2.imread(str(file)), cv2.COLOR_BGR2RGB)
        found = detect(net, image, torch.device("cpu"))
        faces.append([Face(frame=index, bbox=tuple(box[:4]), conf=box[4]) for box in found])
    scenes = frame_numbers(detect_scenes(layout.video, new_manager()))
    tracking = track_faces(
        faces,
        scenes,
        min_track=min_track,
        num_failed_det=defaults.NUM_FAILED_DET,
        min_face_size=defaults.MIN_FACE_SIZE,
    )
    for number, track in enumerate(tracking.tracks):
        write_crop(number, track, layout)


def write_crop(number: int, track: Track, layout: Layout) -> None:
    """Write the crop of one track."""
    path = smooth(track)
    silent, audio = silent_crop_file(layout.crops, number), crop_audio_file(layout.crops, number)
    with video_writer(silent, frame_rate=FRAME_RATE, width=CROP_SIZE, height=CROP_SIZE) as writer:
        for frame, s, x, y in zip(track.frame, path.s, path.x, path.y):
            image = cv2.imread(str(frame_file(layout.frames, frame)))
            writer.write(crop_face(image, s=s, x=x, y=y, crop_scale=defaults.CROP_SCALE))
    cut_audio(layout.audio, audio, first=track.frame[0], last=track.frame[-1], frame_rate=FRAME_RATE)
    conversions.mux(silent, audio, crop_file(layout.crops, number), frames=len(track.frame))


def score(net: nn.Module, clip: str | Path, folder: Path) -> tuple[int, float]:
    """Return the offset and confidence of one clip; ``folder`` is scratch space."""
    shutil.rmtree(folder, ignore_errors=True)
    make_folder(folder)
    conversions.start_frames(clip, folder).finish()
    conversions.start_audio(clip, scratch_audio(folder), streams=check_streams(clip)).finish()
    images = np.stack([cv2.imread(str(file)) for file in frame_files(folder)], axis=3)
    planes = torch.from_numpy(images.transpose(2, 3, 0, 1).astype(float)).float()  # channels x frames x rows x columns
    samples = conversions.read_wav(scratch_audio(folder))
    audio_windows = torch.from_numpy(scoring.audio_windows(samples))
    count = scoring.window_count(planes.shape[1], scoring.audio_frames(samples))
    video, audio = [], []
    for start in range(0, count, defaults.BATCH_SIZE):
        places = range(start, min(start + defaults.BATCH_SIZE, count))
        with torch.no_grad():
            video.append(net.forward_lip(torch.stack([planes[:, i : i + WINDOW_FRAMES] for i in places])))
            audio.append(net.forward_aud(audio_windows[places[0] : places[-1] + 1]))
    dists = scoring.distances(torch.cat(video), torch.cat(audio), vshift=defaults.VSHIFT)
    found = scoring.score(dists, video_frames=planes.shape[1], audio_frames=scoring.audio_frames(samples))
    return found.offset, found.confidence


def main(argv: Sequence[str] | None = None) -> None:
    args = get_parser().parse_args(argv)
    layout = Layout(Path(args.data_dir), REFERENCE)
    if args.step == "pipeline":
        run_pipeline(args.videofile, layout, s3fd_weights=args.s3fd_weights, min_track=args.min_track)
        return
    net, _ = load_syncnet(args.initial_model)
    clips = [args.videofile] if args.step == "demo" else layout.crop_files()
    json.dump([score(net, clip, layout.tmp) for clip in clips], sys.stdout)


if __name__ == "__main__":
    main()
