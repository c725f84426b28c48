#!/usr/bin/env bash
# The main job on a local hub, one command after the other as a user would type them: `npm run demo`.
# Every step is checked; the first that does not come out as it should ends the demo with exit 1.
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
place=$(mktemp -d)
cd "$place"
export XDG_STATE_HOME="$place/state"

iothub-device() { node --use-openssl-ca "$here/bin/iothub-device.js" "$@"; }
iothub-service() { node --use-openssl-ca "$here/bin/iothub-service.js" "$@"; }

started=()
clean_up() {
  for pid in "${started[@]}"; do kill "$pid" 2>/dev/null && wait "$pid" 2>/dev/null || true; done
  rm -rf "$place"
}
trap clean_up EXIT

[ -t 1 ] && bold=$'\e[1m' plain=$'\e[0m' || bold='' plain=''
say() { printf '\n%s# %s%s\n' "$bold" "$*" "$plain"; }
# quoted WORD…: the words as a person would write them in a shell.
quoted() {
  for word in "$@"; do
    if [[ $word =~ ^[A-Za-z0-9_./=-]+$ ]]; then printf ' %s' "$word"; else printf " '%s'" "$word"; fi
  done
}
fail() { printf '\nThe demo failed: %s\n' "$*" >&2; cat agent.log hub.log >&2 2>/dev/null; exit 1; }
# show WANTED_EXIT COMMAND…: prints the command, runs it, and compares its exit code.
show() {
  local wanted=$1 code=0
  shift
  printf '$%s\n' "$(quoted "$@")"
  "$@" || code=$?
  if ((wanted != 0)); then printf '(exit %s)\n' "$code"; fi
  ((code == wanted)) || fail "exit $code instead of $wanted"
}
# until_there WHAT COMMAND…: waits until the command succeeds.
until_there() {
  local what=$1
  shift
  for ((n = 0; n < 200; n++)); do "$@" >/dev/null 2>&1 && return; sleep 0.1; done
  fail "$what did not come"
}

say 'A local IoT Hub with one device. No account, no network.'
echo '$ iothub-emulator start --ports auto --device dev1 --write-env hub.env &'
node --use-openssl-ca "$here/bin/iothub-emulator.js" start --ports auto --device dev1 --write-env hub.env -o text >hub.log 2>&1 &
started+=($!)
until_there 'the hub' test -f hub.env
head -n 1 hub.log
echo '$ . ./hub.env'
# shellcheck disable=SC1091
. ./hub.env

say 'Telemetry: sent, and accepted by the hub.'
show 0 iothub-device send --data '{"temperature":21.5}' --prop room=kitchen -o text
say 'The hub saw:'
until_there 'the telemetry' grep -q 'telemetry.*21\.5' hub.log
grep 'telemetry .*21\.5' hub.log

say 'A handler decides about commands: exit 0 accepts, 75 asks for it again later, anything else rejects.'
cat >greet <<'HANDLER'
#!/bin/sh
name=$(cat)
[ -n "$name" ] || { echo "empty name" >&2; exit 65; }
[ "$name" != Bob ] || [ "$IOTHUB_ATTEMPT" -gt 1 ] || { echo "Bob is busy" >&2; exit 75; }
echo "hello $name" >&2
HANDLER
chmod +x greet
cat greet
echo '$ iothub-device run --exec ./greet &'
node --use-openssl-ca "$here/bin/iothub-device.js" run --exec ./greet >agent.log 2>&1 &
started+=($!)
until_there 'the agent' grep -q online agent.log

say 'Three commands, each waiting for its feedback: accepted, rejected, and released once before it is accepted.'
show 0 iothub-service send dev1 --data Ada --wait -o text
show 65 iothub-service send dev1 --data '' --wait -o text
show 0 iothub-service send dev1 --data Bob --wait -o text
say 'What the agent said:'
cat agent.log
say 'What the hub was told:'
grep ' outcome ' hub.log
printf '\nThe demo is done.\n'
