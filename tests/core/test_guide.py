"""The example pipeline of TECHNICAL.md, as a user would copy it, on recordings made here."""

import json
import os
import re
import subprocess
import sys
import wave
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


def block(text: str, before: str, language: str) -> str:
    """The code block that follows `before`."""
    return re.search(re.escape(before) + rf".*?```{language}\n(.*?)```", text, re.DOTALL)[1]


def recording(path: Path, amplitude: int) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes(amplitude.to_bytes(2, "little", signed=True) * 1600)
    return path


def test_the_example_pipeline_runs_as_written(tmp_path):
    text = (REPOSITORY / "TECHNICAL.md").read_text()
    folder = tmp_path / "mine" / "peak"
    folder.mkdir(parents=True)
    code = block(text, "`peak/__init__.py`:", "python")
    (folder / "__init__.py").write_text(code)
    (folder / "pipeline.toml").write_text(block(text, "`peak/pipeline.toml`", "toml"))
    assert len(code.splitlines()) < 60
    paths = [recording(tmp_path / "loud.wav", 16384), recording(tmp_path / "soft.wav", -328)]
    (tmp_path / "broken.wav").write_bytes(b"RIFF")
    rows = [{"audio_filepath": str(path), "duration": 0.1} for path in [*paths, tmp_path / "broken.wav"]]
    manifest = tmp_path / "corpus.json"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    environment = {**os.environ, "VOXARRAY_HOME": str(tmp_path / "home"), "VOXARRAY_PIPELINES": str(folder.parent)}
    start = "import sys; from pipelines.core import cli, registry; sys.exit(cli.main(registry.find('peak')))"
    done = subprocess.run(
        [sys.executable, "-c", start, str(manifest)],
        env=environment,
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert "2 merged + 1 quarantined" in done.stderr
    assert "It cannot be read" in done.stderr
    merged = [json.loads(line) for line in manifest.read_text().splitlines()]
    assert [row.get("peak_db") for row in merged] == [-6.02, -39.99, None]
