#!/bin/sh
# Two models knock at the door: a hostile one is turned away, a good one is let in.
# Usage: demo.sh BIN FOLDER, where BIN holds python and bartizan, and FOLDER is new.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
bin=$(cd "$1" && pwd)
mkdir -p "$2"
folder=$(cd "$2" && pwd)
bartizan() { "$bin/bartizan" -C "$folder" "$@"; }
say() { printf '\n== %s\n' "$*"; }

say "A project that knows its people"
cp "$here/../tumour/bartizan.toml" "$folder/bartizan.toml"
"$bin/python" "$here/../tumour/prepare.py" "$folder"
(cd "$folder" && "$bin/bartizan" init --yes --unencrypted --person risk-owner=risk-owner --person security=security)

say "Somebody sends a torch file"
mkdir -p "$folder/downloads"
"$bin/python" "$here/../suspicious/make.py" "$folder/downloads/resnet18-finetuned.pt"
set +e
bartizan intake "$folder/downloads/resnet18-finetuned.pt" --name resnet --supplier unknown --answers "$here/answers.toml"
code=$?
set -e
[ "$code" -eq 1 ] || { echo "the hostile model should have been turned away"; exit 1; }

say "A supplier with a record sends a classifier, and its digest on paper"
cp "$folder/model/tumour.joblib" "$folder/downloads/second-opinion.joblib"
digest=$("$bin/python" -c 'import hashlib, sys; print(hashlib.sha256(open(sys.argv[1], "rb").read()).hexdigest())' \
    "$folder/downloads/second-opinion.joblib")
sed "s/DIGEST/$digest/" "$here/supplier.toml" > "$folder/supplier.toml"
bartizan supplier record wisconsin --from "$folder/supplier.toml" --role security --expires 1y
set +e
bartizan intake "$folder/downloads/second-opinion.joblib" --name second-opinion --supplier wisconsin \
    --digest "$digest" --answers "$here/answers.toml" \
    --samples "$folder/data/holdout.csv" --target malignant --minimum accuracy=0.9
code=$?
set -e
[ "$code" -eq 1 ] || { echo "nothing comes in before somebody answers for it"; exit 1; }

say "Somebody answers for it"
bartizan intake accept second-opinion --role security --reason "Fits the comparison study; weights were read."

say "What came in, with source, digest, licence and decision"
bartizan intake audit
