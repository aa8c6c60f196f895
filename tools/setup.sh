# Sourced by ./run and ./test from the repository's root: installs what is missing and builds.
# Everything that is in place is left alone, so a second call takes a second.

say() { printf 'seer: %s\n' "$*" >&2; }
die() { printf 'seer: error: %s\n' "$*" >&2; exit 1; }

# install_packages FILE...: those of these lists.
install_packages() {
  command -v dpkg-query >/dev/null || die "this is not Debian or Ubuntu: install the equivalents of $*, then set SEER_SKIP_PACKAGES=1"
  # python3 may come from elsewhere than the distribution; what counts is that it makes environments.
  missing=""
  while read -r package; do
    case $package in
      python3 | python3-venv) python3 -c 'import venv, ensurepip' 2>/dev/null && continue ;;
    esac
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' ||
      missing="$missing $package"
  done < <(cat "$@")
  [ -z "$missing" ] && return
  as_root=""
  if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null || die "please install as root: apt-get install$missing"
    as_root=sudo
  fi
  say "installing system packages:$missing"
  # shellcheck disable=SC2086
  { $as_root apt-get update -q && $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $missing; } >.cache/packages.log 2>&1 ||
    die "apt-get failed, see .cache/packages.log (missing:$missing)"
}

# The user's own environment when it is active and has the right torch, else .venv in the repository.
choose_python() {
  torch_version=$(sed -n 's/^torch==//p' tools/requirements.txt)
  if [ -n "${VIRTUAL_ENV:-}${CONDA_PREFIX:-}" ] &&
    [ "$(python -c 'import importlib.metadata as m; print(m.version("torch").split("+")[0])' 2>/dev/null)" = "$torch_version" ]; then
    PYTHON=$(command -v python)
    return
  fi
  PYTHON=$PWD/.venv/bin/python
}

# install_requirements FILE: into the chosen environment, once for each content of the files.
install_requirements() {
  [ -x "$PYTHON" ] || { say "making .venv"; python3 -m venv .venv || die "python3 -m venv failed"; }
  stamp=.cache/installed-$(cat tools/requirements*.txt "$1" | cat - <(echo "$PYTHON") | sha256sum | cut -c1-16)
  [ -e "$stamp" ] && return
  say "installing $1 with pip (torch is 2 GB to download)"
  "$PYTHON" -m pip install -q --disable-pip-version-check -r "$1" >.cache/pip.log 2>&1 ||
    die "pip failed, see .cache/pip.log"
  touch "$stamp"
}

# transformers of the version before, for the tests that compare with it: beside the environment, whose
# torch and other packages it uses.
install_older_transformers() {
  stamp=.cache/transformers-4.51/$(cat tools/requirements-older.txt - <<<"$PYTHON" | sha256sum | cut -c1-16)
  [ -e "$stamp" ] && return
  say "installing tools/requirements-older.txt into .cache/transformers-4.51"
  rm -rf .cache/transformers-4.51
  "$PYTHON" -m pip install -q --disable-pip-version-check --no-deps --no-compile --target .cache/transformers-4.51 \
    -r tools/requirements-older.txt >.cache/pip-older.log 2>&1 || die "pip failed, see .cache/pip-older.log"
  touch "$stamp"
}

# Whether kernels for GPUs are built, which takes minutes: as SEER_CUDA (ON or OFF) says, as in the build that is there,
# or where there is a GPU.
choose_kernels() {
  [ -n "${SEER_CUDA:-}" ] && return
  if [ -e build/build.ninja ]; then
    SEER_CUDA=$(sed -n 's/^SEER_CUDA:BOOL=//p' build/CMakeCache.txt)
  elif [ -e /dev/nvidiactl ] || nvidia-smi -L >/dev/null 2>&1; then
    SEER_CUDA=ON
  else
    SEER_CUDA=OFF
    say "no NVIDIA GPU here: building for the CPU alone (SEER_CUDA=ON builds the kernels for GPUs, too)"
  fi
}

# build TARGET...: into ./build
build() {
  local cuda=${SEER_CUDA:-ON}
  if [ ! -e build/build.ninja ] || ! grep -q "^SEER_PYTHON:FILEPATH=$PYTHON\$" build/CMakeCache.txt ||
    ! grep -q "^SEER_CUDA:BOOL=$cuda\$" build/CMakeCache.txt; then
    cmake -S . -B build -G Ninja -DSEER_PYTHON="$PYTHON" -DSEER_CUDA="$cuda" >.cache/cmake.log 2>&1 ||
      die "cmake failed, see .cache/cmake.log"
  fi
  ninja -C build "$@" >.cache/build.log 2>&1 || { tail -20 .cache/build.log >&2; die "the build failed, see .cache/build.log"; }
}

mkdir -p .cache
