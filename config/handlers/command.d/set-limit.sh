#!/bin/sh
# A command handler as a shell script: keeps a number that the hub sent, after a look at it.
#
#   iothub-service send dev1 --prop command=set-limit --data 80 --ack full --wait
#
# The body comes on standard input, properties as IOTHUB_PROP_<NAME>. The exit code is the outcome:
# 0 accept, 75 later, 65 and most others reject; the last line on standard error is the reason.
set -eu

limit=$(cat)
case $limit in
'' | *[!0-9]*)
  echo "a limit is a whole number" >&2
  exit 65
  ;;
esac
if [ "$limit" -gt 100 ]; then
  echo "a limit is at most 100, not $limit" >&2
  exit 65
fi

# Only one at a time, also beside other programs that change it: if it is busy, the command comes again.
if ! mkdir limit.lock 2>/dev/null; then
  echo "<4>someone else is changing the limit" >&2
  exit 75
fi
trap 'rmdir limit.lock' EXIT

# Whole or not at all: a handler can be killed at its deadline.
printf '%s\n' "$limit" >limit.new
mv limit.new limit
echo "limit is $limit now, by ${IOTHUB_MESSAGE_ID:-a message without an id}" >&2
