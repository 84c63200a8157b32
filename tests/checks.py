"""What must hold after a run that could not do its work."""

import json


def one_error(ran, *words, code=1):
    """The run ended with one line on stderr, which has all words in it, and nothing on stdout."""
    assert ran.code == code, ran
    assert len(ran.err) == 1, ran.err
    assert ": error: " in ran.err[0]
    for word in words:
        assert str(word) in ran.err[0]
    assert "Traceback" not in "".join(ran.out + ran.err)


def nothing_half_finished(layout):
    """No scratch, no file or folder under a name for unfinished ones, and tracks only with their clips."""
    if layout.data_dir.is_dir():
        assert not [path for path in layout.data_dir.rglob("*") if ".part" in path.name]
        assert not layout.tmp.exists()
    if layout.tracks.exists():
        assert layout.crops.is_dir()


def reason_codes(layout):
    """Words of the reasons in scores.json, which has no track."""
    report = json.loads(layout.scores.read_text(encoding="utf-8"))
    assert report["tracks"] == []
    assert report["speakers"] == []
    return [reason["code"] for reason in report["reasons"]]


def nothing_to_use(layout, *codes):
    """What a failed run leaves: the reasons in scores.json and nothing that a later step would take for results."""
    nothing_half_finished(layout)
    assert reason_codes(layout) == list(codes)
    assert not layout.crops.exists()
    assert not layout.tracks.exists()
    assert not layout.offsets.exists()


def scored_without_track(ran, layout, *codes):
    """A run that ended well without a track: each reason is in scores.json and on stderr."""
    assert ran.code == 0, ran
    nothing_half_finished(layout)
    assert reason_codes(layout) == list(codes)
    assert layout.crop_files() == []
    report = json.loads(layout.scores.read_text(encoding="utf-8"))
    for reason in report["reasons"]:
        assert [line for line in ran.err if line.endswith(reason["text"])], ran.err
