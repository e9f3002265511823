#!/bin/sh
# The wheel of featurestore-reader, without a network: build_reader.sh PYTHON FOLDER, with a PYTHON that has setuptools.
set -eu
python=$1
mkdir -p "$2"
folder=$(cd "$2" && pwd)
cd "$(dirname "$0")/.."

# From a copy without links, so that nothing of a build stays in the checkout and finds its way into the next one.
made=$(mktemp -d)
trap 'rm -rf "$made"' EXIT
cp -RL scripts/reader_package "$made/package"
rm -rf "$made"/package/build "$made"/package/*.egg-info
"$python" -m pip wheel --quiet --disable-pip-version-check --no-index --no-deps --no-build-isolation \
    --wheel-dir "$folder" "$made/package"
