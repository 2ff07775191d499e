#!/usr/bin/env bash
# `make test` under odd conditions, one after another: what fails is a fault, not retried.
#   bench/odd_runs.sh [plain|busy|odd|random|user ...]   the order given; all five without a word
# plain: as it is. busy: beside a process that computes. odd: LANG=C, another zone, umask 077.
# random: in random order, of a seed that is printed. user: an ordinary user whose home has a blank
# (needs root). Results: one line each, and a log each in results/odd-runs/.
set -uo pipefail
cd "$(dirname "$0")/.."
logs=results/odd-runs
mkdir -p "$logs"
status=0

run() { # NAME COMMAND...
    local name=$1 begun=$SECONDS; shift
    if "$@" >"$logs/$name.log" 2>&1; then said=passed; else said=FAILED status=1; fi
    echo "$name: $said in $((SECONDS - begun)) s; $(grep -hE '^=+ .*(skipped|passed|failed)|[0-9]+ (passed|failed)' "$logs/$name.log" | tail -n 2 | tr '\n' ' ')"
}

plain() { run plain make test; }

busy() {
    python3 -c 'while True: pass' &
    local other=$!
    trap 'kill "$other" 2>/dev/null' EXIT
    run busy make test
    kill "$other"
}

odd() { run odd sh -c 'umask 077; LANG=C LC_ALL=C TZ=Asia/Kolkata exec make test'; }

random() { run random make test PYTEST="--shuffle ${SEED:=$RANDOM}"; echo "its seed: $SEED"; }

user() {
    [ "$(id -u)" = 0 ] || { echo "user: needs root"; return; }
    local home="/home/odd user" name=oddrunner
    mkdir -p "$home"
    id "$name" >/dev/null 2>&1 || useradd --home-dir "$home" --shell /bin/bash "$name"
    git clone --quiet . "$home/reprise" 2>/dev/null || git -C "$home/reprise" pull --quiet
    chown -R "$name" "$home"
    run user su "$name" -c "cd '$home/reprise' && make test PYTHON=${PYTHON:-python3.11}"
    userdel "$name" && rm -rf "$home"
}

for one in "${@:-plain busy odd random user}"; do
    for name in $one; do "$name"; done
done
exit "$status"
