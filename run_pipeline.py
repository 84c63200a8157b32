"""Find the face tracks of a video and write each of them as a clip with audio.

    python run_pipeline.py --videofile video.mp4 --reference name --data_dir output

Then run run_syncnet.py and run_visualise.py with the same three flags.
"""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING

from syncnet import cli

if TYPE_CHECKING:
    from syncnet.faces.detect import Detector
    from syncnet.faces.tracks import Face
    from syncnet.models.weights import Weights
    from syncnet.results.layout import Layout
    from syncnet.steps.pipeline import PipelineResult


def get_parser() -> argparse.ArgumentParser:
    """Return the parser of the script's flags."""
    parser = cli.new_parser(__doc__)
    cli.add_layout(parser)
    cli.add_frame_rate(parser)
    cli.add_tracking(parser)
    cli.add_device(parser)
    return parser


@cli.script
def main(args: argparse.Namespace) -> None:
    """Run the script."""
    layout = cli.required_reference(args)
    cli.check_libraries()
    from syncnet import progress
    from syncnet.errors import WeightsError
    from syncnet.models import weights
    from syncnet.steps import pipeline

    def load_detector() -> Detector:
        from detectors import S3FD

        return S3FD(args.device, weights=args.s3fd_weights)

    def find_weights() -> Weights | None:
        try:
            return weights.choose(weights.S3FD, args.s3fd_weights)
        except WeightsError:
            return None  # the error in the video is reported instead

    started = time.perf_counter()

    def on_faces(index: int, faces: list[Face]) -> None:
        if args.verbose:
            rate = (index + 1) / (time.perf_counter() - started)  # mean so far, because frames are processed in batches
            print(f"{layout.video}-{index:05d}; {len(faces)} dets; {rate:.2f} Hz")

    result = pipeline.run(
        args.videofile,
        layout,
        pipeline.PipelineSettings.from_flags(args),
        load_detector=load_detector,
        find_weights=find_weights,
        progress=progress.bar(quiet=args.quiet),
        on_faces=on_faces,
    )
    report(result, layout)


def report(result: PipelineResult, layout: Layout) -> None:
    """Print the result: the lines of the published suite on stdout, a summary and the reasons on stderr."""
    if result.scenes:
        print(f"{layout.video} - scenes detected {len(result.scenes)}")
    for file, path in zip(layout.crop_files(), result.paths):
        print(f"Written {file.with_suffix('')}")
        print(f"Mean pos: x {path.x.mean():.2f} y {path.y.mean():.2f} s {path.s.mean():.2f}")
    faces = result.faces
    if faces and faces.frames_with_faces:
        cli.logger.info(
            "faces in %d of %d frames, at most %d in one, sizes %.0f / %.0f / %.0f pixels (smallest, median, largest); "
            "%d tracks",
            faces.frames_with_faces,
            faces.frames,
            faces.most_faces,
            faces.smallest,
            faces.median,
            faces.largest,
            len(result.tracks),
        )
    for reason in result.reasons:
        cli.logger.warning("%s: %s", layout.reference, reason.text)


if __name__ == "__main__":
    cli.run(main)
