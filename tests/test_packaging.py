"""Flags, their defaults, the documentation, requirements, and code patterns that are forbidden."""

import ast
import importlib
import inspect
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import syncnet.defaults
from syncnet import cli, reasons
from syncnet.filter.quality import PRESETS, Thresholds
from syncnet.filter.scorer import STATUSES

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted(DOCS.glob("*.md"))]
LINKING = [*PAGES, ROOT / "LICENSE.md", ROOT / "data/starter/MODEL_CARD.md"]
LONGEST_README = 250  # lines
SCRIPTS = sorted(path.stem for path in ROOT.glob("*.py") if "def get_parser" in path.read_text(encoding="utf-8"))
SOURCES = [
    *sorted(ROOT.glob("*.py")),
    *(
        path
        for folder in ("syncnet", "detectors", "training", "benchmarks")
        for path in sorted((ROOT / folder).rglob("*.py"))
    ),
]
EVERY_SCRIPT = "Every script"
ARGUMENTS = {  # that get a script as far as loading its libraries, where they are not a reference
    "correct_offset": ["--videofile", "none.mp4", "--output", "none.mp4"],
    "demo_syncnet": [],
    "filter_videos_by_sync_score": ["--input_dir", "tests", "--output_dir", "data/work/none"],
}
# What other people's command lines and scripts rely on.
PUBLISHED_FLAGS = {
    "demo_syncnet": {
        "initial_model": "data/syncnet_v2.model",
        "batch_size": 20,
        "vshift": 15,
        "videofile": "data/example.avi",
        "tmp_dir": "data/work/pytmp",
        "reference": "demo",
    },
    "run_pipeline": {
        "data_dir": "data/work",
        "videofile": "",
        "reference": "",
        "facedet_scale": 0.25,
        "crop_scale": 0.40,
        "min_track": 100,
        "frame_rate": 25,
        "num_failed_det": 25,
        "min_face_size": 100,
    },
    "run_syncnet": {
        "initial_model": "data/syncnet_v2.model",
        "batch_size": 20,
        "vshift": 15,
        "data_dir": "data/work",
        "videofile": "",
        "reference": "",
    },
    "run_visualise": {"data_dir": "data/work", "videofile": "", "reference": "", "frame_rate": 25},
    "correct_offset": {},  # the published suite has neither
    "score_video": {},
    "filter_videos_by_sync_score": {
        "min_confidence": 5.0,
        "max_abs_offset": 3,
        "min_face_size": 50,
        "min_track": 50,
        "max_workers": 2,
        "keep_all": False,
        "preset": None,
    },
}


def flags(script):
    """The flags of a script and their defaults, without --help."""
    parser = importlib.import_module(script).get_parser()
    return {action.dest: action.default for action in parser._actions if action.dest != "help"}


def documented_flags():
    """Return the flags in the tables of docs/flags.md per heading: name -> default as it is printed."""
    found, heading = {}, ""
    for line in (DOCS / "flags.md").read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            heading = line.lstrip("# ").strip("`").removesuffix(".py")
        row = re.match(r"\| `--(\w+)` \|(.*?)\|", line)
        if row:
            assert row[1] not in found.setdefault(heading, {})
            found[heading][row[1]] = row[2].strip(" `")
    return found


def as_printed(value):
    if value is None or value is False or value == "":
        return ""
    return f"{value:g}" if isinstance(value, float) else str(value)


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_has_a_parser_and_a_main(script):
    module = importlib.import_module(script)
    assert callable(module.main)
    assert module.__doc__.strip()
    with pytest.raises(SystemExit) as stop:
        module.main(["--no_such_flag"])
    assert stop.value.code == 2


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_is_quick(script):
    """It does not load the networks' library, which takes seconds."""
    code = (
        "import runpy, sys\n"
        f"sys.argv = ['{script}.py', '--help']\n"
        "try:\n"
        f"    runpy.run_path('{script}.py', run_name='__main__')\n"
        "except SystemExit as stop:\n"
        "    loaded = {'torch', 'cv2', 'scipy', 'scenedetect'} & set(sys.modules)\n"
        "    sys.exit(f'loaded {loaded}' if loaded else stop.code)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "--quiet" in done.stdout
    assert "--verbose" in done.stdout


@pytest.mark.parametrize("script", PUBLISHED_FLAGS)
def test_published_flags_and_defaults_stay(script):
    found = flags(script)
    assert {name: found.get(name, "missing") for name in PUBLISHED_FLAGS[script]} == PUBLISHED_FLAGS[script]


@pytest.mark.parametrize("script", [s for s in SCRIPTS if s != "run_visualise"])
def test_scripts_with_a_network_choose_the_device(script):
    assert flags(script)["device"] == "auto"


def test_stages_have_the_flags_defaults():
    from syncnet.steps import pipeline, visualise
    from syncnet.steps import score as score_step

    stages = (
        ("run_pipeline", pipeline.PipelineSettings),
        ("run_syncnet", score_step.run),
        ("run_visualise", visualise.run),
    )
    for script, stage in stages:
        parameters = inspect.signature(stage).parameters.items()
        found = {name: p.default for name, p in parameters if p.default is not p.empty}
        shared = found.keys() & flags(script).keys()
        assert shared and {name: found[name] for name in shared} == {name: flags(script)[name] for name in shared}


def test_every_default_is_a_flags():
    numbers = {name: value for name, value in vars(syncnet.defaults).items() if isinstance(value, int | float)}
    defaults = {name.lower(): value for name, value in numbers.items() if name.isupper()}
    filters = {name.removeprefix("filter_"): value for name, value in defaults.items() if name.startswith("filter_")}
    ours = {name: value for name, value in defaults.items() if not name.startswith("filter_")}
    names = ("correct_offset", "score_video", "filter_videos_by_sync_score", "run_pipeline", "run_syncnet")
    scripts = {flag: value for name in names for flag, value in flags(name).items()}
    assert ours == {name: scripts[name] for name in ours}
    assert filters == {name: flags("filter_videos_by_sync_score")[name] for name in filters}


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_flag_is_documented_with_its_default(script):
    tables = documented_flags()
    listed = {**tables[EVERY_SCRIPT], **tables[script]}
    assert listed == {name: as_printed(default) for name, default in flags(script).items()}


def explained(page, heading):
    """Return the words in the first column of the tables below a heading, each with an explanation in the second."""
    below = re.search(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", page.read_text(encoding="utf-8"), re.M | re.S)[1]
    rows = re.findall(r"^\| `(\w+)` \| ([^|]*\w[^|]*) \|", below, re.MULTILINE)
    return sorted(word for word, explanation in rows if explanation != "meaning")


def test_every_reason_is_explained():
    codes = {
        value for name, value in vars(reasons).items() if name.isupper() and isinstance(value, str) and value.islower()
    }
    assert len(codes) > 5
    assert explained(DOCS / "outputs.md", "Reasons") == sorted(codes)


def test_every_status_of_the_filter_is_explained():
    assert explained(DOCS / "filtering.md", "Results") == sorted(STATUSES)


def test_the_readme_is_short():
    assert len(README.splitlines()) <= LONGEST_README


def test_the_readme_leads_to_every_page():
    index = README.partition("## Where to go on")[2]
    assert [page.name for page in PAGES[1:] if f"]({page.relative_to(ROOT).as_posix()})" not in index] == []


def code_blocks(text, language=r"\w*"):
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def test_pages_name_only_files_that_exist():
    commands = "\n".join(block for page in PAGES for block in code_blocks(page.read_text(encoding="utf-8")))
    named = set(re.findall(r"(?:python|sh) ((?:\w+/)*\w+\.(?:py|sh))", commands))
    named |= set(re.findall(r"-r (requirements[\w-]*\.txt)", commands))
    modules = re.findall(r"python -m ((?:training|benchmarks)[\w.]+)", commands)
    named |= {f"{module.replace('.', '/')}.py" for module in modules}
    assert {f"{script}.py" for script in SCRIPTS} | {"download_model.sh", "training/face/make_sample.py"} <= named
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


def test_contributing_names_only_files_that_exist():
    text = without_code_blocks((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"))
    named = re.findall(r"`((?:\.?\w+/)+\w[\w.]*)/?`", text)
    assert "syncnet/faces/detect.py" in named
    named = [name for name in named if not name.startswith(".venv/")]
    assert [name for name in named if not (ROOT / name).exists()] == []


def without_code_blocks(text):
    return re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)


def anchors(page):
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)", without_code_blocks(page.read_text(encoding="utf-8")), re.MULTILINE)
    found = [re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings]
    assert len(set(found)) == len(found), f"{page}: two headings with one anchor"
    return set(found)


@pytest.mark.parametrize("page", LINKING, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    text = without_code_blocks(page.read_text(encoding="utf-8"))
    links = re.findall(r"\]\(([^)]+)\)", text) + re.findall(r'src="([^"]+)"', text)
    links = [link.partition("#") for link in links if "://" not in link]
    assert [path for path, _, _ in links if path and not (page.parent / path).exists()] == []
    anchored = [(page.parent / path if path else page, anchor) for path, _, anchor in links if anchor]
    assert [f"{target}#{anchor}" for target, anchor in anchored if anchor not in anchors(target)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_flags_in_commands_exist(page):
    for block in code_blocks(page.read_text(encoding="utf-8")):
        for line in block.replace("\\\n", " ").splitlines():
            command = re.match(r"python (\w+)\.py (.*)", line)
            if command and command[1] in SCRIPTS:
                assert set(re.findall(r"--(\w+)", command[2])) <= set(flags(command[1])), line


def examples(language):
    """Return the code blocks of a language in all pages, as (name of the page, block)."""
    return [(page.name, block) for page in PAGES for block in code_blocks(page.read_text(encoding="utf-8"), language)]


def test_python_examples_compile():
    blocks = examples("python")
    assert {"README.md", "library.md"} <= {page for page, _ in blocks}
    for page, block in blocks:
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    importlib.import_module(alias.name)
            elif isinstance(node, ast.ImportFrom):
                module = importlib.import_module(node.module)
                assert all(hasattr(module, alias.name) for alias in node.names), page


def test_json_examples_are_json():
    blocks = examples("json")
    assert "outputs.md" in {page for page, _ in blocks}
    for _, block in blocks:
        json.loads(block)


def test_requirements_are_pinned():
    for path in ROOT.glob("requirements*.txt"):
        lines = [line.partition("#")[0].strip() for line in path.read_text().splitlines()]
        for line in filter(None, lines):
            assert re.fullmatch(
                r'-r requirements\.txt|[\w-]+(\[\w+\])?==[\d.]+(; python_version [<>=]+ "[\d.]+")?', line
            ), line


def test_every_import_is_required():
    """What the suite imports comes with Python, with the suite, or is in requirements.txt."""
    modules = {"opencv-python": "cv2", "imageio-ffmpeg": "imageio_ffmpeg"}
    required = re.findall(r"^([\w-]+)==", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    own = {path.stem for path in ROOT.iterdir()}
    known = {modules.get(name, name) for name in required} | own | set(sys.stdlib_module_names)
    used = {}
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module]
            used.update({name.split(".")[0]: path.name for name in names})
    optional = {"ray"}  # requirements-ray.txt
    assert {name: where for name, where in used.items() if name not in known | optional} == {}


@pytest.mark.parametrize(
    "pattern", [r"shell\s*=\s*True", r"os\.system\(", r"os\.popen\(", r"pickle\.loads?\(", r"weights_only\s*=\s*False"]
)
def test_habits_that_run_other_peoples_code_stay_out(pattern):
    assert [path.name for path in SOURCES if re.search(pattern, path.read_text(encoding="utf-8"))] == []


def test_weights_are_loaded_without_running_code():
    for path in SOURCES:
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(call, ast.Call) and ast.unparse(call.func) == "torch.load":
                assert {k.arg: ast.unparse(k.value) for k in call.keywords}.get("weights_only") == "True", path


@pytest.mark.parametrize(
    "message, advice",
    [
        ("libGL.so.1: cannot open shared object file: No such file or directory", "apt install libgl1 libglib2.0-0"),
        ("No module named 'numpy'", "pip install -r requirements.txt"),
    ],
)
@pytest.mark.parametrize("script", SCRIPTS)
def test_opencv_that_does_not_load_is_one_line(tmp_path, script, message, advice):
    (tmp_path / "cv2.py").write_text(f"raise ImportError({message!r})")
    command = [
        sys.executable,
        f"{script}.py",
        *ARGUMENTS.get(script, ["--reference", "a", "--data_dir", str(tmp_path)]),
    ]
    environment = {"PYTHONPATH": str(tmp_path), "PATH": ""}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == cli.FAILED
    (line,) = done.stderr.splitlines()
    assert message in line
    assert advice in line


def test_ci_runs_the_readmes_test_command():
    assert (ROOT / ".ci/run").stat().st_mode & 0o111
    assert "\n    make test\n" in (ROOT / ".ci/run").read_text()
    assert "make test" in README


@pytest.mark.parametrize("script", ["run_pipeline", "run_syncnet", "run_visualise", "demo_syncnet"])
def test_a_missing_library_is_one_line(tmp_path, script):
    """Whichever is the first that a script loads."""
    for name in ("torch", "tqdm", "scenedetect", "python_speech_features"):
        (tmp_path / f"{name}.py").write_text(f"raise ModuleNotFoundError('No module named {name}')")
    arguments = ARGUMENTS.get(script, ["--reference", "a", "--data_dir", str(tmp_path)])
    environment = {"PYTHONPATH": str(tmp_path), "PATH": ""}
    command = [sys.executable, f"{script}.py", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == cli.FAILED
    (line,) = done.stderr.splitlines()
    assert "No module named" in line
    assert "pip install -r requirements.txt" in line


def test_ffmpeg_is_started_in_one_place():
    starters = [
        path.name
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.List) and node.elts and ast.unparse(node.elts[0]) in ("'ffmpeg'", "program")
    ]
    assert starters == ["ffmpeg.py"]


def test_the_version_is_said_once_and_again():
    assert f'version = "{syncnet.__version__}"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8").splitlines()


def test_presets_are_as_printed():
    tables = {}
    for page in PAGES:
        rows = re.findall(r"^\| `(\w+)` \| ([\d.]+) \| (\d+) frames \|", page.read_text(encoding="utf-8"), re.MULTILINE)
        if rows:
            tables[page.name] = {name: Thresholds(float(least), int(most)) for name, least, most in rows}
    assert "filtering.md" in tables
    assert all(table == PRESETS for table in tables.values()), tables


BENCHMARKS = [path.stem for path in sorted((ROOT / "benchmarks").glob("[a-z]*.py")) if "def main(" in path.read_text()]


@pytest.mark.parametrize("name", BENCHMARKS)
def test_benchmarks_start(name):
    command = [sys.executable, "-m", f"benchmarks.{name}", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"python -m benchmarks.{name}" in done.stdout
    listed = "".join(path.read_text(encoding="utf-8") for path in (*sorted(DOCS.glob("*.md")), ROOT / "Makefile"))
    assert name == "plain" or f"-m benchmarks.{name}" in listed  # which the other ones call
