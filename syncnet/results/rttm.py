"""Who speaks when in RTTM, the format that diarisation tools compare.

NIST, "The Rich Transcription 2009 Evaluation Plan", appendix A: one line per span, ten fields. A label is a face track,
so a person who is seen in two shots has two.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

UNKNOWN = "<NA>"
CHANNEL = 1


def lines(report: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of an RTTM file.

    Args:
        report: content of scores.json. The video's name without suffix is the name of the file in the lines; in it,
            whitespace becomes an underscore, because fields are separated by spaces.
    """
    name = re.sub(r"\s+", "_", Path(report["videofile"]).stem)
    for span in report["speakers"]:
        duration = span["end"] - span["start"]
        yield (
            f"SPEAKER {name} {CHANNEL} {span['start']:.3f} {duration:.3f} {UNKNOWN} {UNKNOWN} track{span['track']} "
            f"{span['confidence']:.3f} {UNKNOWN}\n"
        )
