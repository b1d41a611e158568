#!/usr/bin/env bash
# The system packages that the test suite needs, each with its reason. As root on Debian or Ubuntu it installs those that
# are missing; otherwise it names them and goes on, and the tests that need them skip with the reason.
set -eu

packages=(
  ffmpeg                        # decodes what libsndfile does not (m4a), and the g722 speech below
  libc++1                       # TEN-VAD's library is linked with it
  slurm-wlm                     # a real Slurm: slurmctld and slurmd
  slurm-client                  # sbatch, squeue, scancel, scontrol, sacct
  slurm-wlm-basic-plugins       # select, sched, jobacct_gather, … (not pulled in without recommended packages)
  munge                         # Slurm's authentication
  slurmdbd                      # Slurm's accounting, for sacct
  slurm-wlm-mysql-plugin        # its storage plugin
  mariadb-server                # its database
  bindfs                        # a folder mounted twice, with caches and locks of each mount's own
  asterisk-core-sounds-en-g722  # real human speech, 16 kHz: English
  asterisk-core-sounds-fr-g722  # French
  asterisk-core-sounds-es-g722  # Spanish
)

command -v dpkg-query >/dev/null || {
  echo "voxarray: not a Debian system; the tests use what is here of: ${packages[*]}" >&2
  exit 0
}

missing=()
installed=" $(dpkg-query -W -f '${db:Status-Status}:${Package} ' 2>/dev/null)"
for package in "${packages[@]}"; do
  [[ $installed == *" installed:$package "* ]] || missing+=("$package")
done
[[ ${#missing[@]} -gt 0 ]] || exit 0

if [[ $EUID -ne 0 ]]; then
  echo "voxarray: system packages that the tests would use are missing, and only root can install them:" >&2
  echo "    apt-get install --no-install-recommends ${missing[*]}" >&2
  exit 0
fi

# Nothing that gets installed may start as a service: the tests start their own, in their own folders.
policy=/usr/sbin/policy-rc.d
if [[ ! -e $policy ]]; then
  trap 'rm -f "$policy"' EXIT
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod +x "$policy"
fi

echo "voxarray: installing system packages for the tests: ${missing[*]}" >&2
export DEBIAN_FRONTEND=noninteractive
install=(apt-get install --yes --quiet --no-install-recommends -o DPkg::Lock::Timeout=300 "${missing[@]}")
log=$(mktemp)
# the lists may be absent or old on a fresh machine: update when the first try fails
if ! { "${install[@]}" || { apt-get update --quiet -o DPkg::Lock::Timeout=300 && "${install[@]}"; }; } >"$log" 2>&1; then
  tail -n 30 "$log" >&2
  rm -f "$log"
  echo "voxarray: the system packages could not be installed; apt-get's last words are above" >&2
  exit 1
fi
rm -f "$log"
