#!/bin/sh
# Make .venv with mcsr and the named extras of pyproject.toml: tools/setup.sh report train
# Does nothing when they are there already. $PYTHON chooses the interpreter (3.10 to 3.13).
set -eu
cd "$(dirname "$0")/.."

say() { printf '%s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }

# Being on PATH is not enough: version managers put a python3.x there that only says it is not installed.
version_of() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null || true; }
is_supported() { case "$(version_of "$1")" in 3.10 | 3.11 | 3.12 | 3.13) ;; *) return 1 ;; esac; }
makes_venvs() { "$1" -c 'import ensurepip, venv' 2>/dev/null; }

# Install Debian or Ubuntu packages, if that is allowed without asking anyone.
apt_install() {
    command -v apt-get >/dev/null || return 1
    as_root=
    if [ "$(id -u)" != 0 ]; then
        sudo -n true 2>/dev/null || return 1
        as_root=sudo
    fi
    say "Installing the system package $* ..."
    $as_root apt-get update -qq >&2 && $as_root apt-get install -y -qq --no-install-recommends "$@" >&2
}

# Print an interpreter that is in range and can make virtual environments.
find_python() {
    supported=
    for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11 python3.10}; do
        is_supported "$candidate" || continue
        if makes_venvs "$candidate"; then
            echo "$candidate"
            return
        fi
        supported=${supported:-$candidate}
    done
    if [ -z "$supported" ]; then
        [ -z "${PYTHON:-}" ] || fail "PYTHON=$PYTHON is not a Python 3.10 to 3.13; name one that is."
        fail "No Python 3.10 to 3.13 was found; install one, or name it: make demo PYTHON=/path/to/python3"
    fi
    package=python$(version_of "$supported")-venv
    apt_install "$package" && makes_venvs "$supported" ||
        fail "$supported cannot make virtual environments; install the package $package (python3-venv), then run this again."
    echo "$supported"
}

# Whether .venv runs, stands where it was made, and is of the version that $PYTHON asks for.
venv_is_usable() {
    is_supported .venv/bin/python && [ "$(head -n 1 .venv/installed 2>/dev/null)" = "$PWD" ] || return 1
    [ -z "${PYTHON:-}" ] || [ "$(version_of "$PYTHON")" = "$(version_of .venv/bin/python)" ]
}

# Whether this list of dependencies and every wanted extra went in already.
is_installed() {
    [ "$(sed -n 2p .venv/installed)" = "$lists" ] || return 1
    for extra; do
        case " $(sed -n 3p .venv/installed) " in *" $extra "*) ;; *) return 1 ;; esac
    done
}

# The tests of the Slicer module draw with Qt and VTK, whose wheels leave these to the system. Without them, and where
# they cannot be installed, those tests are skipped with that reason.
DRAWING_LIBRARIES="libEGL.so.1 libEGL_mesa.so.0 libGL.so.1 libX11.so.6 libxkbcommon.so.0 libfontconfig.so.1 libdbus-1.so.3"
DRAWING_PACKAGES="libegl1 libegl-mesa0 libgl1 libgl1-mesa-dri libx11-6 libxkbcommon0 libfontconfig1 libfreetype6
    libdbus-1-3 libglib2.0-0 fonts-dejavu-core"
install_drawing_libraries() {
    PATH=$PATH:/usr/sbin:/sbin # where it lies, though users seldom look there
    command -v ldconfig >/dev/null || return 0
    known=$(ldconfig -p)
    for library in $DRAWING_LIBRARIES; do
        case "$known" in *"$library"*) ;; *)
            # shellcheck disable=SC2086
            apt_install $DRAWING_PACKAGES || say "Without $library the tests that draw are skipped."
            return ;;
        esac
    done
}

lists=$(cat pyproject.toml constraints.txt | cksum)
if ! venv_is_usable; then
    python=$(find_python)
    rm -rf .venv
    "$python" -m venv .venv || fail "$python could not make .venv here; is this folder writable and the disk not full?"
    printf '%s\n' "$PWD" >.venv/installed
fi
if ! is_installed "$@"; then
    say "Installing into .venv (2 GB with a CPU build of torch, more with a CUDA build; a few minutes) ..."
    extras=$(echo "$*" | tr ' ' ',')
    .venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[$extras]" ||
        fail "The installation did not finish; see pip's message above (network? disk space?), then run this again."
    printf '%s\n' "$PWD" "$lists" "$*" >.venv/installed
fi
case " $* " in *" test "*) install_drawing_libraries ;; esac
