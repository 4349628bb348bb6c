#!/usr/bin/env bash
# The embedded run, then the whole chain on the embedded base and sample: nothing is fetched, the CPU is enough.
set -euo pipefail
BIN="${BIN:-.venv/bin}"
export HF_HUB_OFFLINE=1 CUDA_VISIBLE_DEVICES=
started=$SECONDS
question="What are the warning signs of a stroke?"
say() { printf '\n\033[1m==> %s\033[0m\n' "$*"; }

say "1/5 ask what medmind carries: medmind-convert gguf q8_0 medmind-tiny, medmind-chat medmind-tiny -p \"$question\""
"$BIN/medmind-convert" gguf q8_0 medmind-tiny --force
"$BIN/medmind-chat" medmind-tiny -p "$question"
say "2/5 fine-tune: medmind-train qlora"
"$BIN/medmind-train" qlora --base medmind-base --data sample --name demo --force \
    --epochs 1 --lr 2e-3 --answer-rows 4 --sample-answers 1
say "3/5 convert: medmind-convert gguf f16 q8_0 q4_k_m"
"$BIN/medmind-convert" gguf f16 q8_0 q4_k_m runs/demo --force
say "4/5 benchmark: medmind-bench quants --quick"
"$BIN/medmind-bench" quants runs/demo --quick --force
say "5/5 ask: medmind-chat -p \"$question\""
"$BIN/medmind-chat" runs/demo/demo.q4_k_m.gguf -p "$question"

cat <<END

The chain ran in $((SECONDS - started)) seconds. The embedded models are for demonstration, far smaller than a 7B:
they learn the tone of an answer, not medicine. What it left:
  runs/demo/report.md              how training went
  runs/demo/adapter/               the LoRA adapter
  runs/demo/demo.q4_k_m.gguf       the model, also as .f16 and .q8_0
  runs/medmind-tiny/               the model file of the run that medmind carries
  runs/demo/benchmark/report.md    perplexity, size, memory and speed of each

Next, with a CUDA card of 8 GB or more (some 15 GB to download), after: source ${BIN%/bin}/bin/activate
  medmind-train doctor
  medmind-train qlora --base mistralai/Mistral-7B-Instruct-v0.3 --data medquad --name clinic
  medmind-convert gguf q8_0 q4_k_m runs/clinic
  medmind-bench quants runs/clinic
  medmind-chat runs/clinic/clinic.q4_k_m.gguf
END
