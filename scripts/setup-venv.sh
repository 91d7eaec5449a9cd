#!/bin/sh
# Makes VENV from the lock file: every package by its hash; nothing resolved, nothing unpinned.
# usage: setup-venv.sh VENV        environment: PYTHON, the interpreter to use instead of the first that fits
set -eu
venv=$1
cd "$(dirname "$0")/.."

fits() {
    "$1" -c 'import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' >/dev/null 2>&1
}

if ! fits "$venv/bin/python"; then
    found=
    for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11}; do
        if fits "$candidate"; then found=$candidate; break; fi
    done
    if [ -z "$found" ]; then
        echo "setup: no ${PYTHON:-python} from 3.11 to 3.13 with venv here (Debian: apt-get install python3 python3-venv)" >&2
        exit 1
    fi
    rm -rf "$venv"
    "$found" -m venv "$venv"
fi

echo "setup: installing the locked packages into $venv, which takes a minute or two the first time"
# An index, a find-links folder or options set on this machine change where pip looks, never what it accepts. Without
# build isolation the few packages that have no wheel are built by the locked setuptools, not by whatever is newest.
pip() {
    "$venv/bin/python" -m pip install -qq --disable-pip-version-check --no-input --no-deps --no-build-isolation "$@"
}
awk '/^[^ #]/ { wanted = /^setuptools==/ } wanted' requirements.lock >"$venv/setuptools.lock"
pip --require-hashes -r "$venv/setuptools.lock"
pip --require-hashes -r requirements.lock
pip --no-index --editable .
