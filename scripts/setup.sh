#!/bin/sh
# Bring .venv to what pyproject.toml and constraints.txt say. Costs nothing when it is already there.
set -eu
cd "$(dirname "$0")/.."

needed_gb=10    # 7 in .venv, and the wheels while they are unpacked

fail() {
    printf '%s\n' "$@" >&2
    exit 1
}

install_line() {    # install_line VERSION: how to get this Python with venv support
    if command -v apt-get >/dev/null; then echo "sudo apt-get install -y python$1 python$1-venv"
    elif command -v dnf >/dev/null; then echo "sudo dnf install -y python$1"
    elif command -v brew >/dev/null; then echo "brew install python@$1"
    else echo "install Python $1 with its venv module, then make again"
    fi
}

find_python() {
    no_venv=
    for name in python3.13 python3.12 python3.11 python3; do
        # Run it: a version manager's shim exists for versions that are not active, and fails.
        version=$("$name" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || continue
        case $version in 3.11 | 3.12 | 3.13) ;; *) continue ;; esac
        if "$name" -c 'import ensurepip, venv' 2>/dev/null; then
            echo "$name"
            return
        fi
        no_venv=${no_venv:-$version}
    done
    [ -z "$no_venv" ] || fail "Python $no_venv is here, but without venv support. Run:" "    $(install_line "$no_venv")"
    fail "No Python 3.11, 3.12 or 3.13 that runs was found. Run:" "    $(install_line 3.11)"
}

# The directory is part of the stamp: a copied .venv still points at the place it was copied from.
stamp=$({ pwd && cat constraints.txt pyproject.toml; } | cksum)
if [ "$(cat .venv/stamp 2>/dev/null)" = "$stamp" ] && .venv/bin/python -c '' 2>/dev/null; then
    exit 0
fi

if ! .venv/bin/python -c 'import pip' 2>/dev/null; then
    python=$(find_python)
    for place in . "${TMPDIR:-/tmp}"; do
        free_gb=$(df -Pk "$place" | awk 'NR == 2 { print int($4 / 1048576) }')
        [ "$free_gb" -ge "$needed_gb" ] || fail \
            "$free_gb GB are free in $(cd "$place" && pwd); the set-up needs $needed_gb. Make room, or for temporary files run:" \
            "    TMPDIR=/a/larger/disk make"
    done
    echo "Making .venv with $("$python" --version)." >&2
    rm -rf .venv
    "$python" -m venv .venv
fi

echo "Installing the pinned packages into .venv; the first time this takes some minutes and 7 GB." >&2
# An empty PIP_CONSTRAINT switches off a constraint of the user's own pip settings, which could contradict ours.
PIP_CONSTRAINT='' .venv/bin/python -m pip install --quiet --disable-pip-version-check \
    --constraint constraints.txt --editable '.[all,dev]' ||
    fail "pip failed, see above. What was downloaded is kept; when the cause is gone, run the same make again."
# Python 3.11 reads this file in the encoding of the locale and does not start where it cannot.  Relative, the path is
# ASCII whatever folder this is.
for list in .venv/lib/python3.*/site-packages/_editable_impl_featurestore.pth; do
    [ ! -f "$list" ] || echo ../../../.. > "$list"
done
echo "$stamp" > .venv/stamp
