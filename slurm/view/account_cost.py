"""What stretches of held processors sum up to: of a run, or of several."""

from __future__ import annotations

from typing import NamedTuple, Optional, Sequence

from slurm.view.account_sacct import Stretch


class Cost(NamedTuple):
    """Sums over stretches. Times in seconds; what is not known of every stretch is None.

    `time_s`: of the tasks, one after the other; `cpu_s`, `gpu_s`: processors and GPUs held × time; `used_s`: processor
    time used, by tasks whose time is `used_of_s` (and `used_of_cpu_s` × the processors they held); `sweep_cpu_s`: held
    for the sweeps, not in `cpu_s`. `cpus`, `gpus`, `mem_mb`, `limit_s`: the most that a task held. `rss_mb`: the
    largest of a process; `longest_s`: the longest stretch.
    """

    time_s: float
    cpu_s: Optional[float]
    gpu_s: Optional[float]
    used_s: Optional[float]
    used_of_s: float
    used_of_cpu_s: float
    sweep_cpu_s: float
    cpus: Optional[int]
    gpus: Optional[int]
    mem_mb: Optional[float]
    limit_s: Optional[float]
    rss_mb: Optional[float]
    longest_s: float

    @property
    def used_cpus(self) -> Optional[float]:
        """Processors that a task used, on average over its time."""
        return self.used_s / self.used_of_s if self.used_s is not None and self.used_of_s else None

    @property
    def used_share(self) -> Optional[float]:
        """The share of the processors held that was used."""
        return self.used_s / self.used_of_cpu_s if self.used_s is not None and self.used_of_cpu_s else None


def cost(held: Sequence[Stretch]) -> Cost:
    """The sums over stretches."""
    tasks = [stretch for stretch in held if stretch.task is not None]
    used = [stretch for stretch in tasks if stretch.cpu_s is not None]
    return Cost(
        time_s=sum(stretch.elapsed_s for stretch in tasks),
        cpu_s=_product(tasks, [stretch.cpus for stretch in tasks]),
        gpu_s=_product(tasks, [stretch.gpus for stretch in tasks]),
        used_s=sum(stretch.cpu_s or 0.0 for stretch in used) if used else None,
        used_of_s=sum(stretch.elapsed_s for stretch in used),
        used_of_cpu_s=_product(used, [stretch.cpus for stretch in used]) or 0.0,
        sweep_cpu_s=sum(stretch.elapsed_s * (stretch.cpus or 0) for stretch in held if stretch.task is None),
        cpus=max((stretch.cpus for stretch in tasks if stretch.cpus), default=None),
        gpus=max((stretch.gpus for stretch in tasks if stretch.gpus is not None), default=None),
        mem_mb=max((stretch.mem_mb for stretch in tasks if stretch.mem_mb), default=None),
        limit_s=max((stretch.limit_s for stretch in tasks if stretch.limit_s), default=None),
        rss_mb=max((stretch.rss_mb for stretch in tasks if stretch.rss_mb), default=None),
        longest_s=max((stretch.elapsed_s for stretch in tasks), default=0.0),
    )


def _product(tasks: Sequence[Stretch], held: Sequence[Optional[int]]) -> Optional[float]:
    """Time × what was held; None where that is unknown of any."""
    if not tasks or None in held:
        return None
    return sum(stretch.elapsed_s * (number or 0) for stretch, number in zip(tasks, held))
