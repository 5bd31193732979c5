#!/bin/sh
# Builds dist/edgehub, the agent as one file, with the Python packages of a virtual environment. `make binary` calls it.
#   sh docker/binary/build.sh .venv/bin
# The file is put in its place whole, when it is done: who runs the old one meanwhile is not disturbed.
set -eu
bin=$1
packages=""
for tool in objdump strip; do
    command -v "$tool" >/dev/null 2>&1 || packages=binutils
done
# Debian's python3 has its library linked in; the one that can be taken along is a package of its own.
"$bin/python" -c 'from PyInstaller.depend.bindepend import get_python_library_path as find; find()' 2>/dev/null \
    || packages="$packages $("$bin/python" -c 'import sys; print("libpython%d.%d" % sys.version_info[:2])')"
[ -z "$packages" ] || sh tests/install-debian-packages.sh $packages

echo "building dist/edgehub"
# The same sources give the same file: no hash seed, no time of day and no cache of the user's in it.
PYTHONHASHSEED=0 SOURCE_DATE_EPOCH=0 PYINSTALLER_CONFIG_DIR=build/pyinstaller "$bin/pyinstaller" \
    --log-level ERROR --noconfirm --workpath build/binary --distpath build/binary/dist docker/binary/edgehub.spec
mkdir -p dist
mv -f build/binary/dist/edgehub dist/edgehub
