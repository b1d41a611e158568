"""squeue cuts an array's list of tasks after 64 bytes unless it is told not to."""

from __future__ import annotations

import pytest

from slurm import cluster


@pytest.mark.parametrize("own", [None, "16"])
def test_squeue_is_asked_for_the_whole_list_of_tasks(home, monkeypatch, own):
    script = home / "squeue"
    script.write_text('#!/bin/sh\necho "100|$SLURM_BITSTR_LEN|PENDING|Priority|$SLURM_CONF"\n')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{home}:/usr/bin:/bin")
    monkeypatch.setenv("SLURM_CONF", "kept")
    if own:
        monkeypatch.setenv("SLURM_BITSTR_LEN", own)
    else:
        monkeypatch.delenv("SLURM_BITSTR_LEN", raising=False)
    assert cluster.queue(["100"]) == [cluster.Queued("100", "0", "PENDING", "Priority", "kept")]
    assert cluster.call("sh", "-c", 'echo "$SLURM_BITSTR_LEN"').strip() == (own or ""), "jobs inherit it otherwise"
