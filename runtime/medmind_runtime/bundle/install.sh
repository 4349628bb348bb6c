#!/bin/sh
# Installs medmind-chat from this folder alone: no network is used, and none is needed.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
target=${1:-$here/medmind}
fail() { printf 'error: %s\n' "$1" >&2; exit 1; }

[ "$(uname -s)" = "@SYSTEM@" ] || fail "this bundle is for @SYSTEM@, and here is $(uname -s)"
[ "$(uname -m)" = "@MACHINE@" ] || fail "this bundle is for @MACHINE@, and here is $(uname -m)"
python=${PYTHON:-python@PYTHON@}
command -v "$python" >/dev/null || fail "Python @PYTHON@ is not here; name one with PYTHON=/path/to/python@PYTHON@"
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
[ "$version" = "@PYTHON@" ] || fail "$python is Python $version, and this bundle is for @PYTHON@"
[ ! -e "$target" ] || fail "$target exists already; give another folder: sh install.sh FOLDER"

cd "$here"
sha256sum --quiet --check SHA256SUMS || fail "a file of this bundle is damaged; copy it again"
# pip takes the newest wheel that it finds, so one that an earlier bundle left would be installed.
unlisted=$(find wheels ! -type d | grep -vxF -e "$(sed 's/^[^ ]*  //' SHA256SUMS)" | head -n 1)
[ -z "$unlisted" ] || fail "$unlisted does not belong to this bundle; remove it, or copy the bundle into an empty folder"
mkdir -p "$(dirname "$target")"
trap 'rm -rf "$target"; exit 1' INT TERM
"$python" -m venv "$target" || { rm -rf "$target"; fail "no environment could be made; is the venv module of Python installed?"; }
"$target/bin/python" -m pip --disable-pip-version-check install --quiet --no-index --find-links "$here/wheels" \
    "medmind[@EXTRA@]" || { rm -rf "$target"; fail "the wheels could not be installed"; }
target=$(cd "$target" && pwd)
cp "@MODEL@" "$target/"
set -- "$target/@MODEL@"
if [ -n "@LIBRARY@" ]; then
    cp "@LIBRARY@" "$target/"
    set -- "$@" --library "$target/@LIBRARY@"
fi
{
    printf '#!/bin/sh\nexec "%s/bin/medmind-chat"' "$target"
    printf ' "%s"' "$@"
    printf ' "$@"\n'
} >"$target/chat"
chmod 755 "$target/chat"
"$target/chat" --prompt "What is a fever?" --max-tokens 16 >/dev/null 2>"$target/first.log" ||
    { cat "$target/first.log" >&2; rm -rf "$target"; fail "it was installed, but it does not answer on this machine"; }
rm -f "$target/first.log"
printf 'Installed, and it answers. Talk to it with: %s/chat\n' "$target"
