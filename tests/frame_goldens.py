"""Write frame_goldens.json, with an ffmpeg 5.1 and its own ``-r 25``.

SYNCNET_FFMPEG=/path/to/ffmpeg-5.1 python -m tests.frame_goldens
"""

import json
import tempfile
from pathlib import Path
from unittest import mock

from syncnet.media import conversions
from tests import numbered


def main() -> None:
    """Convert every numbered video and write the numbers of its frames."""
    lines = []
    with mock.patch.object(conversions, "rate_flags", lambda timing, script, keeps_gaps: ("-r", "25")):
        for name, (suffix, arguments) in numbered.cases().items():
            with tempfile.TemporaryDirectory() as folder:
                source = numbered.write(Path(folder) / f"source{suffix}", **arguments)
                numbers, count = numbered.converted(source, Path(folder))
            golden = {"frames_in_avi": count, "numbers": numbers}
            lines.append(f" {json.dumps(name)}: {json.dumps(golden, separators=(',', ':'))}")
    text = "{\n" + ",\n".join(lines) + "\n}\n"
    (Path(__file__).parent / "media" / "frame_goldens.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
