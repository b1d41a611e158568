"""A make-believe Slurm for quick tests: sbatch keeps scripts, the queue holds them, `execute` runs one's tasks.

State lies in $FAKE_SLURM: `next` (job id), `ID.sh` (script), `ID.json` (how it was called), `queue.json` (squeue's
lines), `refuse` (from which submission on sbatch fails, and what it says), `down` (there while the controller is
silent), `max_array_size`. What was called is in `calls`.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path


def folder():
    return Path(os.environ["FAKE_SLURM"])


def setting(name, default):
    path = folder() / name
    return path.read_text() if path.exists() else default


def fail(message):
    print(message, file=sys.stderr)
    sys.exit(1)


def options(text):
    """The #SBATCH lines of a script."""
    return dict(re.findall(r"^#SBATCH --([\w-]+)(?:=(.*))?$", text, re.MULTILINE))


def sbatch(words):
    number = int(setting("next", "100"))
    submissions = len(list(folder().glob("*.sh")))
    if (folder() / "refuse").exists():
        after, message = setting("refuse", "").split("\n", 1)
        if submissions >= int(after):
            fail(message.strip())
    script = Path(words[-1]).read_text()
    (folder() / "next").write_text(str(number + 1))
    (folder() / f"{number}.sh").write_text(script)
    leaked = {name: value for name, value in os.environ.items() if name.startswith(("SLURM", "SBATCH"))}
    (folder() / f"{number}.json").write_text(json.dumps({"words": words, "slurm": leaked}))
    chosen = options(script)
    tasks = chosen.get("array", "").split("%")[0].strip("'")
    queue = json.loads(setting("queue.json", "[]"))
    state, reason = ("PENDING", "Dependency") if "dependency" in chosen else ("RUNNING", "None")
    queue.append(f"{number}|{tasks or 'N/A'}|{state}|{reason}|{chosen['job-name']}")
    (folder() / "queue.json").write_text(json.dumps(queue))
    print(f"Submitted batch job {number}")


def squeue(words):
    lines = json.loads(setting("queue.json", "[]"))
    ids = next((word.split("=", 1)[1].split(",") for word in words if word.startswith("--jobs=")), None)
    names = next((word.split("=", 1)[1].split(",") for word in words if word.startswith("--name=")), None)
    if ids is not None:
        lines = [line for line in lines if line.split("|")[0] in ids]
        if not lines and len(ids) == 1:
            fail("slurm_load_jobs error: Invalid job id specified")
    if names is not None:
        lines = [line for line in lines if line.split("|")[4] in names]
    print("\n".join(lines))


def scancel(words):
    queue = [line for line in json.loads(setting("queue.json", "[]")) if line.split("|")[0] not in words]
    (folder() / "queue.json").write_text(json.dumps(queue))


def scontrol(words):
    if words[:2] == ["show", "config"]:
        print(f"ClusterName             = fake\nMaxArraySize            = {setting('max_array_size', '1001')}")
        print("SLURM_VERSION           = 22.05.8")


def sinfo(words):
    print("main*|up|1-00:00:00|4")


def srun(words):
    while words and words[0].startswith("-"):
        words = words[2:] if words[0] in ("--output", "--error") else words[1:]
    sys.exit(subprocess.run(words, check=False).returncode)


def execute(number, task=None):
    """Run one task of a kept job (or the job, without a task) as Slurm would, and take it off the queue."""
    environment = {**os.environ, "SLURM_JOB_ID": str(number), "SLURM_CPUS_PER_TASK": "1", "SLURM_NTASKS": "1"}
    if task is not None:
        environment.update(SLURM_ARRAY_JOB_ID=str(number), SLURM_ARRAY_TASK_ID=str(task))
    done = subprocess.run(["bash", str(folder() / f"{number}.sh")], env=environment, check=False, capture_output=True)
    return done.returncode


def main():
    name, words = sys.argv[1], sys.argv[2:]
    folder().mkdir(exist_ok=True)
    with (folder() / "calls").open("a") as file:
        file.write(" ".join([name, *words]) + "\n")
    if (folder() / "down").exists():
        fail("slurm_load_jobs error: Unable to contact slurm controller (connect failure)")
    {"sbatch": sbatch, "squeue": squeue, "scontrol": scontrol, "scancel": scancel, "srun": srun, "sinfo": sinfo}[name](
        words
    )


if __name__ == "__main__":
    main()
