# shellcheck shell=bash
# What the plain scripts (slurm/*.slurm) share: the log, the environment's Python, the pipeline in place of the shell.
# Sourced with $repository set.

# run_pipeline NAME ARGUMENTS…: never returns. `exec` makes the pipeline the batch process: Slurm's warning reaches it.
run_pipeline() {
  local name=$1 environment python wait_for_python=(env)
  shift
  # A warning must not end what is still starting. Where `env` knows how (coreutils 8.31), it waits until Python heeds it.
  trap '' USR1 USR2
  env --block-signal=USR1,USR2 true 2>/dev/null && wait_for_python+=(--block-signal=USR1,USR2)
  repository=$(CDPATH='' cd -P -- "$repository" && pwd)
  _open_log "$name"
  environment=$(sed -n 's/^environment *= *"\(.*\)".*/\1/p' "$repository/pipelines/$name/pipeline.toml")
  environment=$(_other_environment "$repository/pipelines/$name/pipeline.toml" "$@" || echo "${environment:-$name}")
  _find_python "$environment" || exit 3
  # The code comes from the repository, whatever lies in the folder that the job was submitted from.
  export PYTHONPATH=$repository PYTHONSAFEPATH=1 PYTHONNOUSERSITE=1
  unset PYTHONHOME
  exec "${wait_for_python[@]}" "$python" -m "pipelines.$name" "$@"
}

# The environment that an option asks for (`"backend textless" = "sts"` in the pipeline's description); fails if none does.
_other_environment() {
  local file=$1 option value environment given
  shift
  given=" $* "
  while read -r option value environment; do
    if [[ ${given//=/ } == *" --$option $value "* ]]; then
      echo "$environment"
      return 0
    fi
  done < <(sed -n 's/^"\([a-z_-]*\) \([^ "]*\)" *= *"\([^"]*\)".*/\1 \2 \3/p' "$file")
  return 1
}

# Slurm ends a job without a word when the folder of its --output does not exist, so that is /dev/null, and the log is
# opened here; an --output on sbatch's command line is left alone.
_open_log() {
  [[ $(readlink "/proc/$$/fd/1" 2>/dev/null) == /dev/null ]] || return 0
  local folder=${VOXARRAY_HOME:-$repository}/logs job=${SLURM_ARRAY_JOB_ID:-${SLURM_JOB_ID:-$$}}
  mkdir -p "$folder" 2>/dev/null && [[ -w $folder ]] || folder=${SLURM_SUBMIT_DIR:-.}
  exec >>"$folder/$1_$job${SLURM_ARRAY_TASK_ID:+_$SLURM_ARRAY_TASK_ID}.out" 2>&1
}

# Sets `python`: the environment's own; else the active one, if it has what is needed.
_find_python() {
  local name=$1 root candidate lock made
  lock=$(sha256sum <"$repository/envs/$name.lock" 2>/dev/null)
  while IFS= read -r root; do
    python=$root/$name/bin/python
    [[ -x $python && -f $root/$name/.voxarray-stamp ]] || continue
    made=$(sed -n 's/^lock //p' "$root/$name/.voxarray-stamp")
    [[ $made == "${lock%% *}" ]] ||
      echo "voxarray: environment $name is older than envs/$name.lock; \`./voxarray env create $name\` renews it." >&2
    return 0
  done < <(_environment_folders)
  for candidate in "${CONDA_PREFIX:+$CONDA_PREFIX/bin/python}" "${VIRTUAL_ENV:+$VIRTUAL_ENV/bin/python}" \
    "$(command -v python)" "$(command -v python3)"; do
    python=$candidate
    [[ -n $python ]] && _has_modules "$name" && return 0
  done
  echo "voxarray: on $(hostname), environment $name is not there, and no active Python has what it needs" \
    "($(_modules "$name")). Run \`$repository/voxarray env create $name\` once on a node with a network (the repository" \
    "must lie where every node sees it, or VOXARRAY_ENVS name such a folder), then give the same command again." >&2
  return 1
}

# The folders that may hold environments, as slurm/envs/places.py has them. One a line.
_environment_folders() {
  if [[ -n ${VOXARRAY_ENVS-} ]]; then
    echo "$VOXARRAY_ENVS"
    return
  fi
  echo "$repository/envs/.prefix"
  local digest
  digest=$(printf %s "$repository" | sha256sum)
  echo "${XDG_CACHE_HOME:-${HOME:-/nonexistent}/.cache}/voxarray/${digest:0:16}"
}

# The modules that an environment is for: the `#: import` lines of its definition; submitit is the launcher's concern.
_modules() {
  sed -n 's/^#: import //p' "$repository/envs/$1.txt" | sed 's/\bsubmitit\b//' | tr '\n' ' '
}

_has_modules() {
  "$python" -c 'import importlib.util, sys
sys.exit(sys.version_info < (3, 9) or any(importlib.util.find_spec(name) is None for name in sys.argv[1:]))' \
    msgspec filelock $(_modules "$1") 2>/dev/null
}
